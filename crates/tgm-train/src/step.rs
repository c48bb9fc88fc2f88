//! One optimiser step: from the clips of a global batch to the gradient of the joint loss.
//!
//! The global batch may be larger than memory allows. Reconstruction is a mean over clips, so its gradient is the mean of
//! the micro-batches' gradients. The contrastive loss is not: every clip is compared with every other one of the *global*
//! batch. It is therefore computed in two passes (gradient caching, as in open_clip): first all clips are encoded and
//! the loss's gradient with respect to their pooled tokens is taken at once; then each micro-batch is encoded again
//! and that gradient is passed on. The result does not depend on the size of the micro-batches.
//!
//! Nor does it depend on how many processes share the micro-batches, but for the order of sums. What the contrastive loss compares
//! goes round among them; each passes on the gradient of its own clips, and what comes out is still to be added up over the
//! processes.
//!
//! Tubelets are four times as large as the clips they are made from, so those of a micro-batch are made in each pass.

use std::borrow::Cow;

use anyhow::Result;
use candle_core::{DType, Tensor, Var};
use tgm_contrastive::{Contrast, ContrastiveHead};
use tgm_group::Group;
use tgm_mae::{MaskedLoss, TokenSplit, VideoMae};
use tgm_ops::{Gradients, Params, on_worker};

/// The part of a global batch that is in the model at once.
#[derive(Clone, Debug)]
pub struct MicroBatch {
    /// `[B, N, P]`.
    pub tubelets: Tensor,
    /// Visible and masked tubelets.
    pub split: TokenSplit,
    /// Embeddings `[B, E]` of the captions, with the contrastive loss.
    pub texts: Option<Tensor>,
    /// The captions.
    pub captions: Vec<String>,
}

/// A global batch, of which one micro-batch at a time need be in memory.
pub trait MicroBatches: Sync {
    /// How many micro-batches there are.
    fn count(&self) -> usize;

    /// One of them, the same each time.
    ///
    /// # Errors
    /// When it cannot be made.
    fn micro_batch(&self, number: usize) -> Result<Cow<'_, MicroBatch>>;
}

impl MicroBatches for Vec<MicroBatch> {
    fn count(&self) -> usize {
        self.len()
    }

    fn micro_batch(&self, number: usize) -> Result<Cow<'_, MicroBatch>> {
        Ok(Cow::Borrowed(&self[number]))
    }
}

/// The model and its losses.
#[derive(Clone, Debug)]
pub struct Joint {
    /// The masked autoencoder.
    pub mae: VideoMae,
    /// The contrastive head and its weight in the loss.
    pub contrastive: Option<(ContrastiveHead, f64)>,
}

/// What one step measured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Losses {
    /// Reconstruction: mean squared error on masked tubelets.
    pub mae: f64,
    /// The same for a model that always answers the mean.
    pub mae_of_mean: f64,
    /// The contrastive loss.
    pub contrastive: Option<ContrastiveLosses>,
}

/// The contrastive part of [`Losses`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ContrastiveLosses {
    /// The loss itself.
    pub loss: f64,
    /// Divided by that of guessing, ln(batch) where no caption repeats: 1 is guessing.
    pub relative: f64,
    /// Share of clips matched with their own caption.
    pub top1: f64,
    /// 1/τ.
    pub scale: f64,
}

impl Joint {
    /// The loss of a global batch, its gradient added to `grads`.
    ///
    /// In a group each process gives as many micro-batches. Its gradient, and its reconstruction losses, are then its share of
    /// the global batch's: their sum over the processes is the whole. The contrastive loss is the whole one already.
    ///
    /// # Errors
    /// When shapes do not fit, a parameter gets no gradient, or another process is gone.
    pub fn gradient(
        &self,
        params: &Params,
        batch: &dyn MicroBatches,
        grads: &mut Gradients,
        group: &mut Group,
    ) -> Result<Losses> {
        on_worker(|| match (&self.contrastive, batch.count() * group.size()) {
            (None, all) => self.reconstruction_only(params, batch, grads, 1.0 / all as f64),
            (Some((head, weight)), 1) => {
                let whole = batch.micro_batch(0)?;
                self.at_once(head, *weight, params, &whole, grads)
            }
            (Some((head, weight)), _) => self.cached(head, *weight, params, batch, grads, group),
        })
    }

    fn reconstruction_only(
        &self,
        params: &Params,
        batch: &dyn MicroBatches,
        grads: &mut Gradients,
        share: f64,
    ) -> Result<Losses> {
        let mut losses = Losses::default();
        for number in 0..batch.count() {
            let micro = batch.micro_batch(number)?;
            let out = self.mae.loss(&micro.tubelets, &micro.split)?;
            grads.backward(params.iter(), &(&out.loss * share)?)?;
            losses.add(&out, share)?;
        }
        Ok(losses)
    }

    fn at_once(
        &self,
        head: &ContrastiveHead,
        weight: f64,
        params: &Params,
        whole: &MicroBatch,
        grads: &mut Gradients,
    ) -> Result<Losses> {
        let out = self.mae.loss(&whole.tubelets, &whole.split)?;
        let contrast = head.loss(&head.pool(&out.encoded)?, texts(whole)?, &whole.captions)?;
        let loss = (&out.loss + (&contrast.loss * weight)?)?;
        grads.backward(params.iter(), &loss)?;
        let mut losses = Losses { contrastive: Some(ContrastiveLosses::of(&contrast)?), ..Losses::default() };
        losses.add(&out, 1.0)?;
        Ok(losses)
    }

    fn cached(
        &self,
        head: &ContrastiveHead,
        weight: f64,
        params: &Params,
        batch: &dyn MicroBatches,
        grads: &mut Gradients,
        group: &mut Group,
    ) -> Result<Losses> {
        let (head_vars, model_vars): (Vec<_>, Vec<_>) =
            params.iter().partition(|(name, _)| name.starts_with(ContrastiveHead::PREFIX));
        let (compared, first) = self.compared(head, batch)?.of_all(group)?;
        let all = Var::from_tensor(&compared.pooled)?;
        let contrast = head.loss(&all, &compared.texts, &compared.captions)?;
        let from_loss = (&contrast.loss * weight)?.backward()?;
        // Every process has all of the head's gradient, and it counts once.
        let counts = if group.rank() == 0 { 1.0 } else { 0.0 };
        grads.add(head_vars.into_iter(), &from_loss, counts)?;
        let upstream = from_loss.get(&all).map_or_else(|| all.zeros_like(), |g| Ok(g.clone()))?;

        let mut losses = Losses { contrastive: Some(ContrastiveLosses::of(&contrast)?), ..Losses::default() };
        let (share, mut start) = (1.0 / (batch.count() * group.size()) as f64, first);
        for number in 0..batch.count() {
            let micro = batch.micro_batch(number)?;
            let clips = micro.captions.len();
            let out = self.mae.loss(&micro.tubelets, &micro.split)?;
            let passed_on = (head.pool(&out.encoded)? * upstream.narrow(0, start, clips)?)?.sum_all()?;
            let surrogate = ((&out.loss * share)? + passed_on)?;
            grads.backward(model_vars.iter().copied(), &surrogate)?;
            losses.add(&out, share)?;
            start += clips;
        }
        Ok(losses)
    }

    /// What the contrastive loss compares, of the clips of these micro-batches.
    fn compared(&self, head: &ContrastiveHead, batch: &dyn MicroBatches) -> Result<Compared> {
        let encoder = self.mae.encoder().for_inference();
        let (mut pooled, mut of_captions, mut captions) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..batch.count() {
            let micro = batch.micro_batch(number)?;
            pooled.push(head.pool(&encoder.forward(&micro.tubelets, micro.split.visible())?)?.detach());
            of_captions.push(texts(&micro)?.clone());
            captions.extend_from_slice(&micro.captions);
        }
        Ok(Compared { pooled: Tensor::cat(&pooled, 0)?, texts: Tensor::cat(&of_captions, 0)?, captions })
    }
}

/// What the contrastive loss compares.
struct Compared {
    /// Pooled tokens `[B, D]`.
    pooled: Tensor,
    /// Embeddings of the captions `[B, E]`.
    texts: Tensor,
    captions: Vec<String>,
}

impl Compared {
    /// That of all processes, in the order of their ranks, and where this one's own begins.
    fn of_all(self, group: &mut Group) -> Result<(Self, usize)> {
        if group.size() == 1 {
            return Ok((self, 0));
        }
        let captions: Vec<Vec<String>> = group
            .all_gather(&serde_json::to_vec(&self.captions)?)?
            .iter()
            .map(|captions| serde_json::from_slice(captions))
            .collect::<Result<_, _>>()?;
        let first = captions[..group.rank()].iter().map(Vec::len).sum();
        let (pooled, texts) = (rows_of_all(&self.pooled, group)?, rows_of_all(&self.texts, group)?);
        Ok((Self { pooled, texts, captions: captions.concat() }, first))
    }
}

/// The rows `[B, D]` of all processes, in the order of their ranks.
fn rows_of_all(rows: &Tensor, group: &mut Group) -> Result<Tensor> {
    let width = rows.dim(1)?;
    let own = rows.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    let own: Vec<u8> = own.iter().flat_map(|value| value.to_le_bytes()).collect();
    let all = group.all_gather(&own)?.concat();
    let (values, _) = all.as_chunks::<4>();
    let values: Vec<f32> = values.iter().map(|&value| f32::from_le_bytes(value)).collect();
    Ok(Tensor::from_vec(values, (all.len() / 4 / width, width), rows.device())?.to_dtype(rows.dtype())?)
}

fn texts(micro: &MicroBatch) -> Result<&Tensor> {
    micro
        .texts
        .as_ref()
        .ok_or_else(|| anyhow::anyhow!("the contrastive loss was given clips without text embeddings"))
}

impl Losses {
    fn add(&mut self, out: &MaskedLoss, share: f64) -> Result<()> {
        self.mae += share * f64::from(out.loss.to_scalar::<f32>()?);
        self.mae_of_mean += share * out.of_mean;
        Ok(())
    }

    /// The joint loss.
    pub fn total(&self, weight: f64) -> f64 {
        self.mae + self.contrastive.map_or(0.0, |c| weight * c.loss)
    }
}

impl ContrastiveLosses {
    fn of(contrast: &Contrast) -> Result<Self> {
        let loss = f64::from(contrast.loss.to_scalar::<f32>()?);
        Ok(Self { loss, relative: contrast.relative, top1: contrast.top1, scale: contrast.scale })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};
    use tgm_contrastive::ContrastiveConfig;
    use tgm_mae::{MaeConfig, TransformerConfig};
    use tgm_ops::gradcheck::randn;
    use tgm_random::Streams;

    fn config() -> MaeConfig {
        MaeConfig {
            frames: 4,
            image_size: [16, 16],
            encoder: TransformerConfig::new(16, 2, 2),
            decoder: TransformerConfig::new(8, 1, 2),
            ..MaeConfig::micro()
        }
    }

    /// Clips `from..to` of one fixed batch of 6.
    fn micro(config: &MaeConfig, from: usize, to: usize) -> MicroBatch {
        let tubelets = randn("tubelets", &[6, config.tokens(), config.tubelet_len()], DType::F32).unwrap();
        let masked: Vec<Vec<bool>> =
            (from..to).map(|s| (0..config.tokens()).map(|i| (i + s) % 4 != 0).collect()).collect();
        MicroBatch {
            tubelets: tubelets.narrow(0, from, to - from).unwrap(),
            split: TokenSplit::from_bools(&masked, &Device::Cpu).unwrap(),
            texts: Some(randn("texts", &[6, 5], DType::F32).unwrap().narrow(0, from, to - from).unwrap()),
            captions: ["a", "b", "c", "a", "d", "e"][from..to].iter().map(|c| (*c).to_string()).collect(),
        }
    }

    /// Micro-batches of [`micro`] that are made when they are wanted.
    struct Made<'a>(&'a [usize]);

    impl MicroBatches for Made<'_> {
        fn count(&self) -> usize {
            self.0.len() - 1
        }

        fn micro_batch(&self, number: usize) -> Result<Cow<'_, MicroBatch>> {
            Ok(Cow::Owned(micro(&config(), self.0[number], self.0[number + 1])))
        }
    }

    /// Of clips `cuts[0]..cuts[1]`, `cuts[1]..cuts[2]` and so on, each made before.
    fn gradient(cuts: &[usize]) -> (Losses, Gradients) {
        let batch: Vec<MicroBatch> = cuts.windows(2).map(|w| micro(&config(), w[0], w[1])).collect();
        gradient_of(&batch)
    }

    fn gradient_of(batch: &dyn MicroBatches) -> (Losses, Gradients) {
        let config = config();
        let mut params = Params::new(Streams::new(1), &Device::Cpu);
        let mae = VideoMae::new(&config, &mut params).unwrap();
        let head = ContrastiveHead::new(16, 5, &ContrastiveConfig::default(), &mut params).unwrap();
        let joint = Joint { mae, contrastive: Some((head, 0.7)) };
        let mut grads = Gradients::zeros(&params);
        let losses = joint.gradient(&params, batch, &mut grads, &mut Group::alone()).unwrap();
        (losses, grads)
    }

    #[test]
    fn micro_batches_that_are_made_when_they_are_wanted_give_the_same_to_the_bit() {
        for cuts in [&[0, 6][..], &[0, 3, 6]] {
            let ((before, a), (late, b)) = (gradient(cuts), gradient_of(&Made(cuts)));
            assert_eq!(before, late);
            assert!(a.iter().eq(b.iter()), "{cuts:?}");
        }
    }

    /// open_clip PR 419: accumulating a contrastive loss over micro-batches is another loss, unless done this way.
    #[test]
    fn micro_batches_change_neither_loss_nor_gradient() {
        let (whole_losses, whole) = gradient(&[0, 6]);
        for cuts in [&[0, 3, 6][..], &[0, 2, 4, 6], &[0, 1, 2, 3, 4, 5, 6]] {
            let (losses, grads) = gradient(cuts);
            assert!((losses.mae - whole_losses.mae).abs() < 1e-5, "{losses:?} against {whole_losses:?}");
            let (a, b) = (losses.contrastive.unwrap(), whole_losses.contrastive.unwrap());
            assert!((a.loss - b.loss).abs() < 1e-5);
            for ((name, a), (_, b)) in grads.iter().zip(whole.iter()) {
                let norm = |v: &[f32]| v.iter().map(|x| x * x).sum::<f32>().sqrt();
                let difference: Vec<f32> = a.iter().zip(b).map(|(a, b)| a - b).collect();
                assert!(norm(&difference) <= 1e-4 * norm(b) + 1e-7, "{name} in {cuts:?}");
            }
        }
    }
}
