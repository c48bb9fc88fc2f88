//! The configuration of an evaluation: a protocol, its settings and the test views, as `tgm eval --config` takes it.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tgm_eval::linear::{adamw, logistic, sgd};
use tgm_eval::supervised;
use tgm_ops::Pooling;
use toml::{Table, Value};

use super::ConfigError;
use super::load::{apply, document, parse, table_of, text_of};

/// What is put on an encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ProtocolName {
    /// Nearest neighbours in the training split.
    Knn,
    /// A linear probe on cached features.
    Linear,
    /// A cross-attention probe on all tokens of the frozen encoder (V-JEPA's).
    Attentive,
    /// The whole encoder is trained further on the labels (VideoMAE's recipe).
    Finetune,
    /// Classes by their names, through the contrastive head.
    ZeroShot,
    /// Clips by their captions and captions by their clips, through the contrastive head.
    Retrieval,
}

impl ProtocolName {
    /// Whether it learns from the train clips. What does not may be scored on any.
    pub fn fits(self) -> bool {
        !matches!(self, Self::ZeroShot | Self::Retrieval)
    }

    /// As results call it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Knn => "kNN",
            Self::Linear => "linear probe",
            Self::Attentive => "attentive probe",
            Self::Finetune => "fine-tuning",
            Self::ZeroShot => "zero-shot",
            Self::Retrieval => "retrieval",
        }
    }
}

/// Which linear probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Recipe {
    /// Batch norm and linear layer by SGD: the field's (MAE, AdaptFormer).
    BnSgd,
    /// Layer norm and linear layer by AdamW: the fine-tuning code with a frozen encoder (SIGMA).
    Adamw,
    /// Logistic regression to its optimum: no schedule to argue about.
    Logistic,
}

/// Which vector of a clip kNN and linear probe stand on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Readout {
    /// The mean of all tokens, `[D]`: the field's.
    Mean,
    /// Every token less the mean over time of its place, `[N D]`: tells what moves where. Long: for small models and sets.
    Motion,
}

impl From<Readout> for tgm_eval::Readout {
    fn from(readout: Readout) -> Self {
        match readout {
            Readout::Mean => Self::Pooled(Pooling::Mean),
            Readout::Motion => Self::Motion,
        }
    }
}

/// Everything that decides what an evaluation computes, besides checkpoint, data and seed.
///
/// Each protocol has its section; a document needs to have only the keys that differ from the section's defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalConfig {
    /// What is put on the encoder. Set by `--protocol`.
    pub protocol: ProtocolName,
    /// Which linear probe. Set by `--recipe`.
    pub recipe: Recipe,
    /// What of the tokens kNN and the linear probe see: `mean` or `motion`. Set by `--readout`.
    pub readout: Readout,
    /// Clips in time per test video. Default: as published for the data set, 1 for a manifest. Set by `--views`.
    pub views: Option<usize>,
    /// Crops of each test clip, 1 or 3. Default: as published for the data set, 1 for a manifest. Set by `--crops`.
    pub crops: Option<usize>,
    /// Neighbours of kNN. Default: 200, or 20 for fewer than 5,000 training clips. Set by `--k`.
    pub k: Option<usize>,
    /// The linear probe `bn-sgd`: batch normalisation and a linear layer by SGD.
    pub sgd: sgd::Settings,
    /// The linear probe `adamw`: layer normalisation and a linear layer by AdamW.
    pub adamw: adamw::Settings,
    /// The linear probe `logistic`: logistic regression.
    pub logistic: logistic::Settings,
    /// Fine-tuning. The defaults are VideoMAE's for a ViT-B of 800 epochs on Something-Something v2.
    pub finetune: supervised::Settings,
    /// The attentive probe. The defaults are V-JEPA's.
    pub attentive: supervised::Settings,
}

impl EvalConfig {
    /// A protocol with its default settings.
    pub fn of(protocol: ProtocolName) -> Self {
        Self {
            protocol,
            recipe: Recipe::BnSgd,
            readout: Readout::Mean,
            views: None,
            crops: None,
            k: None,
            sgd: sgd::Settings::default(),
            adamw: adamw::Settings::default(),
            logistic: logistic::Settings::default(),
            finetune: supervised::Settings::finetune(),
            // As many heads as the encoder has, which is not known yet.
            attentive: supervised::Settings::attentive(0),
        }
    }

    /// As results call it: the protocol, and the read-out where that is not the field's.
    pub fn title(&self) -> String {
        let by_motion = self.readout == Readout::Motion
            && matches!(self.protocol, ProtocolName::Knn | ProtocolName::Linear);
        self.protocol.title().to_owned() + if by_motion { " (motion)" } else { "" }
    }

    /// The section that the protocol reads; none for one without settings.
    fn section(&self) -> Option<&'static str> {
        match (self.protocol, self.recipe) {
            (ProtocolName::Linear, Recipe::BnSgd) => Some("sgd"),
            (ProtocolName::Linear, Recipe::Adamw) => Some("adamw"),
            (ProtocolName::Linear, Recipe::Logistic) => Some("logistic"),
            (ProtocolName::Attentive, _) => Some("attentive"),
            (ProtocolName::Finetune, _) => Some("finetune"),
            (ProtocolName::Knn | ProtocolName::ZeroShot | ProtocolName::Retrieval, _) => None,
        }
    }

    /// The keys that the protocol reads, and no others.
    ///
    /// # Errors
    /// When a value has no TOML form.
    pub fn effective(&self) -> Result<Table, toml::ser::Error> {
        let mut table = Table::try_from(self)?;
        table.retain(|key, value| match value {
            Value::Table(_) => Some(key) == self.section(),
            _ => match key {
                "recipe" => self.protocol == ProtocolName::Linear,
                "readout" => matches!(self.protocol, ProtocolName::Knn | ProtocolName::Linear),
                "k" => self.protocol == ProtocolName::Knn,
                _ => true,
            },
        });
        Ok(table)
    }

    /// With settings `key=value`, whose keys are those of the protocol's own section, or whole ones (`finetune.epochs`).
    ///
    /// # Errors
    /// [`ConfigError`] naming the key, and the nearest one that exists, or that the protocol does not read it.
    pub fn with(&self, settings: &[String]) -> Result<Self, ConfigError> {
        let mut table = table_of(self)?;
        let whole = |key: &str| {
            let first = key.split('.').next().unwrap_or_default();
            match self.section().filter(|_| !is_key(first)) {
                Some(section) => format!("{section}.{key}"),
                None => key.to_string(),
            }
        };
        let check = |setting: &str, table| checked(&format!("--set {setting}"), table);
        apply(&mut table, settings, "epochs=10", whole, check)?;
        let changed = checked("--set", table)?;
        let read = changed.effective().map_err(|error| ConfigError(error.to_string()))?;
        let first = |setting: &str| {
            let key = whole(setting.split('=').next().unwrap_or_default().trim());
            key.split('.').next().unwrap_or_default().to_owned()
        };
        // Whoever sets it expects that something comes of it.
        match settings.iter().find(|setting| !read.contains_key(&first(setting))) {
            Some(idle) => {
                let (protocol, key) = (changed.protocol.title(), first(idle));
                Err(ConfigError(format!(
                    "--set {idle}: `{key}` does nothing for this {protocol}; leave it out"
                )))
            }
            None => Ok(changed),
        }
    }

    /// The settings of fine-tuning or of the attentive probe, for an encoder of so many heads; none for other protocols.
    pub fn supervised(&self, heads: usize) -> Option<supervised::Settings> {
        match self.protocol {
            ProtocolName::Finetune => Some(self.finetune.clone()),
            ProtocolName::Attentive if self.attentive.heads == 0 => {
                Some(supervised::Settings { heads, ..self.attentive.clone() })
            }
            ProtocolName::Attentive => Some(self.attentive.clone()),
            _ => None,
        }
    }
}

/// Whether an evaluation has a key or a section of this name.
fn is_key(name: &str) -> bool {
    ["views", "crops", "k"].contains(&name)
        || Table::try_from(EvalConfig::of(ProtocolName::Knn)).is_ok_and(|table| table.contains_key(name))
}

/// Reads the evaluation of this name, or of this file.
///
/// # Errors
/// [`ConfigError`] naming the file and the key, and the nearest one that exists.
pub fn load_evaluation(name_or_file: &str) -> Result<EvalConfig, ConfigError> {
    evaluation_from_text(name_or_file, &text_of(name_or_file)?)
}

/// Reads an evaluation from its text. `source` names it in errors.
///
/// # Errors
/// [`ConfigError`].
pub fn evaluation_from_text(source: &str, text: &str) -> Result<EvalConfig, ConfigError> {
    let written = document(source, text)?;
    if !has_protocol(&written) {
        return Err(ConfigError(format!(
            "{source} has no key `protocol`: it is no evaluation; a run's configuration goes to `tgm pretrain --config`"
        )));
    }
    let mut table = table_of(&EvalConfig::of(ProtocolName::Knn))?;
    for (key, value) in written {
        match (table.get_mut(&key), value) {
            (Some(Value::Table(section)), Value::Table(written)) => section.extend(written),
            (_, value) => drop(table.insert(key, value)),
        }
    }
    checked(source, table)
}

/// Whether the configuration of this name, or in this file, is that of an evaluation.
///
/// # Errors
/// [`ConfigError`] when there is none, or it is no TOML.
pub fn is_evaluation(name_or_file: &str) -> Result<bool, ConfigError> {
    Ok(has_protocol(&document(name_or_file, &text_of(name_or_file)?)?))
}

/// What only documents of evaluations have.
pub(super) fn has_protocol(document: &Table) -> bool {
    document.contains_key("protocol")
}

/// `rand_augment = false` leaves it out: TOML has no value for nothing.
fn switch_off(table: &mut Table) {
    for section in table.iter_mut().filter_map(|(_, value)| value.as_table_mut()) {
        if section.get("rand_augment") == Some(&Value::Boolean(false)) {
            section.remove("rand_augment");
        }
    }
}

fn checked(source: &str, mut table: Table) -> Result<EvalConfig, ConfigError> {
    switch_off(&mut table);
    let config: EvalConfig = parse(source, table)?;
    let heads = [("finetune", config.finetune.head), ("attentive", config.attentive.head)];
    for (section, head) in heads {
        let own =
            if section == "finetune" { supervised::Head::Finetune } else { supervised::Head::Attentive };
        if head != own {
            return Err(ConfigError(format!(
                "{source}: {section}.head cannot be changed; choose another protocol"
            )));
        }
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        evaluation_from_text("mine.toml", text).unwrap_err().to_string()
    }

    #[test]
    fn a_document_changes_the_keys_that_it_has_and_no_others() {
        let config =
            evaluation_from_text("x", "protocol = 'finetune'\nviews = 5\n[finetune]\nepochs = 100").unwrap();
        let expected = supervised::Settings { epochs: 100.0, ..supervised::Settings::finetune() };
        assert_eq!(
            (config.protocol, config.views, &config.finetune),
            (ProtocolName::Finetune, Some(5), &expected)
        );
        assert_eq!(config.attentive, EvalConfig::of(ProtocolName::Knn).attentive);
    }

    #[test]
    fn settings_are_the_protocols_own_or_have_whole_names() {
        let config = EvalConfig::of(ProtocolName::Attentive);
        let sets = ["epochs=3", "attentive.batch=8", "views=2"].map(String::from);
        let changed = config.with(&sets).unwrap();
        assert_eq!((changed.attentive.epochs, changed.attentive.batch, changed.views), (3.0, 8, Some(2)));
        assert_eq!(changed.finetune, config.finetune);
        let linear = EvalConfig::of(ProtocolName::Linear).with(&["base_lr=[0.1]".into()]).unwrap();
        assert_eq!(linear.sgd.base_lr, [0.1]);
    }

    #[test]
    fn what_the_protocol_does_not_read_is_refused() {
        for (protocol, setting) in [
            (ProtocolName::Knn, "sgd.epochs=3"),
            (ProtocolName::Linear, "k=3"),
            (ProtocolName::Linear, "adamw.epochs=10"),
            (ProtocolName::Attentive, "finetune.epochs=1"),
        ] {
            let error = EvalConfig::of(protocol).with(&[setting.into()]).unwrap_err().to_string();
            assert!(error.contains(setting) && error.contains("does nothing"), "{error}");
        }
        let adamw = ["recipe='adamw'", "adamw.epochs=10"].map(String::from);
        assert_eq!(EvalConfig::of(ProtocolName::Linear).with(&adamw).unwrap().adamw.epochs, 10);
    }

    #[test]
    fn random_augmentation_can_be_left_out_and_the_crop_be_another() {
        let config = EvalConfig::of(ProtocolName::Finetune);
        let sets = ["rand_augment=false", "crop={ kind = 'multi-scale' }"].map(String::from);
        let changed = config.with(&sets).unwrap().finetune;
        assert_eq!((changed.rand_augment, changed.crop), (None, tgm_video::Crop::multi_scale()));
        assert!(config.finetune.rand_augment.is_some());
        let written =
            evaluation_from_text("x", "protocol = 'attentive'\n[attentive]\nrand_augment = false").unwrap();
        assert_eq!(written.attentive.rand_augment, None);
    }

    #[test]
    fn a_typo_names_the_nearest_key_and_a_run_is_no_evaluation() {
        let text = error("protocol = 'finetune'\n[finetune]\nepoch = 3");
        assert!(text.starts_with("mine.toml: unknown key `epoch`: did you mean `epochs`?"), "{text}");
        let text = EvalConfig::of(ProtocolName::Finetune).with(&["mixp=0".into()]).unwrap_err().to_string();
        assert!(text.contains("did you mean `mixup`?"), "{text}");
        let sets = ["epochs=3", "batch=many", "base_lr=1e-3"].map(String::from);
        let text = EvalConfig::of(ProtocolName::Finetune).with(&sets).unwrap_err().to_string();
        assert!(text.starts_with("--set batch=many: "), "{text}");
        assert!(error("[train]\nbatch = 4").contains("no key `protocol`"));
        assert!(error("protocol = 'fintune'").contains("did you mean `finetune`?"));
        assert!(error("protocol = 'finetune'\n[finetune]\nhead = 'attentive'").contains("finetune.head"));
    }

    #[test]
    fn only_what_the_protocol_reads_is_effective() {
        let keys = |protocol| {
            EvalConfig::of(protocol).effective().unwrap().keys().cloned().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(keys(ProtocolName::Linear), "protocol readout recipe sgd");
        assert_eq!(keys(ProtocolName::Finetune), "finetune protocol");
        assert_eq!(keys(ProtocolName::Knn), "protocol readout");
    }

    #[test]
    fn the_attentive_probe_has_the_encoders_heads_unless_it_is_told_otherwise() {
        let config = EvalConfig::of(ProtocolName::Attentive);
        assert_eq!(config.supervised(6).unwrap().heads, 6);
        assert_eq!(config.with(&["heads=12".into()]).unwrap().supervised(6).unwrap().heads, 12);
        assert_eq!(EvalConfig::of(ProtocolName::Knn).supervised(6), None);
    }
}
