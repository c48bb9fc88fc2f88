//! Where a model comes from, and the files it consists of.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ClipError;

/// Where a CLIP or a BLIP in the Hugging Face layout comes from.
///
/// In configurations it is a string: a folder, or `hub:OWNER/NAME@REVISION`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ModelSource {
    /// A folder with `config.json`, `model.safetensors` (or `pytorch_model.bin`, read without executing pickle) and
    /// `tokenizer.json` (or `vocab.json` and `merges.txt`).
    Folder(PathBuf),
    /// A repository on the Hugging Face hub, downloaded once into the usual cache (`HF_HUB_CACHE`, `HF_HOME`). Loading it
    /// needs the feature `hub`.
    Hub {
        /// `OWNER/NAME`.
        repo: String,
        /// A commit, tag or branch; only a commit always means the same weights.
        revision: String,
    },
    /// Files inside the program. Written as `embedded`, which cannot be read back: the program must know its own.
    Embedded {
        /// `config.json`.
        config: &'static [u8],
        /// `model.safetensors`.
        weights: &'static [u8],
        /// `tokenizer.json`.
        tokenizer: &'static [u8],
    },
}

impl ModelSource {
    /// OpenAI's CLIP ViT-B/32 (7×7 patches at 224 pixels), the model of the paper.
    pub fn vit_b32() -> Self {
        Self::openai("base-patch32", "3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268")
    }

    /// OpenAI's CLIP ViT-B/16 (14×14 patches at 224 pixels).
    pub fn vit_b16() -> Self {
        Self::openai("base-patch16", "57c216476eefef5ab752ec549e440a49ae4ae5f3")
    }

    /// OpenAI's CLIP ViT-L/14 (16×16 patches at 224 pixels).
    pub fn vit_l14() -> Self {
        Self::openai("large-patch14", "32bd64288804d66eefd0ccbe215aa642df71cc41")
    }

    /// Salesforce's BLIP base for image captioning (384 pixels). Its weights are a pickle, read without executing it.
    pub fn blip_base() -> Self {
        Self::Hub {
            repo: "Salesforce/blip-image-captioning-base".to_owned(),
            revision: "82a37760796d32b1411fe092ab5d4e227313294b".to_owned(),
        }
    }

    fn openai(name: &str, revision: &str) -> Self {
        Self::Hub { repo: format!("openai/clip-vit-{name}"), revision: revision.to_owned() }
    }
}

impl fmt::Display for ModelSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => write!(f, "{}", path.display()),
            Self::Hub { repo, revision } => write!(f, "hub:{repo}@{revision}"),
            Self::Embedded { .. } => f.write_str("embedded"),
        }
    }
}

impl Serialize for ModelSource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ModelSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl FromStr for ModelSource {
    type Err = ClipError;

    fn from_str(value: &str) -> Result<Self, ClipError> {
        let error = |reason| ClipError::Source { value: value.to_owned(), reason };
        match value.strip_prefix("hub:") {
            None if value.is_empty() => Err(error("empty")),
            None if value == "embedded" => {
                Err(error("the embedded model is known only to the program that has it"))
            }
            None => Ok(Self::Folder(value.into())),
            Some(name) => {
                let (repo, revision) = name.split_once('@').ok_or_else(|| error("no @REVISION"))?;
                let owner_and_name = repo.split('/').collect::<Vec<_>>();
                if owner_and_name.len() != 2 || owner_and_name.contains(&"") || revision.is_empty() {
                    return Err(error("not OWNER/NAME@REVISION"));
                }
                Ok(Self::Hub { repo: repo.to_owned(), revision: revision.to_owned() })
            }
        }
    }
}

#[derive(Debug)]
pub(crate) enum WeightFile {
    Safetensors(Vec<u8>),
    Pickle(PathBuf),
}

#[derive(Debug)]
pub(crate) enum TokenizerFiles {
    Json(Vec<u8>),
    VocabAndMerges { vocab: Vec<u8>, merges: Vec<u8> },
}

/// The files of one model.
#[derive(Debug)]
pub(crate) struct ModelFiles {
    /// The source as text: names the model in errors.
    pub name: String,
    /// The same weights have the same identity, and others have another.
    pub identity: String,
    pub config: Vec<u8>,
    pub weights: WeightFile,
    pub tokenizer: TokenizerFiles,
}

/// File names that serve one purpose, in order of preference; each alternative may need several files.
pub(crate) const ALTERNATIVES: [&[&[&str]]; 3] = [
    &[&["config.json"]],
    &[&["model.safetensors"], &["pytorch_model.bin"]],
    &[&["tokenizer.json"], &["vocab.json", "merges.txt"]],
];

impl ModelFiles {
    pub fn resolve(source: &ModelSource) -> Result<Self, ClipError> {
        match source {
            ModelSource::Folder(folder) => Self::read(folder, source.to_string(), None),
            #[cfg(feature = "hub")]
            ModelSource::Hub { repo, revision } => {
                let snapshot = crate::hub::Hub::from_env().snapshot(repo, revision)?;
                let identity = format!("{repo}@{}", snapshot.commit);
                Self::read(&snapshot.folder, source.to_string(), Some(identity))
            }
            #[cfg(not(feature = "hub"))]
            ModelSource::Hub { .. } => Err(ClipError::WithoutHub { model: source.to_string() }),
            ModelSource::Embedded { config, weights, tokenizer } => Ok(Self {
                name: source.to_string(),
                identity: fingerprint([*config, *weights, *tokenizer]),
                config: config.to_vec(),
                weights: WeightFile::Safetensors(weights.to_vec()),
                tokenizer: TokenizerFiles::Json(tokenizer.to_vec()),
            }),
        }
    }

    fn read(folder: &Path, name: String, identity: Option<String>) -> Result<Self, ClipError> {
        let [config, weights, tokenizer] = ALTERNATIVES;
        choose(folder, config)?;
        let config = read(&folder.join("config.json"))?;

        let weights_path = folder.join(choose(folder, weights)?[0]);
        let weight_bytes = read(&weights_path)?;

        let tokenizer = match choose(folder, tokenizer)? {
            [json] => TokenizerFiles::Json(read(&folder.join(json))?),
            _ => TokenizerFiles::VocabAndMerges {
                vocab: read(&folder.join("vocab.json"))?,
                merges: read(&folder.join("merges.txt"))?,
            },
        };
        let tokenizer_bytes: [&[u8]; 2] = match &tokenizer {
            TokenizerFiles::Json(json) => [json, &[]],
            TokenizerFiles::VocabAndMerges { vocab, merges } => [vocab, merges],
        };
        let identity = identity
            .unwrap_or_else(|| fingerprint([&config, &weight_bytes, tokenizer_bytes[0], tokenizer_bytes[1]]));
        let weights = if weights_path.extension().is_some_and(|e| e == "bin") {
            WeightFile::Pickle(weights_path)
        } else {
            WeightFile::Safetensors(weight_bytes)
        };
        Ok(Self { name, identity, config, weights, tokenizer })
    }
}

/// The first alternative of which every file is in the folder.
fn choose(
    folder: &Path,
    alternatives: &'static [&'static [&'static str]],
) -> Result<&'static [&'static str], ClipError> {
    alternatives
        .iter()
        .copied()
        .find(|files| files.iter().all(|file| folder.join(file).is_file()))
        .ok_or_else(|| ClipError::MissingFile { folder: folder.to_owned(), files: describe(alternatives) })
}

/// `a, or b and c`.
pub(crate) fn describe(alternatives: &[&[&str]]) -> String {
    alternatives.iter().map(|files| files.join(" and ")).collect::<Vec<_>>().join(", or ")
}

fn read(path: &Path) -> Result<Vec<u8>, ClipError> {
    std::fs::read(path).map_err(|source| ClipError::Io { path: path.to_owned(), source })
}

fn fingerprint<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    format!("fnv1a64:{:016x}", fnv1a64(parts))
}

/// 64-bit FNV-1a over the parts and their lengths: tells contents apart, and is no protection against forgery.
pub(crate) fn fnv1a64<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for part in parts {
        for byte in part.iter().copied().chain((part.len() as u64).to_le_bytes()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_survives_being_written_and_read() {
        for text in ["models/clip", "/abs/clip@2", "hub:openai/clip-vit-base-patch32@refs/pr/15"] {
            assert_eq!(text.parse::<ModelSource>().unwrap().to_string(), text);
        }
        let source = ModelSource::vit_b32();
        let json = serde_json::to_string(&source).unwrap();
        assert_eq!(serde_json::from_str::<ModelSource>(&json).unwrap(), source);
    }

    #[test]
    fn a_hub_source_needs_owner_name_and_revision() {
        for text in [
            "hub:clip@main",
            "hub:openai/clip",
            "hub:openai/clip@",
            "hub:/clip@1",
            "hub:a/b/c@1",
            "",
            "embedded",
        ] {
            let error = text.parse::<ModelSource>().unwrap_err().to_string();
            assert!(error.contains("OWNER/NAME@REVISION"), "{error}");
        }
    }

    #[test]
    #[cfg(not(feature = "hub"))]
    fn without_the_hub_a_model_by_name_is_refused_with_what_to_do() {
        let message = ModelFiles::resolve(&ModelSource::vit_b32()).unwrap_err().to_string();
        assert!(message.contains("openai/clip-vit-base-patch32") && message.contains("folder"), "{message}");
    }

    #[test]
    fn the_identity_depends_on_every_byte_and_on_where_parts_end() {
        let of = |parts: [&[u8]; 2]| fingerprint(parts);
        assert_eq!(of([b"ab", b"c"]), of([b"ab", b"c"]));
        assert_ne!(of([b"ab", b"c"]), of([b"a", b"bc"]));
        assert_ne!(of([b"ab", b"c"]), of([b"ab", b"d"]));
    }
}
