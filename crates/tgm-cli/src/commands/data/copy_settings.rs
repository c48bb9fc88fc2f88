//! How the copies in a folder are made: kept beside them, so that no folder has two kinds of them.

use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tgm_train::config::ConfigError;
use tgm_train::run_dir::write_atomically;

/// What the pictures of a copy depend on besides its source.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct CopySettings {
    pub short_side: u32,
    pub gop: u32,
    pub crf: u8,
}

/// A shorter side below this has no room for a block of the encoder.
const LEAST_SIDE: u32 = 16;

/// The file in the folder of the copies.
const FILE: &str = "transcode.toml";

impl CopySettings {
    /// Fails for what the encoder would refuse of every video.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let side = self.short_side;
        if side < LEAST_SIDE || side % 2 == 1 {
            let must = format!("it must be even, and at least {LEAST_SIDE}");
            return Err(ConfigError(format!("--short-side {side}: {must}")));
        }
        Ok(())
    }

    /// Writes the settings to the folder, unless it has them already; returns the file if it is a new one. A folder that was
    /// made before there were such files is taken for one of these settings.
    ///
    /// # Errors
    /// When the folder has copies of other settings, or cannot be written.
    pub fn claim(&self, folder: &Path) -> Result<Option<PathBuf>> {
        let file = folder.join(FILE);
        let text = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                std::fs::create_dir_all(folder)
                    .with_context(|| format!("cannot make the folder {}", folder.display()))?;
                write_atomically(&file, toml::to_string(self)?.as_bytes())?;
                return Ok(Some(file));
            }
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
        };
        let advice = "give another folder, or delete this one";
        let found: Self = toml::from_str(&text)
            .map_err(|error| ConfigError(format!("{}: {}; {advice}", file.display(), error.message())))?;
        if found != *self {
            let folder = folder.display();
            return Err(
                ConfigError(format!("{folder} has copies of {found}, and not of {self}; {advice}")).into()
            );
        }
        Ok(None)
    }
}

impl fmt::Display for CopySettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { short_side, gop, crf } = self;
        write!(f, "--short-side {short_side} --gop {gop} --crf {crf}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: CopySettings = CopySettings { short_side: 256, gop: 30, crf: 20 };

    #[test]
    fn a_folder_stays_with_its_settings() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("fast");
        assert_eq!(SETTINGS.claim(&folder).unwrap(), Some(folder.join("transcode.toml")));
        assert_eq!(SETTINGS.claim(&folder).unwrap(), None);
        for other in [
            CopySettings { short_side: 320, ..SETTINGS },
            CopySettings { gop: 12, ..SETTINGS },
            CopySettings { crf: 18, ..SETTINGS },
        ] {
            let error = other.claim(&folder).unwrap_err();
            assert!(error.is::<ConfigError>());
            let told = format!("has copies of {SETTINGS}, and not of {other}; give another folder");
            assert!(error.to_string().contains(&told), "{error}");
        }
        std::fs::write(folder.join("transcode.toml"), "short-side = 256\n").unwrap();
        let error = SETTINGS.claim(&folder).unwrap_err();
        assert!(error.is::<ConfigError>() && error.to_string().contains("`gop`"), "{error}");
    }

    #[test]
    fn a_short_side_is_even_and_has_room_for_a_block() {
        for (short_side, good) in [(0, false), (1, false), (14, false), (16, true), (255, false), (256, true)]
        {
            assert_eq!(CopySettings { short_side, ..SETTINGS }.validate().is_ok(), good, "{short_side}");
        }
    }
}
