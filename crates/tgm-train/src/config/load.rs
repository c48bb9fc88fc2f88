//! Reading a configuration: named or from a file, with settings from the command line on top.

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::Config;
use super::evaluation::has_protocol;

/// A configuration that cannot be used: exit code 2.
#[derive(Debug)]
pub struct ConfigError(pub String);

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

/// The configurations of runs inside the program: name, text.
pub const NAMED: &[(&str, &str)] = &[
    ("demo", include_str!("../../configs/demo.toml")),
    ("few-clips", include_str!("../../configs/few-clips.toml")),
    ("mgm-base", include_str!("../../configs/mgm-base.toml")),
    ("mgm-base-ssv2", include_str!("../../configs/mgm-base-ssv2.toml")),
    ("mgm-joint-base-ssv2", include_str!("../../configs/mgm-joint-base-ssv2.toml")),
    ("random-base-ssv2", include_str!("../../configs/random-base-ssv2.toml")),
    ("reproduce", include_str!("../../configs/reproduce.toml")),
    ("tgm-base", include_str!("../../configs/tgm-base.toml")),
    ("tgm-base-ssv2", include_str!("../../configs/tgm-base-ssv2.toml")),
    ("tgm-mae-base", include_str!("../../configs/tgm-mae-base.toml")),
    ("tgm-mae-base-ssv2", include_str!("../../configs/tgm-mae-base-ssv2.toml")),
    ("tube-base", include_str!("../../configs/tube-base.toml")),
    ("tube-base-ssv2", include_str!("../../configs/tube-base-ssv2.toml")),
    ("tube-joint-base-ssv2", include_str!("../../configs/tube-joint-base-ssv2.toml")),
    ("videomae-base", include_str!("../../configs/videomae-base.toml")),
    ("videomae-base-ssv2", include_str!("../../configs/videomae-base-ssv2.toml")),
    ("videomae-large", include_str!("../../configs/videomae-large.toml")),
    ("videomae-small", include_str!("../../configs/videomae-small.toml")),
    ("videomae-small-ssv2", include_str!("../../configs/videomae-small-ssv2.toml")),
];

/// The configurations of evaluations inside the program: name, text.
pub const NAMED_EVALUATIONS: &[(&str, &str)] = &[
    ("attentive", include_str!("../../configs/eval/attentive.toml")),
    ("attentive-few-clips", include_str!("../../configs/eval/attentive-few-clips.toml")),
    ("attentive-ssv2", include_str!("../../configs/eval/attentive-ssv2.toml")),
    ("finetune-base", include_str!("../../configs/eval/finetune-base.toml")),
    ("finetune-base-1600", include_str!("../../configs/eval/finetune-base-1600.toml")),
    ("finetune-base-ssv2", include_str!("../../configs/eval/finetune-base-ssv2.toml")),
    ("finetune-base-2400-ssv2", include_str!("../../configs/eval/finetune-base-2400-ssv2.toml")),
    ("finetune-few-clips", include_str!("../../configs/eval/finetune-few-clips.toml")),
    ("finetune-large", include_str!("../../configs/eval/finetune-large.toml")),
    ("finetune-small", include_str!("../../configs/eval/finetune-small.toml")),
    ("finetune-small-ssv2", include_str!("../../configs/eval/finetune-small-ssv2.toml")),
    ("knn", include_str!("../../configs/eval/knn.toml")),
    ("linear", include_str!("../../configs/eval/linear.toml")),
    ("linear-sigma-ssv2", include_str!("../../configs/eval/linear-sigma-ssv2.toml")),
    ("linear-ssv2", include_str!("../../configs/eval/linear-ssv2.toml")),
    ("linear-transfer", include_str!("../../configs/eval/linear-transfer.toml")),
];

/// The text of the configuration of this name, of a run or of an evaluation.
pub fn named(name: &str) -> Option<&'static str> {
    let all = NAMED.iter().chain(NAMED_EVALUATIONS);
    all.into_iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

/// The first line of a configuration's header.
pub fn title(text: &str) -> &str {
    text.lines().next().unwrap_or_default().trim_start_matches('#').trim()
}

/// Reads the configuration of this name, or of this file, and applies `settings` (`key=value`).
///
/// # Errors
/// [`ConfigError`] naming the file and the key, and the nearest one that exists.
pub fn load(name_or_file: &str, settings: &[String]) -> Result<Config, ConfigError> {
    from_text(name_or_file, &text_of(name_or_file)?, settings)
}

/// The text of a configuration inside the program, or of a file.
pub(super) fn text_of(name_or_file: &str) -> Result<String, ConfigError> {
    if let Some(text) = named(name_or_file) {
        return Ok(text.to_string());
    }
    std::fs::read_to_string(name_or_file).map_err(|e| {
        let names: Vec<&str> = NAMED.iter().chain(NAMED_EVALUATIONS).map(|(name, _)| *name).collect();
        let alike = |name: &&&str| strsim::normalized_damerau_levenshtein(name_or_file, name);
        let nearest =
            names.iter().max_by(|a, b| alike(a).total_cmp(&alike(b))).filter(|name| alike(name) > 0.6);
        let known = match nearest {
            Some(nearest) => format!("did you mean `{nearest}`?"),
            None => names.join(", "),
        };
        ConfigError(format!("config `{name_or_file}` is neither a name ({known}) nor a readable file: {e}"))
    })
}

/// Reads a configuration from its text. `source` names it in errors.
///
/// # Errors
/// [`ConfigError`].
pub fn from_text(source: &str, text: &str, settings: &[String]) -> Result<Config, ConfigError> {
    let mut table = document(source, text)?;
    if has_protocol(&table) {
        return Err(ConfigError(format!("{source} is an evaluation: `tgm eval --config {source}`")));
    }
    // First without the settings, so that an error names its source.
    parse::<Config>(source, table.clone())?;
    let check = |setting: &str, table| parse::<Config>(&format!("{source} with --set {setting}"), table);
    apply(&mut table, settings, "train.batch=16", str::to_string, check)?;
    parse(source, table)
}

/// Applies settings `key=value`, a `kind` before the keys that come with it. `whole` completes keys, and `check` reads what came of a
/// setting.
///
/// # Errors
/// [`ConfigError`] naming the setting. Several may only fit together: then it is the one behind which nothing fitted any more.
pub(super) fn apply<'s, T>(
    table: &mut Table,
    settings: &'s [String],
    such_as: &str,
    whole: impl Fn(&str) -> String,
    check: impl Fn(&str, Table) -> Result<T, ConfigError>,
) -> Result<(), ConfigError> {
    let split = |setting: &'s String| {
        split_setting(setting, such_as).map(|(key, value)| (setting, whole(key), value))
    };
    let mut settings = settings.iter().map(split).collect::<Result<Vec<_>, _>>()?;
    settings.sort_by_key(|(_, key, _)| !key.ends_with(".kind"));
    let mut culprit = None;
    for (setting, key, value) in settings {
        set(table, &key, value).map_err(|e| ConfigError(format!("--set {setting}: {e}")))?;
        culprit = check(setting, table.clone()).err().map(|error| culprit.unwrap_or(error));
    }
    culprit.map_or(Ok(()), Err)
}

/// A TOML document.
pub(super) fn document(source: &str, text: &str) -> Result<Table, ConfigError> {
    text.parse().map_err(|e| ConfigError(format!("{source}: {}", one_line(&e))))
}

/// A configuration as a document.
pub(super) fn table_of(config: &impl Serialize) -> Result<Table, ConfigError> {
    Table::try_from(config).map_err(|e| ConfigError(format!("cannot be written as TOML: {e}")))
}

/// The two sides of a setting `key=value`.
fn split_setting<'a>(setting: &'a str, such_as: &str) -> Result<(&'a str, &'a str), ConfigError> {
    let wrong = || ConfigError(format!("--set {setting}: expected key=value, such as {such_as}"));
    setting.split_once('=').map(|(key, value)| (key.trim(), value.trim())).ok_or_else(wrong)
}

/// The configuration in a document.
pub(super) fn parse<T: DeserializeOwned>(source: &str, table: Table) -> Result<T, ConfigError> {
    table
        .try_into()
        .map_err(|e: toml::de::Error| ConfigError(format!("{source}: {}", explain(&one_line(&e)))))
}

fn one_line(error: &toml::de::Error) -> String {
    let place = error.to_string();
    let line = place.lines().find_map(|l| l.strip_prefix("TOML parse error at ")).map(|l| format!(" at {l}"));
    format!("{}{}", error.message().replace('\n', " "), line.unwrap_or_default())
}

/// Adds the nearest known name to serde's list of expected ones.
fn explain(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let (Some(wrong), expected) = (quoted.next(), quoted.collect::<Vec<_>>()) else {
        return message.to_string();
    };
    if !message.starts_with("unknown field") && !message.starts_with("unknown variant") {
        return message.to_string();
    }
    let nearest = expected
        .iter()
        .map(|known| (strsim::normalized_damerau_levenshtein(wrong, known), known))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let what = if message.starts_with("unknown field") { "unknown key" } else { "unknown value" };
    match nearest {
        Some((_, nearest)) => {
            format!("{what} `{wrong}`: did you mean `{nearest}`? (known here: {})", expected.join(", "))
        }
        None => message.to_string(),
    }
}

/// Sets `a.b.c` to a TOML value, or to a string when it is none.
fn set(table: &mut Table, key: &str, value: &str) -> Result<(), String> {
    let value = format!("value = {value}")
        .parse::<Table>()
        .ok()
        .and_then(|mut t| t.remove("value"))
        .unwrap_or_else(|| Value::String(value.to_string()));
    let mut parts: Vec<&str> = key.split('.').collect();
    let Some(last) = parts.pop().filter(|last| !last.is_empty()) else {
        return Err("the key is empty".into());
    };
    let mut inner = table;
    for part in parts {
        let entry = inner.entry(part).or_insert_with(|| Value::Table(Table::new()));
        inner = entry.as_table_mut().ok_or_else(|| format!("`{part}` is not a section"))?;
    }
    if last == "kind" && inner.get(last).is_some_and(|kind| *kind != value) {
        // Another kind of masking, sampling or crop has other keys.
        inner.clear();
    }
    inner.insert(last.to_string(), value);
    Ok(())
}

/// What differs between two configurations: `key: old → new`, in alphabetical order.
pub fn differences(old: &impl Serialize, new: &impl Serialize) -> Vec<String> {
    let (old, new) = (flat(old), flat(new));
    let keys: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let shown = |v: Option<&String>| v.map_or("(absent)".to_string(), Clone::clone);
    keys.into_iter()
        .filter(|key| old.get(*key) != new.get(*key))
        .map(|key| format!("{key}: {} → {}", shown(old.get(key)), shown(new.get(key))))
        .collect()
}

/// Every key that has a value, with its value as TOML.
pub fn flat(config: &impl Serialize) -> std::collections::BTreeMap<String, String> {
    let mut flat = std::collections::BTreeMap::new();
    if let Ok(table) = Table::try_from(config) {
        flatten("", &Value::Table(table), &mut flat);
    }
    flat
}

fn flatten(prefix: &str, value: &Value, into: &mut std::collections::BTreeMap<String, String>) {
    match value {
        Value::Table(table) => table.iter().for_each(|(key, value)| {
            let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
            flatten(&key, value, into);
        }),
        value => drop(into.insert(prefix.to_string(), value.to_string())),
    }
}

impl Config {
    /// The configuration as a TOML document with every key.
    ///
    /// # Errors
    /// When a value has no TOML form.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string_pretty(self)
    }
}

#[cfg(test)]
mod tests {
    use super::super::load_evaluation;
    use super::*;
    use tgm_masking::Masking;

    fn message(text: &str, settings: &[&str]) -> String {
        let settings: Vec<String> = settings.iter().map(|s| (*s).to_string()).collect();
        from_text("run.toml", text, &settings).unwrap_err().to_string()
    }

    #[test]
    fn a_mistyped_name_is_answered_with_the_nearest_one() {
        let error = load("tgm-basee", &[]).unwrap_err().to_string();
        assert!(error.contains("did you mean `tgm-base`?"), "{error}");
    }

    #[test]
    fn every_named_config_is_valid_and_survives_being_written() {
        for (name, _) in NAMED {
            let config = load(name, &[]).unwrap();
            let again = from_text(name, &config.to_toml().unwrap(), &[]).unwrap();
            assert_eq!(config, again, "{name}");
        }
    }

    #[test]
    fn the_setting_that_does_not_fit_is_named_among_those_that_do() {
        let text = message("", &["train.micro_batch=2", "train.batch=abc", "seed=3"]);
        assert!(text.starts_with("run.toml with --set train.batch=abc: "), "{text}");
    }

    #[test]
    fn another_strategy_begins_with_its_own_defaults() {
        let with = |settings: &[&str]| {
            let settings: Vec<String> = settings.iter().map(|s| (*s).to_string()).collect();
            load("tgm-base", &settings).unwrap().masking
        };
        assert_eq!(with(&["masking.kind=tube"]), Masking::Tube { ratio: 0.9 });
        assert_eq!(with(&["masking.kind='tube'", "masking.ratio=0.7"]), Masking::Tube { ratio: 0.7 });
        assert_eq!(with(&["masking.ratio=0.7", "masking.kind='tube'"]), Masking::Tube { ratio: 0.7 });
        assert_eq!(with(&["masking.kind=text"]), load("tgm-base", &[]).unwrap().masking);
    }

    /// Whoever opens a configuration finds what it takes and what comes of it.
    #[test]
    fn every_named_config_has_a_header_with_command_data_time_memory_expectation_and_source() {
        for (name, text) in NAMED.iter().chain(NAMED_EVALUATIONS) {
            let header: Vec<&str> = text.lines().take_while(|line| line.starts_with('#')).collect();
            let header = header.join("\n");
            let command = match (*name, NAMED.contains(&(*name, *text))) {
                ("demo", _) => "cargo xtask pretrain".into(),
                ("reproduce", _) => "cargo xtask reproduce".into(),
                (_, true) => format!("cargo xtask pretrain --config {name} --data"),
                (_, false) => format!("--config {name} --data"),
            };
            for wanted in [command.as_str(), "Data: ", "Time: ", "Memory: ", "Expected: ", "Source: "] {
                assert!(header.contains(wanted), "{name}: no `{wanted}` in its header");
            }
            assert!(title(text).ends_with('.'), "{name}: {}", title(text));
        }
    }

    #[test]
    fn every_named_evaluation_is_valid_and_its_name_says_its_protocol() {
        for (name, _) in NAMED_EVALUATIONS {
            let config = load_evaluation(name).unwrap();
            let title = Value::try_from(config.protocol).unwrap();
            assert_eq!(name.split('-').next(), title.as_str(), "{name}");
            assert_eq!(
                load(name, &[]).unwrap_err().0,
                format!("{name} is an evaluation: `tgm eval --config {name}`")
            );
        }
        let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/configs/eval")).unwrap();
        assert_eq!(files.count(), NAMED_EVALUATIONS.len(), "a file that is not in the list");
    }

    /// VideoMAE's fine-tuning scripts: epochs, batch, repeated augmentation, base learning rate, layer decay.
    #[test]
    fn the_published_fine_tuning_settings_are_those_of_the_scripts() {
        for (name, epochs, batch, repeats, lr, decay) in [
            ("finetune-small", 150.0, 384, 2, 5e-4, 0.75),
            ("finetune-base", 100.0, 512, 1, 1e-3, 0.75),
            ("finetune-base-1600", 75.0, 384, 2, 5e-4, 0.75),
            ("finetune-large", 35.0, 128, 2, 2e-3, 0.75),
            ("finetune-base-ssv2", 50.0, 512, 1, 5e-4, 0.75),
            ("finetune-base-2400-ssv2", 30.0, 384, 2, 5e-4, 0.75),
            ("finetune-small-ssv2", 40.0, 384, 2, 1e-3, 0.7),
        ] {
            let found = load_evaluation(name).unwrap().finetune;
            let found = (found.epochs, found.batch, found.repeats, found.base_lr, found.layer_decay);
            assert_eq!(found, (epochs, batch, repeats, lr, decay), "{name}");
        }
    }

    #[test]
    fn the_published_settings_are_what_their_names_say() {
        let plan = |name: &str| {
            let config = load(name, &[]).unwrap();
            let stride = match config.clip.sampling {
                tgm_video::Sampling::Dense { stride, .. } => stride,
                other => panic!("{name}: {other:?}"),
            };
            (config.masking.name(), config.masking.ratio(), config.contrastive.enabled, stride)
        };
        for (name, _) in NAMED.iter().filter(|(name, _)| !["demo", "few-clips", "reproduce"].contains(name)) {
            let (masking, ratio, joint, stride) = plan(name);
            assert_eq!(stride, if name.ends_with("ssv2") { 2 } else { 4 }, "{name}");
            let expected = match name.split('-').next().unwrap() {
                "tgm" => ("text", 0.6),
                "mgm" => ("motion-box", 0.75),
                "random" => ("random", 0.9),
                _ => ("tube", 0.9),
            };
            assert_eq!((masking, ratio), expected, "{name}");
            let is_joint = name.contains("joint") || name.starts_with("tgm-base");
            assert_eq!(joint, is_joint, "{name}");
        }
    }

    #[test]
    fn settings_from_the_command_line_win() {
        let settings = ["train.batch=7", "masking.ratio=0.5", "text.model=some/folder"].map(String::from);
        let config = from_text("x", "[masking]\nkind = 'tube'", &settings).unwrap();
        assert_eq!((config.train.batch, config.text.model.as_str()), (7, "some/folder"));
        assert_eq!(config.masking, Masking::Tube { ratio: 0.5 });
    }

    #[test]
    fn a_typo_names_the_file_and_the_nearest_key() {
        let text = message("[train]\nbatchsize = 4", &[]);
        assert!(text.starts_with("run.toml: unknown key `batchsize`: did you mean `batch`?"), "{text}");
        let text = message("[masking]\nkind = 'txt'", &[]);
        assert!(text.contains("unknown value `txt`: did you mean `text`?"), "{text}");
        assert!(message("", &["train.bach=4"]).contains("did you mean `batch`?"));
    }

    #[test]
    fn broken_documents_and_settings_are_one_line() {
        for text in [
            message("[train", &[]),
            message("seed = 'x'", &[]),
            message("", &["seed"]),
            message("seed=1", &["seed.x=1"]),
        ] {
            assert!(!text.contains('\n') && text.len() < 200, "{text}");
        }
    }

    #[test]
    fn differences_name_key_old_and_new_value() {
        let (old, mut new) = (Config::default(), Config::default());
        new.train.batch = 8;
        new.data.manifest = Some("m.csv".into());
        assert_eq!(differences(&old, &new), ["data.manifest: (absent) → \"m.csv\"", "train.batch: 1024 → 8"]);
    }
}
