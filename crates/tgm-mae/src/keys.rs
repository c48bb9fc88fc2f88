//! The names under which other programs store the same parameters.
//!
//! One table of rules per layout serves import, export and the naming of gradients, so these can never disagree.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

use crate::MaeConfig;
use crate::checkpoint::CheckpointKind;
use crate::shapes::shapes;

/// A naming scheme for the parameters of a video masked autoencoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum KeyLayout {
    /// This crate's own.
    Native,
    /// Hugging Face `transformers` since 5.0: `….attention.query.bias`.
    HuggingFace,
    /// Hugging Face `transformers` before 5.0, and the published checkpoints: `….attention.q_bias`.
    HuggingFaceLegacy,
    /// The original repository's `state_dict`.
    Original,
}

impl KeyLayout {
    /// Recognises a layout by its names.
    pub(crate) fn detect<'a>(keys: impl Iterator<Item = &'a str>) -> Option<Self> {
        let keys: BTreeSet<&str> = keys.collect();
        let has = |part: &str| keys.iter().any(|k| k.contains(part));
        if has(EMBEDDING) {
            Some(if has(".q_bias") { Self::HuggingFaceLegacy } else { Self::HuggingFace })
        } else if has("patch_embed.proj.weight") {
            Some(Self::Original)
        } else if has("encoder.embed.weight") {
            Some(Self::Native)
        } else {
            None
        }
    }
}

/// What Hugging Face's models with a head put before the names of the encoder. A bare `VideoMAEModel` has none.
const HEADED: &str = "videomae.";
/// The encoder's first weight in Hugging Face's names.
const EMBEDDING: &str = "embeddings.patch_embeddings.projection.weight";

/// How the numbers of a parameter are arranged in the other layout.
#[derive(Clone, Debug)]
enum Arrangement {
    /// The same shape. Several names: stacked along the first dimension, in this order.
    Same,
    /// A convolution's `[D, C, t, y, x]` against our `[D, t·y·x·C]`.
    Convolution([usize; 5]),
    /// Only the shape differs.
    Shape(Vec<usize>),
}

/// One of our parameters, and what it is elsewhere.
#[derive(Clone, Debug)]
struct Rule {
    ours: String,
    theirs: Vec<String>,
    arrangement: Arrangement,
}

/// The translation between this crate's names and another layout's, for one model.
#[derive(Clone, Debug)]
pub(crate) struct KeyMap {
    rules: Vec<Rule>,
}

impl KeyMap {
    /// The names that files are written with.
    pub(crate) fn new(config: &MaeConfig, kind: CheckpointKind, layout: KeyLayout) -> Self {
        let prefix = if kind == CheckpointKind::Encoder { "" } else { HEADED };
        Self::with_prefix(config, kind, layout, prefix)
    }

    /// The names of a file that was read: whether Hugging Face's encoder has its prefix, does not depend on the kind.
    pub(crate) fn of_file(
        config: &MaeConfig,
        kind: CheckpointKind,
        layout: KeyLayout,
        file: &BTreeMap<String, Tensor>,
    ) -> Self {
        let prefix = if file.contains_key(EMBEDDING) { "" } else { HEADED };
        Self::with_prefix(config, kind, layout, prefix)
    }

    fn with_prefix(config: &MaeConfig, kind: CheckpointKind, layout: KeyLayout, prefix: &str) -> Self {
        let mut map = Self { rules: Vec::new() };
        match layout {
            KeyLayout::Native => map.native(config, kind),
            KeyLayout::HuggingFace => map.hugging_face(config, kind, false, prefix),
            KeyLayout::HuggingFaceLegacy => map.hugging_face(config, kind, true, prefix),
            KeyLayout::Original => map.original(config, kind),
        }
        map
    }

    /// Translates tensors of the other layout into ours. Keys that no rule uses are returned beside them, under their own
    /// names, so that strict loading reports them; absent ones stay absent.
    pub(crate) fn import(&self, mut file: BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>> {
        let mut ours = BTreeMap::new();
        for rule in &self.rules {
            let parts: Option<Vec<Tensor>> = rule.theirs.iter().map(|k| file.get(k).cloned()).collect();
            let Some(parts) = parts else { continue };
            rule.theirs.iter().for_each(|k| drop(file.remove(k)));
            ours.insert(rule.ours.clone(), rule.import(&parts)?);
        }
        ours.extend(file);
        Ok(ours)
    }

    /// Translates our tensors (weights or gradients) into the other layout. Absent ones stay absent, and what no rule names is
    /// left out: gradients may be those of some parameters only.
    pub(crate) fn export(&self, ours: &BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>> {
        let mut file = BTreeMap::new();
        for rule in &self.rules {
            if let Some(tensor) = ours.get(&rule.ours) {
                file.extend(rule.theirs.iter().cloned().zip(rule.export(tensor)?));
            }
        }
        Ok(file)
    }

    /// The names that a parameter of ours has in the other layout; its own, when the other layout has no place for it.
    pub(crate) fn theirs(&self, ours: &str) -> Vec<String> {
        let rule = self.rules.iter().find(|r| r.ours == ours);
        rule.map_or_else(|| vec![ours.to_string()], |r| r.theirs.clone())
    }

    /// Whether this is the name of a part of what is one parameter here.
    pub(crate) fn is_part(&self, theirs: &str) -> bool {
        self.rules.iter().any(|r| r.theirs.len() > 1 && r.theirs.iter().any(|t| t == theirs))
    }

    fn add(&mut self, ours: impl Into<String>, theirs: impl Into<String>) {
        self.rules.push(Rule {
            ours: ours.into(),
            theirs: vec![theirs.into()],
            arrangement: Arrangement::Same,
        });
    }

    fn add_arranged(&mut self, ours: &str, theirs: impl Into<String>, arrangement: Arrangement) {
        self.rules.push(Rule { ours: ours.into(), theirs: vec![theirs.into()], arrangement });
    }

    /// A weight and a bias.
    fn pair(&mut self, ours: &str, theirs: &str) {
        for part in ["weight", "bias"] {
            self.add(format!("{ours}.{part}"), format!("{theirs}.{part}"));
        }
    }

    fn convolution(config: &MaeConfig) -> Arrangement {
        Arrangement::Convolution([
            config.encoder.dim,
            config.channels,
            config.tubelet,
            config.patch[0],
            config.patch[1],
        ])
    }

    fn native(&mut self, config: &MaeConfig, kind: CheckpointKind) {
        for name in shapes(config, kind).into_keys() {
            self.add(name.clone(), name);
        }
    }

    fn hugging_face(&mut self, config: &MaeConfig, kind: CheckpointKind, legacy: bool, prefix: &str) {
        let embed = format!("{prefix}embeddings.patch_embeddings.projection");
        self.add_arranged("encoder.embed.weight", format!("{embed}.weight"), Self::convolution(config));
        self.add("encoder.embed.bias", format!("{embed}.bias"));
        for i in 0..config.encoder.depth {
            self.hugging_face_block(
                config,
                legacy,
                &format!("encoder.blocks.{i}"),
                &format!("{prefix}encoder.layer.{i}"),
            );
        }
        if config.final_norm {
            self.pair("encoder.norm", &format!("{prefix}layernorm"));
        }
        match kind {
            CheckpointKind::Encoder => {}
            CheckpointKind::Pretraining => {
                self.add("projection.weight", "encoder_to_decoder.weight");
                let shape = Arrangement::Shape(vec![1, 1, config.decoder.dim]);
                self.add_arranged("mask_token", "mask_token", shape);
                for i in 0..config.decoder.depth {
                    let theirs = format!("decoder.decoder_layers.{i}");
                    self.hugging_face_block(config, legacy, &format!("decoder.blocks.{i}"), &theirs);
                }
                self.pair("decoder.norm", "decoder.norm");
                self.pair("decoder.head", "decoder.head");
            }
            CheckpointKind::Classification { .. } => {
                if !config.final_norm {
                    self.pair("classifier.norm", "fc_norm");
                }
                self.pair("classifier.head", "classifier");
            }
        }
    }

    fn hugging_face_block(&mut self, config: &MaeConfig, legacy: bool, ours: &str, theirs: &str) {
        let attention = format!("{theirs}.attention.attention");
        self.rules.push(Rule {
            ours: format!("{ours}.attn.qkv.weight"),
            theirs: ["query", "key", "value"].map(|part| format!("{attention}.{part}.weight")).to_vec(),
            arrangement: Arrangement::Same,
        });
        if config.qv_bias {
            for (short, long) in [("q", "query"), ("v", "value")] {
                let theirs = if legacy { format!("{short}_bias") } else { format!("{long}.bias") };
                self.add(format!("{ours}.attn.{short}_bias"), format!("{attention}.{theirs}"));
            }
        }
        self.pair(&format!("{ours}.attn.proj"), &format!("{theirs}.attention.output.dense"));
        self.pair(&format!("{ours}.norm1"), &format!("{theirs}.layernorm_before"));
        self.pair(&format!("{ours}.norm2"), &format!("{theirs}.layernorm_after"));
        self.pair(&format!("{ours}.mlp.fc1"), &format!("{theirs}.intermediate.dense"));
        self.pair(&format!("{ours}.mlp.fc2"), &format!("{theirs}.output.dense"));
    }

    fn original(&mut self, config: &MaeConfig, kind: CheckpointKind) {
        // In pretraining files the encoder is a part named `encoder`; elsewhere it is the model itself.
        let encoder = if kind == CheckpointKind::Pretraining { "encoder." } else { "" };
        let embed = format!("{encoder}patch_embed.proj");
        self.add_arranged("encoder.embed.weight", format!("{embed}.weight"), Self::convolution(config));
        self.add("encoder.embed.bias", format!("{embed}.bias"));
        for i in 0..config.encoder.depth {
            self.original_block(config, &format!("encoder.blocks.{i}"), &format!("{encoder}blocks.{i}"));
        }
        if config.final_norm {
            self.pair("encoder.norm", &format!("{encoder}norm"));
        }
        match kind {
            CheckpointKind::Encoder => {}
            CheckpointKind::Pretraining => {
                self.add("projection.weight", "encoder_to_decoder.weight");
                let shape = Arrangement::Shape(vec![1, 1, config.decoder.dim]);
                self.add_arranged("mask_token", "mask_token", shape);
                for i in 0..config.decoder.depth {
                    let name = format!("decoder.blocks.{i}");
                    self.original_block(config, &name, &name);
                }
                self.pair("decoder.norm", "decoder.norm");
                self.pair("decoder.head", "decoder.head");
            }
            CheckpointKind::Classification { .. } => {
                if !config.final_norm {
                    self.pair("classifier.norm", "fc_norm");
                }
                self.pair("classifier.head", "head");
            }
        }
    }

    fn original_block(&mut self, config: &MaeConfig, ours: &str, theirs: &str) {
        self.add(format!("{ours}.attn.qkv.weight"), format!("{theirs}.attn.qkv.weight"));
        let biases: &[&str] = if config.qv_bias { &["attn.q_bias", "attn.v_bias"] } else { &[] };
        for bias in biases {
            self.add(format!("{ours}.{bias}"), format!("{theirs}.{bias}"));
        }
        for part in ["attn.proj", "norm1", "norm2", "mlp.fc1", "mlp.fc2"] {
            self.pair(&format!("{ours}.{part}"), &format!("{theirs}.{part}"));
        }
    }
}

impl Rule {
    fn import(&self, parts: &[Tensor]) -> Result<Tensor> {
        match &self.arrangement {
            Arrangement::Same if parts.len() == 1 => Ok(parts[0].clone()),
            Arrangement::Same => Tensor::cat(parts, 0),
            // A tensor of an unexpected shape is passed on as it is: loading reports it with both shapes.
            Arrangement::Convolution(shape) if parts[0].dims() == shape => {
                parts[0].permute((0, 2, 3, 4, 1))?.contiguous()?.flatten_from(1)
            }
            Arrangement::Shape(shape) if parts[0].dims() == shape.as_slice() => parts[0].flatten_all(),
            Arrangement::Convolution(_) | Arrangement::Shape(_) => Ok(parts[0].clone()),
        }
    }

    fn export(&self, ours: &Tensor) -> Result<Vec<Tensor>> {
        match &self.arrangement {
            Arrangement::Same if self.theirs.len() == 1 => Ok(vec![ours.clone()]),
            Arrangement::Same => ours.chunk(self.theirs.len(), 0)?.iter().map(Tensor::contiguous).collect(),
            &Arrangement::Convolution([d, c, t, y, x]) => {
                Ok(vec![ours.reshape((d, t, y, x, c))?.permute((0, 4, 1, 2, 3))?.contiguous()?])
            }
            Arrangement::Shape(shape) => Ok(vec![ours.reshape(shape.as_slice())?]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shapes::defined;

    const LAYOUTS: [KeyLayout; 4] =
        [KeyLayout::Native, KeyLayout::HuggingFace, KeyLayout::HuggingFaceLegacy, KeyLayout::Original];

    fn weights(config: &MaeConfig, kind: CheckpointKind) -> BTreeMap<String, Tensor> {
        defined(config, kind, 3).snapshot().unwrap()
    }

    #[test]
    fn every_parameter_survives_the_way_to_every_layout_and_back() {
        let kinds = [
            CheckpointKind::Pretraining,
            CheckpointKind::Classification { classes: 7 },
            CheckpointKind::Encoder,
        ];
        for kind in kinds {
            for (qv_bias, final_norm) in [(true, true), (false, false)] {
                let config = MaeConfig { qv_bias, final_norm, ..MaeConfig::micro() };
                let ours = weights(&config, kind);
                for layout in LAYOUTS {
                    let map = KeyMap::new(&config, kind, layout);
                    let file = map.export(&ours).unwrap();
                    let detected = KeyLayout::detect(file.keys().map(String::as_str));
                    // Without biases the two Hugging Face layouts are one.
                    if qv_bias {
                        assert_eq!(detected, Some(layout));
                    }
                    let back = map.import(file).unwrap();
                    assert_eq!(
                        back.keys().collect::<Vec<_>>(),
                        ours.keys().collect::<Vec<_>>(),
                        "{layout:?}"
                    );
                    for (name, tensor) in &ours {
                        let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                        assert_eq!(flat(tensor), flat(&back[name]), "{layout:?} {name}");
                        assert_eq!(tensor.dims(), back[name].dims(), "{layout:?} {name}");
                    }
                }
            }
        }
    }
}
