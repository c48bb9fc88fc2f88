//! Which crates must stay free of the heavy dependencies, so that each can be used on its own.

use std::fs;

use crate::command::{Failure, Result, cargo, output, root};

const HEAVY: &[&str] = &["candle", "ffmpeg", "video-rs"];
const CANDLE: &[&str] = &["candle"];
const FFMPEG: &[&str] = &["ffmpeg", "video-rs"];
const TEXT: &[&str] = &["ffmpeg", "video-rs", "tgm-clip"];
const MODELS: &[&str] = &["ffmpeg", "video-rs", "tgm-video", "tgm-mae", "tgm-clip"];
const MASKS: &[&str] = &["candle", "tgm-masking"];
const MASKS_AND_VIDEO: &[&str] = &["ffmpeg", "video-rs", "tgm-masking", "tgm-video"];
const COMMANDS: &[&str] = &["tgm-cli", "clap_complete", "tracing-subscriber"];
const PRETRAINING: &[&str] = &["tgm-train", "tgm-contrastive"];

/// A crate, and the packages, or families of packages (`candle` is `candle-core` too), that must not appear
/// anywhere below it.
const FREE_OF: &[(&str, &[&str])] = &[
    ("xtask", HEAVY),
    ("tgm-random", HEAVY),
    ("tgm-masking", HEAVY),
    ("tgm-video", MASKS),
    ("tgm-ops", MODELS),
    ("tgm-mae", TEXT),
    ("tgm-contrastive", MASKS_AND_VIDEO),
    ("tgm-clip", FFMPEG),
    ("tgm-data", CANDLE),
    ("tgm-eval", PRETRAINING),
    ("tgm-group", HEAVY),
    ("tgm-train", COMMANDS),
];

/// Checks the dependencies of every crate above.
pub fn layers() -> Result {
    for (package, forbidden) in FREE_OF {
        let tree =
            output(&mut cargo(["tree", "--locked", "-p", package, "-e", "normal", "--prefix", "none"]))?;
        if let Some(found) = first_of(&tree, forbidden) {
            return Err(Failure::new(format!(
                "{package} must not depend on {found}; see `cargo tree -p {package} -e normal -i {found}`"
            )));
        }
    }
    println!("layers: {} crates are free of what they must not depend on", FREE_OF.len());
    Ok(())
}

/// All crates: the folders in `crates/`, in order.
pub fn crates() -> Result<Vec<String>> {
    let folder = root().join("crates");
    let entries = fs::read_dir(&folder)
        .map_err(|error| Failure::new(format!("cannot read {}: {error}", folder.display())))?;
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|entry| entry.path().join("Cargo.toml").is_file())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    Ok(names)
}

/// The first package of the tree (one `name version …` a line) that is one of `families` or belongs to one.
fn first_of<'a>(tree: &'a str, families: &[&str]) -> Option<&'a str> {
    let packages = tree.lines().filter_map(|line| line.split_whitespace().next());
    packages.into_iter().find(|package| families.iter().any(|family| is_of(package, family)))
}

/// `candle-core` is of the family `candle`; `tgm-clip` is not of `tgm-cli`.
fn is_of(package: &str, family: &str) -> bool {
    package.strip_prefix(family).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: &str = "tgm-video v0.1.0 (crates/tgm-video)\nvideo-rs v0.12.0\nffmpeg-next v9.0.0\n";

    #[test]
    fn a_forbidden_package_is_found_by_its_name_or_family() {
        assert_eq!(first_of(TREE, &["candle", "ffmpeg"]), Some("ffmpeg-next"));
        assert_eq!(first_of(TREE, &["video-rs"]), Some("video-rs"));
        assert_eq!(first_of(TREE, CANDLE), None);
    }

    #[test]
    fn tgm_clip_is_not_taken_for_tgm_cli() {
        assert_eq!(first_of("tgm-clip v0.1.0\n", COMMANDS), None);
        assert_eq!(first_of("tgm-cli v0.1.0\n", COMMANDS), Some("tgm-cli"));
    }

    #[test]
    fn every_crate_with_a_rule_exists() {
        let crates = crates().unwrap();
        for (package, _) in FREE_OF {
            assert!(*package == "xtask" || crates.iter().any(|name| name == package), "{package}");
        }
    }
}
