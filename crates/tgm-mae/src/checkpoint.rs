//! Models on disk: this crate's own folders, Hugging Face folders, and original VideoMAE files.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};
use tgm_ops::{ParamError, check_weights};

use crate::hf_config::{self, NATIVE_TYPE, NativeConfig};
use crate::keys::KeyMap;
use crate::shapes::shapes;
use crate::{KeyLayout, MaeConfig, MaeError, original};

/// What a checkpoint holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum CheckpointKind {
    /// The encoder alone.
    Encoder,
    /// Encoder and decoder.
    Pretraining,
    /// Encoder and classification head.
    Classification {
        /// Number of classes.
        classes: usize,
    },
}

impl fmt::Display for CheckpointKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Encoder => write!(f, "an encoder alone"),
            Self::Pretraining => write!(f, "encoder and decoder"),
            Self::Classification { classes } => write!(f, "an encoder and a head for {classes} classes"),
        }
    }
}

/// The clips that a model takes, where its file does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClipSize {
    /// Frames of a clip.
    pub frames: usize,
    /// Height and width of a frame in pixels.
    pub image_size: [usize; 2],
}

impl Default for ClipSize {
    /// 16 frames of 224×224, as published models take them.
    fn default() -> Self {
        Self { frames: 16, image_size: [224, 224] }
    }
}

/// A model read from disk: its config, and its weights under this crate's names.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Sizes and conventions.
    pub config: MaeConfig,
    /// With decoder, with classification head, or with neither.
    pub kind: CheckpointKind,
    /// How the file names its tensors.
    pub layout: KeyLayout,
    /// Where it was read.
    pub path: PathBuf,
    names: KeyMap,
    weights: BTreeMap<String, Tensor>,
}

impl Checkpoint {
    /// Reads a folder with `config.json` and weights, or a single `.pth` or `.safetensors` file with original names.
    ///
    /// Of a `.pth` file only tensors are read; no pickle is executed. Such a file holds no config: sizes follow from its
    /// tensors, heads from the widths of the published VideoMAE and VideoMAEv2 models, and frames and image size from
    /// `clip`, or [`ClipSize::default`]. Up to a width of 64 there is one head.
    ///
    /// A Hugging Face folder may hold a bare `VideoMAEModel`: without decoder and classifier it is an encoder.
    ///
    /// Weights are not compared with the config before they are asked for; [`Self::check`] does that by itself.
    ///
    /// # Errors
    /// When something is missing, unreadable or of an unknown kind, a single file has another width than these, or a clip
    /// is given for a folder, whose config says what the model takes.
    pub fn open(path: &Path, clip: Option<ClipSize>) -> Result<Self, MaeError> {
        if path.is_dir() {
            if let Some(ClipSize { frames, image_size: [height, width] }) = clip {
                let asked = format!("clips of {frames} frames of {height}×{width} cannot be asked for");
                let reason = format!("a folder's config.json says what clips the model takes: {asked}");
                return Err(MaeError::file(path, reason));
            }
            Self::open_folder(path)
        } else if path.is_file() {
            Self::open_file(path, clip.unwrap_or_default())
        } else {
            Err(MaeError::NoCheckpoint(path.to_path_buf()))
        }
    }

    fn open_folder(folder: &Path) -> Result<Self, MaeError> {
        let config_path = folder.join("config.json");
        if !config_path.is_file() {
            return Err(MaeError::NoCheckpoint(folder.to_path_buf()));
        }
        let text = std::fs::read_to_string(&config_path).map_err(|e| MaeError::file(&config_path, e))?;
        let bad = |reason: String| MaeError::file(&config_path, reason);
        let file = folder_weights(folder)?;
        let (config, kind, native) = match hf_config::model_type(&text).map_err(bad)?.as_str() {
            NATIVE_TYPE => {
                let native: NativeConfig = serde_json::from_str(&text).map_err(|e| bad(e.to_string()))?;
                (native.model, native.kind, true)
            }
            "videomae" => {
                let (config, classification) = hf_config::parse(&text).map_err(bad)?;
                let kind = match file.get("classifier.weight") {
                    Some(head) if classification => {
                        let classes = original::classes("classifier.weight", head.dims())
                            .map_err(|e| MaeError::file(folder, e))?;
                        CheckpointKind::Classification { classes }
                    }
                    None if !has_decoder(&file) => CheckpointKind::Encoder,
                    _ => CheckpointKind::Pretraining,
                };
                (config, kind, false)
            }
            other => return Err(bad(format!("model_type `{other}` is not `videomae` or `{NATIVE_TYPE}`"))),
        };
        config.validate()?;
        let layout = detect(folder, &file)?;
        if native != (layout == KeyLayout::Native) {
            return Err(bad(format!(
                "the config and the tensor names ({layout:?}) are of different programs"
            )));
        }
        Self::assemble(folder, config, kind, layout, file)
    }

    fn open_file(path: &Path, clip: ClipSize) -> Result<Self, MaeError> {
        let file = read_tensors(path)?;
        let layout = detect(path, &file)?;
        if layout != KeyLayout::Original {
            let reason = format!(
                "a single file must have the original VideoMAE's names, these are {layout:?}: give its folder"
            );
            return Err(MaeError::file(path, reason));
        }
        let (config, kind) = original::infer(&file, clip).map_err(|e| MaeError::file(path, e))?;
        config.validate()?;
        Self::assemble(path, config, kind, layout, file)
    }

    fn assemble(
        path: &Path,
        config: MaeConfig,
        kind: CheckpointKind,
        layout: KeyLayout,
        file: BTreeMap<String, Tensor>,
    ) -> Result<Self, MaeError> {
        let names = KeyMap::of_file(&config, kind, layout, &file);
        let weights = names.import(file)?;
        Ok(Self { config, kind, layout, path: path.to_path_buf(), names, weights })
    }

    /// Whether the weights are those of the model that the config describes, every parameter and nothing else.
    ///
    /// # Errors
    /// [`ParamError::Mismatch`], with the names as the file has them.
    pub fn check(&self) -> Result<(), MaeError> {
        self.config.validate()?;
        let source = self.path.display().to_string();
        check_weights(&source, &shapes(&self.config, self.kind), &self.weights)
            .map_err(|e| self.in_file_names(e))
    }

    /// The weights of the encoder alone (names beginning with `encoder.`), for evaluation and fine-tuning.
    pub fn encoder_weights(&self) -> BTreeMap<String, Tensor> {
        let encoder = self.weights.iter().filter(|(name, _)| name.starts_with("encoder."));
        encoder.map(|(name, tensor)| (name.clone(), tensor.clone())).collect()
    }

    /// Names tensors of ours (gradients, say) as the file this was read from does, in its shapes.
    ///
    /// # Errors
    /// When a tensor has another shape than its parameter.
    pub fn in_file_layout(
        &self,
        ours: &BTreeMap<String, Tensor>,
    ) -> Result<BTreeMap<String, Tensor>, MaeError> {
        Ok(self.names.export(ours)?)
    }

    /// An error about our parameters, in the names of the file.
    pub(crate) fn in_file_names(&self, error: ParamError) -> MaeError {
        let map = &self.names;
        match error {
            ParamError::Mismatch { source_name, missing, unexpected, misshapen } => {
                // A packed parameter may lack only some of its parts: those in the file are listed as left over already.
                let missing = missing
                    .iter()
                    .flat_map(|ours| map.theirs(ours))
                    .filter(|theirs| !unexpected.contains(theirs))
                    .collect::<Vec<_>>();
                let unexpected = unexpected.iter().filter(|name| !map.is_part(name));
                let unexpected = unexpected.flat_map(|name| map.theirs(name)).collect();
                ParamError::Mismatch { source_name, missing, unexpected, misshapen }.into()
            }
            other => other.into(),
        }
    }

    /// Writes `config.json` and `model.safetensors` into an existing folder, in this crate's layout or Hugging Face's.
    ///
    /// `weights` are all the parameters of the model, and nothing else, under this crate's names.
    ///
    /// Hugging Face's config has no place for [`MaeConfig::head_norm_eps`]: `transformers` computes with 1e-5 there.
    ///
    /// # Errors
    /// [`ParamError::Mismatch`] when the weights are others than the model's, before anything is written;
    /// [`MaeError::File`] when a file cannot be written, or `layout` is the original's, which has no folders.
    pub fn save_folder(
        folder: &Path,
        config: &MaeConfig,
        kind: CheckpointKind,
        layout: KeyLayout,
        weights: &BTreeMap<String, Tensor>,
    ) -> Result<(), MaeError> {
        let text = match layout {
            KeyLayout::Native => {
                let native = NativeConfig { model_type: NATIVE_TYPE.into(), kind, model: config.clone() };
                serde_json::to_string_pretty(&native).map_err(|e| MaeError::file(folder, e))? + "\n"
            }
            KeyLayout::HuggingFace | KeyLayout::HuggingFaceLegacy => hf_config::write(config, kind),
            KeyLayout::Original => {
                return Err(MaeError::file(folder, "the original layout is a single file, not a folder"));
            }
        };
        let file = whole(folder, config, kind, layout, weights)?;
        let config_path = folder.join("config.json");
        std::fs::write(&config_path, text).map_err(|e| MaeError::file(config_path, e))?;
        save_tensors(&folder.join("model.safetensors"), file)
    }

    /// Writes the weights as one safetensors file in any layout. They are as in [`Self::save_folder`].
    ///
    /// # Errors
    /// [`ParamError::Mismatch`] when the weights are others than the model's; [`MaeError::File`] when the file cannot be
    /// written.
    pub fn save_file(
        path: &Path,
        config: &MaeConfig,
        kind: CheckpointKind,
        layout: KeyLayout,
        weights: &BTreeMap<String, Tensor>,
    ) -> Result<(), MaeError> {
        save_tensors(path, whole(path, config, kind, layout, weights)?)
    }

    /// The weights under this crate's names.
    pub fn weights(&self) -> &BTreeMap<String, Tensor> {
        &self.weights
    }
}

/// The weights as they stand in a file. What is read must be whole, so nothing else is written.
fn whole(
    path: &Path,
    config: &MaeConfig,
    kind: CheckpointKind,
    layout: KeyLayout,
    weights: &BTreeMap<String, Tensor>,
) -> Result<BTreeMap<String, Tensor>, MaeError> {
    config.validate()?;
    let source = format!("what is to be written to {}", path.display());
    check_weights(&source, &shapes(config, kind), weights)?;
    Ok(KeyMap::new(config, kind, layout).export(weights)?)
}

fn save_tensors(path: &Path, tensors: BTreeMap<String, Tensor>) -> Result<(), MaeError> {
    let tensors: std::collections::HashMap<String, Tensor> = tensors.into_iter().collect();
    candle_core::safetensors::save(&tensors, path).map_err(|e| MaeError::file(path, e))
}

/// Whether a Hugging Face file holds any part of a decoder.
fn has_decoder(file: &BTreeMap<String, Tensor>) -> bool {
    const PARTS: [&str; 3] = ["decoder.", "encoder_to_decoder.", "mask_token"];
    file.keys().any(|name| PARTS.iter().any(|part| name.starts_with(part)))
}

fn detect(path: &Path, file: &BTreeMap<String, Tensor>) -> Result<KeyLayout, MaeError> {
    KeyLayout::detect(file.keys().map(String::as_str)).ok_or_else(|| MaeError::UnknownLayout {
        path: path.to_path_buf(),
        first: file.keys().next().cloned().unwrap_or_default(),
    })
}

/// All tensors of a Hugging Face or native folder: one safetensors file, several with an index, or a `.bin`.
fn folder_weights(folder: &Path) -> Result<BTreeMap<String, Tensor>, MaeError> {
    let single = folder.join("model.safetensors");
    let index = folder.join("model.safetensors.index.json");
    let pickle = folder.join("pytorch_model.bin");
    if single.is_file() {
        read_tensors(&single)
    } else if index.is_file() {
        #[derive(Deserialize)]
        struct Index {
            weight_map: BTreeMap<String, String>,
        }
        let text = std::fs::read_to_string(&index).map_err(|e| MaeError::file(&index, e))?;
        let map: Index = serde_json::from_str(&text).map_err(|e| MaeError::file(&index, e))?;
        let shards: std::collections::BTreeSet<String> = map.weight_map.into_values().collect();
        let mut all = BTreeMap::new();
        for shard in shards {
            if Path::new(&shard).components().count() != 1 {
                return Err(MaeError::file(&index, format!("names a shard outside its folder: `{shard}`")));
            }
            all.extend(read_tensors(&folder.join(shard))?);
        }
        Ok(all)
    } else if pickle.is_file() {
        read_tensors(&pickle)
    } else {
        Err(MaeError::NoCheckpoint(folder.to_path_buf()))
    }
}

/// All tensors of one file, in `f32` when they are of another floating-point type.
fn read_tensors(path: &Path) -> Result<BTreeMap<String, Tensor>, MaeError> {
    let bad = |e: candle_core::Error| MaeError::file(path, e);
    let tensors: Vec<(String, Tensor)> = if path.extension().is_some_and(|e| e == "safetensors") {
        candle_core::safetensors::load(path, &Device::Cpu).map_err(bad)?.into_iter().collect()
    } else {
        // The original repository puts the weights under `model` (pretraining) or `module` (DeepSpeed fine-tuning).
        let read = |key: Option<&str>| candle_core::pickle::read_all_with_key(path, key);
        ["model", "module"]
            .iter()
            .find_map(|key| read(Some(key)).ok())
            .map_or_else(|| read(None), Ok)
            .map_err(bad)?
    };
    if tensors.is_empty() {
        return Err(MaeError::file(path, "holds no tensors"));
    }
    tensors
        .into_iter()
        .map(|(name, tensor)| {
            let tensor =
                if tensor.dtype().is_float() { tensor.to_dtype(DType::F32).map_err(bad)? } else { tensor };
            Ok((name, tensor))
        })
        .collect()
}
