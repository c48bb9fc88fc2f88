//! What a key means: its documentation, its default, and what the named configurations set it to.

use std::fmt::Write;

use super::docs::{Member, Type, kebab, resolve, roots};
use super::{
    Config, ConfigError, EvalConfig, NAMED, NAMED_EVALUATIONS, ProtocolName, flat, load, load_evaluation,
};

/// Everything that is known about a key or a section.
///
/// # Errors
/// [`ConfigError`] with the nearest key when there is none of this name.
pub fn explain(key: &str) -> Result<String, ConfigError> {
    let found = look_up(key);
    if found.is_empty() {
        return Err(unknown(key));
    }
    let mut text = format!("{key}{}\n", found[0].written_type());
    for place in &found {
        place.describe(&mut text);
    }
    values(key, &mut text);
    Ok(text)
}

/// All keys with the first sentence of their documentation, one line each.
pub fn overview() -> String {
    let mut text = String::new();
    for key in keys() {
        let doc = look_up(&key).first().map(Place::in_short).unwrap_or_default();
        let _ = writeln!(text, "{key:<42} {doc}");
    }
    text
}

/// Every key that can be set, in the order of the documentation.
pub fn keys() -> Vec<String> {
    let mut keys = Vec::new();
    roots().for_each(|root| collect("", root, &mut keys));
    keys
}

fn collect(prefix: &str, of: &Type, into: &mut Vec<String>) {
    let mut add = |name: &str, member: &Member, of: &Type| {
        let key = if prefix.is_empty() { name.to_string() } else { format!("{prefix}.{name}") };
        match resolve(of, &member.of) {
            Some(inner) if !inner.is_enum || has_fields(inner) => collect(&key, inner, into),
            _ if into.contains(&key) => {}
            _ => into.push(key),
        }
    };
    if !of.is_enum {
        of.members.iter().for_each(|member| add(&member.name, member, of));
        return;
    }
    add("kind", &Member::default(), of);
    for variant in &of.members {
        let (inner, fields) = fields_of(variant, of);
        fields.iter().for_each(|field| add(&field.name, field, inner));
    }
}

/// An enum whose variants have settings of their own: it is a section with the key `kind`.
fn has_fields(of: &Type) -> bool {
    of.is_enum && of.members.iter().any(|m| !m.fields.is_empty() || !m.of.is_empty())
}

/// The fields of a variant, and the type that their types are looked up from.
fn fields_of<'a>(variant: &'a Member, of: &'a Type) -> (&'a Type, &'a [Member]) {
    match resolve(of, &variant.of) {
        Some(inner) => (inner, &inner.members),
        None => (of, &variant.fields),
    }
}

/// A member that a key leads to. There may be several: one per masking strategy that has it.
struct Place<'a> {
    member: &'a Member,
    of: &'a Type,
    /// The variant that it belongs to.
    variant: Option<&'a Member>,
    /// `kind` of an enum with settings.
    is_kind: bool,
}

fn look_up(key: &str) -> Vec<Place<'static>> {
    let mut parts = key.split('.');
    let Some(first) = parts.next() else { return Vec::new() };
    let found = roots().flat_map(|root| inside(root, first)).collect();
    parts.fold(found, |places: Vec<Place<'static>>, part| {
        let types = places.iter().filter_map(|place| resolve(place.of, &place.member.of));
        types.flat_map(|of| inside(of, part)).collect()
    })
}

fn inside(of: &'static Type, name: &str) -> Vec<Place<'static>> {
    let plain = |of: &'static Type, members: &'static [Member], variant| {
        let named = members.iter().filter(|member| member.name == name).collect::<Vec<_>>();
        named.into_iter().map(move |member| Place { member, of, variant, is_kind: false }).collect::<Vec<_>>()
    };
    if !of.is_enum {
        return plain(of, &of.members, None);
    }
    if name == "kind" && has_fields(of) {
        let kinds = of.members.first();
        return kinds.map(|member| Place { member, of, variant: None, is_kind: true }).into_iter().collect();
    }
    let of_variant = |variant: &'static Member| {
        let (inner, fields) = fields_of(variant, of);
        plain(inner, fields, Some(variant))
    };
    of.members.iter().flat_map(of_variant).collect()
}

impl Place<'_> {
    fn in_short(&self) -> String {
        if !self.is_kind {
            return first_sentence(&self.member.doc).to_string();
        }
        let kinds: Vec<String> = self.of.members.iter().map(|variant| kebab(&variant.name)).collect();
        format!("One of {}.", kinds.join(", "))
    }

    fn written_type(&self) -> String {
        let written = &self.member.of;
        let known = resolve(self.of, written).is_some();
        if self.is_kind || known { String::new() } else { format!("  ({written})") }
    }

    fn describe(&self, text: &mut String) {
        if self.is_kind {
            return list(self.of, text);
        }
        if let Some(variant) = self.variant {
            let _ = writeln!(text, "  with kind = \"{}\":", kebab(&variant.name));
        }
        self.member.doc.lines().for_each(|line| {
            let _ = writeln!(text, "  {line}");
        });
        match resolve(self.of, &self.member.of) {
            Some(inner) if inner.is_enum => list(inner, text),
            Some(inner) => inner.members.iter().for_each(|member| {
                let _ = writeln!(text, "    {:<24} {}", member.name, first_sentence(&member.doc));
            }),
            None => {}
        }
    }
}

/// The variants of an enum, as values.
fn list(of: &Type, text: &mut String) {
    for variant in &of.members {
        let _ = writeln!(
            text,
            "    {:<24} {}",
            format!("\"{}\"", kebab(&variant.name)),
            variant.doc.replace('\n', " ")
        );
    }
}

fn first_sentence(doc: &str) -> &str {
    let line = doc.lines().next().unwrap_or_default();
    line.find(". ").map_or(line, |end| &line[..=end])
}

/// The default and what named configurations set instead.
fn values(key: &str, text: &mut String) {
    let mut default = flat(&Config::default());
    default.extend(flat(&EvalConfig::of(ProtocolName::Knn)));
    // The one key without a default.
    default.remove("protocol");
    let Some(value) = default.get(key) else {
        if !default.keys().any(|k| k.starts_with(&format!("{key}."))) {
            let _ = writeln!(text, "  default: not set");
        }
        return set_by(key, None, text);
    };
    let _ = writeln!(text, "  default: {value}");
    set_by(key, Some(value), text);
}

fn set_by(key: &str, default: Option<&String>, text: &mut String) {
    let mut by_value = std::collections::BTreeMap::<String, Vec<&str>>::new();
    for (name, mut keys) in named_values() {
        let value = keys.remove(key);
        if let Some(value) = value.filter(|value| Some(value) != default) {
            by_value.entry(value).or_default().push(name);
        }
    }
    for (value, names) in by_value {
        let _ = writeln!(text, "  {value} in {}", names.join(", "));
    }
}

/// The keys and values of every named configuration.
fn named_values() -> impl Iterator<Item = (&'static str, std::collections::BTreeMap<String, String>)> {
    let runs = NAMED.iter().filter_map(|(name, _)| Some((*name, flat(&load(name, &[]).ok()?))));
    let evaluation = |name: &str| Some(flat(&load_evaluation(name).ok()?.effective().ok()?));
    runs.chain(NAMED_EVALUATIONS.iter().filter_map(move |(name, _)| Some((*name, evaluation(name)?))))
}

fn unknown(key: &str) -> ConfigError {
    let similarity = |known: &String| strsim::normalized_damerau_levenshtein(key, known);
    let keys = keys();
    // Somebody may remember the last part only.
    let ending = keys.iter().find(|known| known.ends_with(&format!(".{key}")));
    let nearest = ending.or_else(|| keys.iter().max_by(|a, b| similarity(a).total_cmp(&similarity(b))));
    let nearest = nearest.map(|known| format!(": did you mean `{known}`?")).unwrap_or_default();
    ConfigError(format!("there is no key `{key}`{nearest} (`tgm config explain` lists all)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A new key without a comment, or of a type in a file that is not read, fails here.
    #[test]
    fn every_key_of_every_named_configuration_is_explained() {
        let mut checked = 0;
        assert_eq!(named_values().count(), NAMED.len() + NAMED_EVALUATIONS.len());
        for (name, keys) in named_values() {
            for key in keys.keys() {
                let text = explain(key).unwrap_or_else(|e| panic!("{name}: {e}"));
                assert!(text.lines().nth(1).is_some_and(|line| line.trim().len() > 5), "{key}: {text}");
                checked += 1;
            }
        }
        assert!(checked > 400);
        assert!(keys().len() > 50, "{:?}", keys());
    }

    #[test]
    fn a_key_of_several_strategies_is_explained_for_each() {
        let text = explain("masking.ratio").unwrap();
        for part in ["with kind = \"tube\"", "with kind = \"text\"", "default: 0.6", "0.9 in", "ablation"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let text = explain("masking.kind").unwrap();
        assert!(text.contains("\"motion-box\"") && text.contains("default: \"text\""), "{text}");
        let text = explain("clip.motion").unwrap();
        assert!(text.contains("\"blocks\""), "{text}");
    }

    #[test]
    fn keys_of_evaluations_are_explained_too() {
        let text = explain("finetune.layer_decay").unwrap();
        assert!(text.contains("default: 0.75") && text.contains("0.7 in finetune-small-ssv2"), "{text}");
        assert!(explain("sgd.momentum").unwrap().contains("default: 0.9"));
        assert!(explain("protocol").unwrap().contains("\"zero-shot\""));
        assert!(explain("finetune.rand_augment.magnitude").unwrap().contains("default: 7"));
    }

    #[test]
    fn sections_list_their_keys_and_unknown_keys_name_the_nearest() {
        assert!(explain("train").unwrap().contains("weight_decay"));
        assert!(explain("model.encoder.dim").unwrap().contains("not set"));
        assert!(explain("train.bacth").unwrap_err().0.contains("`train.batch`"));
        assert!(explain("weight_decay").unwrap_err().0.contains("`train.weight_decay`"));
        assert!(overview().lines().all(|line| line.split_whitespace().count() > 2), "{}", overview());
    }
}
