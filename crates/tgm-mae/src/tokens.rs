//! Which tubelets a model sees and which it reconstructs.

use candle_core::{Device, Tensor};
use tgm_masking::Mask;

use crate::{MaeConfig, MaeError};

/// The tubelets of a batch, split: indices of the visible ones and of those to be reconstructed. No tubelet is both.
///
/// A split belongs to clips of so many tubelets, and a model refuses that of others.
#[derive(Clone, Debug)]
pub struct TokenSplit {
    visible: Tensor,
    targets: Tensor,
    tubelets: usize,
}

impl TokenSplit {
    /// From one mask per sample; every masked tubelet is reconstructed.
    ///
    /// # Errors
    /// [`MaeError::UnequalMasks`] when the masks hide, or show, different numbers of tubelets; [`MaeError::Input`] when
    /// they are of different grids.
    pub fn from_masks(masks: &[Mask], device: &Device) -> Result<Self, MaeError> {
        let tubelets = tubelets_of(masks)?;
        let targets: Vec<&[u32]> = masks.iter().map(Mask::masked).collect();
        // What is hidden first: it is what a user has set, and what the error should count.
        let targets = index_tensor(&targets, "hides", device)?;
        Ok(Self { visible: visible_tensor(masks, device)?, targets, tubelets })
    }

    /// From one mask per sample, reconstructing only `targets`, a part of each mask's masked tubelets: VideoMAEv2's decoder
    /// masking (see `tgm_masking`'s running-cell masking).
    ///
    /// # Errors
    /// [`MaeError::Input`] when there are not as many lists of targets as masks, the masks are of different grids, or a
    /// target is not masked; [`MaeError::UnequalMasks`] when the counts differ between samples.
    pub fn with_targets(masks: &[Mask], targets: &[&[u32]], device: &Device) -> Result<Self, MaeError> {
        if masks.len() != targets.len() {
            return Err(MaeError::Input(format!(
                "a split needs as many lists of targets as masks, not {} for {}",
                targets.len(),
                masks.len()
            )));
        }
        let tubelets = tubelets_of(masks)?;
        let visible = visible_tensor(masks, device)?;
        for (sample, (mask, targets)) in masks.iter().zip(targets).enumerate() {
            // A model that sees what it is to reconstruct learns to copy.
            if let Some(target) = targets.iter().find(|target| mask.masked().binary_search(target).is_err()) {
                return Err(MaeError::Input(format!(
                    "tubelet {target} of sample {sample} is to be reconstructed and is not masked: choose targets among the masked"
                )));
            }
        }
        Ok(Self { visible, targets: index_tensor(targets, "reconstructs", device)?, tubelets })
    }

    /// From flags per tubelet (`true` = masked), as Hugging Face's `bool_masked_pos` gives them. Unlike a [`Mask`], the
    /// counts need only agree between samples, not between temporal slots.
    ///
    /// # Errors
    /// [`MaeError::UnequalMasks`] when the samples hide different numbers of tubelets; [`MaeError::Input`] when a sample
    /// shows or hides none, or has another number of flags.
    pub fn from_bools(masked: &[Vec<bool>], device: &Device) -> Result<Self, MaeError> {
        let tubelets = masked.first().map_or(0, Vec::len);
        if let Some((sample, flags)) = masked.iter().enumerate().find(|(_, flags)| flags.len() != tubelets) {
            return Err(MaeError::Input(format!(
                "sample {sample} has flags for {} tubelets, sample 0 for {tubelets}",
                flags.len()
            )));
        }
        let pick = |wanted: bool| -> Vec<Vec<u32>> {
            let indices = |flags: &Vec<bool>| {
                (0u32..).zip(flags).filter(|(_, m)| **m == wanted).map(|(i, _)| i).collect()
            };
            masked.iter().map(indices).collect()
        };
        let (visible, targets) = (pick(false), pick(true));
        let slices = |lists: &'_ [Vec<u32>], verb| -> Result<Tensor, MaeError> {
            index_tensor(&lists.iter().map(Vec::as_slice).collect::<Vec<_>>(), verb, device)
        };
        Ok(Self { targets: slices(&targets, "hides")?, visible: slices(&visible, "shows")?, tubelets })
    }

    /// From the two index tensors themselves, `[B, Nv]` and `[B, Nt]` of `u32`: a split of clips of `tubelets` tubelets
    /// that was stored.
    ///
    /// # Errors
    /// [`MaeError::Input`] when they are not of two dimensions, of different numbers of clips, or empty; or when an index
    /// is `tubelets` or more, or both visible and a target. [`MaeError::Candle`] when they are not `u32`.
    pub fn from_indices(visible: Tensor, targets: Tensor, tubelets: usize) -> Result<Self, MaeError> {
        match (visible.dims(), targets.dims()) {
            (&[a, shown], &[b, hidden]) if a == b && shown > 0 && hidden > 0 => {}
            (visible, targets) => {
                return Err(MaeError::Input(format!(
                    "a split needs indices [B, Nv] and [B, Nt], not {visible:?} and {targets:?}"
                )));
            }
        }
        let samples = visible.to_vec2::<u32>()?.into_iter().zip(targets.to_vec2::<u32>()?);
        for (sample, (visible, targets)) in samples.enumerate() {
            if let Some(index) = visible.iter().chain(&targets).find(|&&index| index as usize >= tubelets) {
                return Err(MaeError::Input(format!(
                    "sample {sample} has tubelet {index} in a clip of {tubelets} tubelets"
                )));
            }
            if let Some(both) = targets.iter().find(|target| visible.contains(target)) {
                return Err(MaeError::Input(format!(
                    "tubelet {both} of sample {sample} is visible and a target"
                )));
            }
        }
        Ok(Self { visible, targets, tubelets })
    }

    /// Indices of the visible tubelets, `[B, Nv]` of `u32`.
    pub fn visible(&self) -> &Tensor {
        &self.visible
    }

    /// Indices of the tubelets to be reconstructed, `[B, Nt]` of `u32`.
    pub fn targets(&self) -> &Tensor {
        &self.targets
    }

    /// N: how many tubelets the clips have that were split.
    pub fn tubelets(&self) -> usize {
        self.tubelets
    }

    /// Refuses clips `[B, N, P]` of other numbers of tubelets than were split.
    pub(crate) fn check(&self, tubelets: &Tensor) -> Result<(), MaeError> {
        match tubelets.dims3()? {
            (_, found, _) if found == self.tubelets => Ok(()),
            _ => Err(MaeError::Input(format!(
                "a split of clips of {} tubelets does not fit clips {:?}: make it for their grid",
                self.tubelets,
                tubelets.dims()
            ))),
        }
    }
}

/// How many tubelets the clips have, which must be masked on one grid.
fn tubelets_of(masks: &[Mask]) -> Result<usize, MaeError> {
    let Some(first) = masks.first() else { return Err(nothing()) };
    match masks.iter().enumerate().find(|(_, mask)| mask.grid() != first.grid()) {
        None => Ok(first.grid().len()),
        Some((sample, mask)) => Err(MaeError::Input(format!(
            "sample {sample} is masked on a grid of {}, sample 0 on one of {}: the grid must be the same in a batch",
            mask.grid(),
            first.grid()
        ))),
    }
}

fn nothing() -> MaeError {
    MaeError::Input("a masked autoencoder needs visible and masked tubelets in every clip".into())
}

fn visible_tensor(masks: &[Mask], device: &Device) -> Result<Tensor, MaeError> {
    index_tensor(&masks.iter().map(Mask::visible).collect::<Vec<_>>(), "shows", device)
}

/// One list per sample to `[B, N]`; `verb` says what a sample does with the tubelets it lists.
fn index_tensor(lists: &[&[u32]], verb: &'static str, device: &Device) -> Result<Tensor, MaeError> {
    let expected = lists.first().map_or(0, |l| l.len());
    if let Some((sample, list)) = lists.iter().enumerate().find(|(_, l)| l.len() != expected) {
        return Err(MaeError::UnequalMasks { sample, verb, expected, found: list.len() });
    }
    if expected == 0 {
        return Err(nothing());
    }
    Ok(Tensor::from_vec(lists.concat(), (lists.len(), expected), device)?)
}

/// Cuts normalised pixels `[B, T, C, H, W]` into tubelets `[B, N, P]`, each laid out `[t, y, x, c]`.
///
/// # Errors
/// [`MaeError::Input`] when the clip has another size than the model's.
pub fn tubelets_from_pixels(config: &MaeConfig, pixels: &Tensor) -> Result<Tensor, MaeError> {
    let expected = [config.frames, config.channels, config.image_size[0], config.image_size[1]];
    if pixels.rank() != 5 || pixels.dims()[1..] != expected {
        let [t, c, h, w] = expected;
        let found = pixels.dims();
        return Err(MaeError::Input(format!(
            "pixel_values is {found:?}, this model takes [B, {t}, {c}, {h}, {w}]"
        )));
    }
    let batch = pixels.dims()[0];
    let ([slots, rows, cols], [ph, pw]) = (config.grid(), config.patch);
    // Two steps of at most six dimensions: rows of patches first, then columns.
    let by_rows = pixels
        .reshape(vec![batch * slots, config.tubelet, config.channels, rows, ph, cols * pw])?
        .permute(vec![0, 3, 1, 4, 5, 2])?
        .contiguous()?;
    let by_cols = by_rows
        .reshape(vec![batch * slots * rows, config.tubelet * ph, cols, pw * config.channels])?
        .permute(vec![0, 2, 1, 3])?
        .contiguous()?;
    Ok(by_cols.reshape((batch, config.tokens(), config.tubelet_len()))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tubelet_is_pixel_major_and_channel_minor() {
        let config =
            MaeConfig { frames: 2, image_size: [4, 4], channels: 3, patch: [2, 2], ..MaeConfig::micro() };
        // Pixel (t, c, y, x) has the value 1000 t + 100 c + 10 y + x.
        let value = |i: usize| (1000 * (i / 48) + 100 * (i / 16 % 3) + 10 * (i / 4 % 4) + i % 4) as f32;
        let pixels = Tensor::from_vec((0..96).map(value).collect(), (1, 2, 3, 4, 4), &Device::Cpu).unwrap();
        let tubelets = tubelets_from_pixels(&config, &pixels).unwrap();
        let second = tubelets.to_vec3::<f32>().unwrap()[0][1].clone();
        let expected: Vec<f32> = [0, 1000]
            .into_iter()
            .flat_map(|t| [2, 3, 12, 13].map(|yx| [t + yx, t + 100 + yx, t + 200 + yx]))
            .flatten()
            .map(|v| v as f32)
            .collect();
        assert_eq!(second, expected);
    }

    #[test]
    fn unequal_masks_name_the_sample() {
        let masks = [vec![true, false, false], vec![true, true, false]];
        let error = TokenSplit::from_bools(&masks, &Device::Cpu).unwrap_err();
        assert!(matches!(error, MaeError::UnequalMasks { sample: 1, expected: 1, found: 2, .. }), "{error}");
    }

    /// One tubelet of each slot of 2×2×2 hidden, and three of each.
    fn sparse_and_dense() -> [Mask; 2] {
        let grid = tgm_masking::Grid::new(2, 2, 2).unwrap();
        [vec![0, 4], vec![0, 1, 2, 4, 5, 6]].map(|masked| Mask::from_masked(grid, masked).unwrap())
    }

    /// The numbers of visible tubelets, 6 and 2, were reported as hidden.
    #[test]
    fn unequal_masks_are_reported_with_what_they_hide() {
        let error = TokenSplit::from_masks(&sparse_and_dense(), &Device::Cpu).unwrap_err().to_string();
        let said = "sample 1 hides 6 tubelets, sample 0 hides 2: the count must be the same in a batch";
        assert_eq!(error, said);
    }

    #[test]
    fn unequal_lists_with_targets_are_reported_as_what_they_are() {
        let [sparse, dense] = sparse_and_dense();
        let said = |masks: &[Mask], targets: &[&[u32]]| {
            TokenSplit::with_targets(masks, targets, &Device::Cpu).unwrap_err().to_string()
        };
        let error = said(&[sparse, dense.clone()], &[&[0], &[0]]);
        assert!(error.starts_with("sample 1 shows 2 tubelets, sample 0 shows 6:"), "{error}");
        let error = said(&[dense.clone(), dense], &[&[0, 1], &[0]]);
        assert!(error.starts_with("sample 1 reconstructs 1 tubelets, sample 0 reconstructs 2:"), "{error}");
    }

    /// The split was made, and failed in the middle of the model.
    #[test]
    fn as_many_lists_of_targets_as_masks_are_needed() {
        let error =
            TokenSplit::with_targets(&sparse_and_dense()[..1], &[&[0], &[0]], &Device::Cpu).unwrap_err();
        assert!(matches!(error, MaeError::Input(_)));
        assert_eq!(error.to_string(), "a split needs as many lists of targets as masks, not 2 for 1");
    }

    /// Their indices were taken for those of one clip.
    #[test]
    fn masks_of_different_grids_and_flags_of_different_numbers_are_refused() {
        let grid = tgm_masking::Grid::new(2, 1, 4).unwrap();
        let masks = [sparse_and_dense()[0].clone(), Mask::from_masked(grid, vec![0, 4]).unwrap()];
        let targets: [&[u32]; 2] = [&[0], &[0]];
        for error in [
            TokenSplit::from_masks(&masks, &Device::Cpu).unwrap_err(),
            TokenSplit::with_targets(&masks, &targets, &Device::Cpu).unwrap_err(),
        ] {
            assert!(
                error
                    .to_string()
                    .starts_with("sample 1 is masked on a grid of 2×1×4, sample 0 on one of 2×2×2:")
            );
        }
        let flags = [vec![true, false, false], vec![true, false, false, false]];
        let error = TokenSplit::from_bools(&flags, &Device::Cpu).unwrap_err().to_string();
        assert_eq!(error, "sample 1 has flags for 4 tubelets, sample 0 for 3");
        assert!(TokenSplit::from_masks(&[], &Device::Cpu).is_err());
    }

    /// The model saw what it was asked for.
    #[test]
    fn a_visible_tubelet_is_no_target() {
        let [sparse, _] = sparse_and_dense();
        let split = |targets: &[u32]| {
            TokenSplit::with_targets(std::slice::from_ref(&sparse), &[targets], &Device::Cpu)
        };
        assert_eq!(split(&[4]).unwrap().tubelets(), 8);
        let error = split(&[4, 5]).unwrap_err().to_string();
        assert!(
            error.starts_with("tubelet 5 of sample 0 is to be reconstructed and is not masked"),
            "{error}"
        );
    }

    #[test]
    fn a_stored_split_has_indices_of_its_clips_and_none_of_them_twice() {
        let split = |visible: [u32; 2], targets: [u32; 2]| {
            let tensor = |row| Tensor::new(&[row], &Device::Cpu).unwrap();
            TokenSplit::from_indices(tensor(visible), tensor(targets), 4)
        };
        assert!(split([0, 3], [2, 1]).is_ok());
        for (targets, said) in [
            ([1, 4], "sample 0 has tubelet 4 in a clip of 4 tubelets"),
            ([1, 3], "tubelet 3 of sample 0 is visible and a target"),
        ] {
            assert_eq!(split([0, 3], targets).unwrap_err().to_string(), said);
        }
        let floats = Tensor::zeros((1, 2), candle_core::DType::F32, &Device::Cpu).unwrap();
        assert!(TokenSplit::from_indices(floats.clone(), floats, 4).is_err());
    }

    #[test]
    fn a_clip_with_nothing_visible_is_refused() {
        assert!(TokenSplit::from_bools(&[vec![true, true]], &Device::Cpu).is_err());
    }
}
