//! Models on disk: this crate's own folders, Hugging Face folders, and original VideoMAE files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};
use tgm_ops::{ParamError, Params};

use crate::hf_config::{self, NATIVE_TYPE, NativeConfig};
use crate::keys::KeyMap;
use crate::{KeyLayout, MaeConfig, MaeError, original};

/// What a model was trained to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckpointKind {
    /// Encoder and decoder.
    Pretraining,
    /// Encoder and classification head.
    Classification {
        /// Number of classes.
        classes: usize,
    },
}

/// A model read from disk: its config, and its weights under this crate's names.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Sizes and conventions.
    pub config: MaeConfig,
    /// With decoder, or with classification head.
    pub kind: CheckpointKind,
    /// How the file names its tensors.
    pub layout: KeyLayout,
    /// Where it was read.
    pub path: PathBuf,
    weights: BTreeMap<String, Tensor>,
}

impl Checkpoint {
    /// Reads a folder with `config.json` and weights, or a single `.pth` or `.safetensors` file with original names.
    ///
    /// Of a `.pth` file only tensors are read; no pickle is executed. Such a file holds no config: sizes follow from its
    /// tensors, heads from the widths of the published VideoMAE and VideoMAEv2 models, and frames and image size from
    /// `clip`, or 16×224×224. Up to a width of 64 there is one head.
    ///
    /// # Errors
    /// When something is missing, unreadable or of an unknown kind, or a single file has another width than these.
    pub fn open(path: &Path, clip: Option<(usize, [usize; 2])>) -> Result<Self, MaeError> {
        if path.is_dir() {
            Self::open_folder(path)
        } else if path.is_file() {
            Self::open_file(path, clip)
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

    fn open_file(path: &Path, clip: Option<(usize, [usize; 2])>) -> Result<Self, MaeError> {
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
        let weights = KeyMap::new(&config, kind, layout).import(file)?;
        Ok(Self { config, kind, layout, path: path.to_path_buf(), weights })
    }

    /// Fills a model's parameters. Every parameter must be there, and every key of the file used.
    ///
    /// # Errors
    /// [`ParamError::Mismatch`], with the names as the file has them.
    pub fn fill(&self, params: &Params) -> Result<(), MaeError> {
        let name = self.path.display().to_string();
        params.load(&name, &self.weights).map_err(|e| self.in_file_names(e))
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
        Ok(KeyMap::new(&self.config, self.kind, self.layout).export(ours)?)
    }

    fn in_file_names(&self, error: ParamError) -> MaeError {
        let map = KeyMap::new(&self.config, self.kind, self.layout);
        match error {
            ParamError::Mismatch { source_name, missing, unexpected, misshapen } => {
                // A packed parameter may lack only some of its parts: those in the file are listed as left over already.
                let missing = missing
                    .iter()
                    .flat_map(|ours| map.theirs(ours))
                    .filter(|theirs| !unexpected.contains(theirs))
                    .collect::<Vec<_>>();
                let unexpected = unexpected.into_iter().filter(|name| !map.mentions(name)).collect();
                ParamError::Mismatch { source_name, missing, unexpected, misshapen }.into()
            }
            other => other.into(),
        }
    }

    /// Writes `config.json` and `model.safetensors` into an existing folder, in this crate's layout or Hugging Face's.
    ///
    /// Hugging Face's config has no place for [`MaeConfig::head_norm_eps`]: `transformers` computes with 1e-5 there.
    ///
    /// # Errors
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
        let config_path = folder.join("config.json");
        std::fs::write(&config_path, text).map_err(|e| MaeError::file(config_path, e))?;
        Self::save_file(&folder.join("model.safetensors"), config, kind, layout, weights)
    }

    /// Writes the weights as one safetensors file in any layout.
    ///
    /// # Errors
    /// [`MaeError::File`] when it cannot be written.
    pub fn save_file(
        path: &Path,
        config: &MaeConfig,
        kind: CheckpointKind,
        layout: KeyLayout,
        weights: &BTreeMap<String, Tensor>,
    ) -> Result<(), MaeError> {
        let file = KeyMap::new(config, kind, layout).export(weights)?;
        let file: std::collections::HashMap<String, Tensor> = file.into_iter().collect();
        candle_core::safetensors::save(&file, path).map_err(|e| MaeError::file(path, e))
    }

    /// The weights under this crate's names.
    pub fn weights(&self) -> &BTreeMap<String, Tensor> {
        &self.weights
    }
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
