//! The documentation of every key, read from the doc comments of the types that a configuration consists of: what
//! `tgm config explain` says cannot differ from what the code says.

use std::sync::OnceLock;

/// The files that define those types, and the modules that they are named by (`sgd::Settings`). Where a name without a module
/// occurs twice, a file's own comes first, then the order of this list.
const SOURCES: &[(&str, &str)] = &[
    ("masking", include_str!("../../../tgm-masking/src/masking.rs")),
    ("motion_box", include_str!("../../../tgm-masking/src/motion_box.rs")),
    ("motion_warp", include_str!("../../../tgm-masking/src/motion_warp.rs")),
    ("text", include_str!("../../../tgm-masking/src/text.rs")),
    ("sampling", include_str!("../../../tgm-video/src/sampling.rs")),
    ("crop", include_str!("../../../tgm-video/src/crop.rs")),
    ("tubelet", include_str!("../../../tgm-video/src/tubelet.rs")),
    ("config", include_str!("../../../tgm-data/src/loader/config.rs")),
    ("score", include_str!("../../../tgm-clip/src/score.rs")),
    ("vision", include_str!("../../../tgm-clip/src/vision.rs")),
    ("contrastive", include_str!("../../../tgm-contrastive/src/lib.rs")),
    ("config", include_str!("../../../tgm-mae/src/config.rs")),
    ("config", include_str!("mod.rs")),
    ("evaluation", include_str!("evaluation.rs")),
    ("sgd", include_str!("../../../tgm-eval/src/linear/sgd.rs")),
    ("adamw", include_str!("../../../tgm-eval/src/linear/adamw.rs")),
    ("logistic", include_str!("../../../tgm-eval/src/linear/logistic.rs")),
    ("supervised", include_str!("../../../tgm-eval/src/supervised/settings.rs")),
    ("rand_augment", include_str!("../../../tgm-video/src/rand_augment.rs")),
];

/// A documented type.
#[derive(Debug, Default)]
pub(super) struct Type {
    source: usize,
    pub name: String,
    pub is_enum: bool,
    pub members: Vec<Member>,
}

/// A field of a struct, or a variant of an enum.
#[derive(Debug, Default)]
pub(super) struct Member {
    pub name: String,
    pub doc: String,
    /// The field's type, or the type inside the variant.
    pub of: String,
    /// The variant's own fields.
    pub fields: Vec<Member>,
}

/// All documented types.
fn types() -> &'static [Type] {
    static TYPES: OnceLock<Vec<Type>> = OnceLock::new();
    TYPES.get_or_init(|| SOURCES.iter().enumerate().flat_map(|(i, (_, text))| parse(i, text)).collect())
}

/// The types that whole configurations have: a run's, and an evaluation's. They share no key.
pub(super) fn roots() -> impl Iterator<Item = &'static Type> {
    ["Config", "EvalConfig"].into_iter().filter_map(|name| types().iter().find(|t| t.name == name))
}

/// The type that a member of `of` has, without `Option` and `Vec`; none for numbers and texts.
pub(super) fn resolve(of: &Type, written: &str) -> Option<&'static Type> {
    let inner = ["Option<", "Vec<"].iter().find_map(|w| written.strip_prefix(w)?.strip_suffix('>'));
    let path = inner.unwrap_or(written);
    let (module, name) = path.rsplit_once("::").map_or((None, path), |(module, name)| (Some(module), name));
    let named = || types().iter().filter(|t| t.name == name);
    match module {
        Some(module) => named().find(|t| SOURCES[t.source].0 == module),
        None => named().find(|t| t.source == of.source).or_else(|| named().next()),
    }
}

/// Reads the public structs and enums of a source file that rustfmt has laid out.
fn parse(source: usize, text: &str) -> Vec<Type> {
    let (mut types, mut doc) = (Vec::<Type>::new(), Vec::new());
    let (mut inside, mut kebab_fields) = (false, false);
    for line in text.lines() {
        let code = line.trim_start();
        let indent = line.len() - code.len();
        if let Some(comment) = code.strip_prefix("///") {
            doc.push(comment.trim().to_string());
            continue;
        }
        if code.starts_with("#[") || code.is_empty() {
            kebab_fields |= indent == 0 && code.contains("rename_all = \"kebab-case\"");
            continue;
        }
        let said = paragraphs(&std::mem::take(&mut doc));
        match (inside, indent) {
            (false, 0) => {
                let renamed = std::mem::take(&mut kebab_fields);
                for (keyword, is_enum) in [("pub struct ", false), ("pub enum ", true)] {
                    let opened = code.strip_prefix(keyword).and_then(|rest| rest.strip_suffix(" {"));
                    if let Some(name) = opened {
                        inside = true;
                        kebab_fields = renamed && !is_enum;
                        types.push(Type { source, name: name.into(), is_enum, members: Vec::new() });
                    }
                }
            }
            (true, 0) => (inside, kebab_fields) = (false, false),
            (true, 4) if code != "}," && code != "}" => {
                if let Some(of) = types.last_mut() {
                    let mut member = member(code, said);
                    if kebab_fields {
                        member.name = member.name.replace('_', "-");
                    }
                    of.members.push(member);
                }
            }
            (true, 8) => {
                let variant = types.last_mut().and_then(|t| t.members.last_mut());
                if let (Some(variant), true) = (variant, code.contains(": ")) {
                    variant.fields.push(member(code, said));
                }
            }
            _ => {}
        }
    }
    types
}

/// `pub name: Type,`, `name: Type,`, `Variant,`, `Variant(Type),` or `Variant {`.
fn member(code: &str, doc: String) -> Member {
    let code = code.trim_start_matches("pub ").trim_end_matches([',', '{', ' ']);
    let (name, of) = match (code.split_once(": "), code.split_once('(')) {
        (Some((name, of)), _) => (name, of),
        (None, Some((name, of))) => (name, of.trim_end_matches(')')),
        (None, None) => (code, ""),
    };
    Member { name: name.into(), doc, of: of.into(), fields: Vec::new() }
}

/// Lines as paragraphs of one line each.
fn paragraphs(lines: &[String]) -> String {
    let blocks = lines.split(String::is_empty).map(|block| block.join(" "));
    let text = blocks.filter(|block| !block.is_empty()).collect::<Vec<_>>().join("\n");
    // Links within the code lead nowhere on a terminal.
    text.replace("[`", "`").replace("`]", "`")
}

/// A variant's name as configurations have it: `MotionBox` is `motion-box`.
pub(super) fn kebab(name: &str) -> String {
    let mut kebab = String::new();
    for (i, letter) in name.char_indices() {
        if letter.is_uppercase() && i > 0 {
            kebab.push('-');
        }
        kebab.extend(letter.to_lowercase());
    }
    kebab
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structs_and_enums_are_read_with_their_comments() {
        let text = "\
/// A thing.
#[derive(Debug)]
pub struct Thing {
    /// How many.
    /// Two lines.
    ///
    /// A paragraph.
    #[serde(default)]
    pub count: Option<usize>,
}

pub enum Kind {
    /// Plain.
    Plain,
    /// With fields.
    MotionBox {
        /// A share.
        ratio: f64,
    },
    /// With a type.
    Other(Thing),
}
";
        let types = parse(0, text);
        let [thing, kind] = types.as_slice() else { panic!("{types:?}") };
        assert_eq!(
            (thing.members[0].name.as_str(), thing.members[0].of.as_str()),
            ("count", "Option<usize>")
        );
        assert_eq!(thing.members[0].doc, "How many. Two lines.\nA paragraph.");
        assert!(kind.is_enum && !thing.is_enum);
        let names: Vec<String> = kind.members.iter().map(|m| kebab(&m.name)).collect();
        assert_eq!(names, ["plain", "motion-box", "other"]);
        assert_eq!(
            (kind.members[1].fields[0].doc.as_str(), kind.members[2].of.as_str()),
            ("A share.", "Thing")
        );
    }
}
