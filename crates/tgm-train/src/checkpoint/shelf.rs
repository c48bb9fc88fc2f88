//! The folder of a run's checkpoints: which there are, which is the newest, which stay.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::state::{STATE, check, read};

/// Which checkpoints stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// This many of the newest; at least one.
    pub last: usize,
    /// Besides, this many of those with the highest scores.
    pub best: usize,
}

/// The complete checkpoints in a folder, oldest first.
///
/// # Errors
/// When the folder cannot be read.
pub fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut found: Vec<PathBuf> =
        entries.filter_map(|e| Some(e.ok()?.path())).filter(|p| is_checkpoint(p)).collect();
    found.sort();
    Ok(found)
}

fn is_checkpoint(path: &Path) -> bool {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    name.strip_prefix("step-").is_some_and(|n| n.chars().all(|c| c.is_ascii_digit()))
        && path.join(STATE).is_file()
}

/// The newest checkpoint that is whole, none when there is no checkpoint at all. Damaged ones are named in a warning and
/// passed over.
///
/// # Errors
/// When all are damaged.
pub fn newest(folder: &Path) -> Result<Option<PathBuf>> {
    let all = list(folder)?;
    for candidate in all.iter().rev() {
        match check(candidate) {
            Ok(_) => return Ok(Some(candidate.clone())),
            Err(error) => tracing::warn!("passing over a damaged checkpoint: {error:#}"),
        }
    }
    if all.is_empty() {
        return Ok(None);
    }
    bail!(
        "{}: all {} checkpoints are damaged; start again without --resume in another folder",
        folder.display(),
        all.len()
    )
}

/// Deletes the checkpoints that need not stay, and points `best` at the one with the highest score.
///
/// # Errors
/// When one cannot be deleted.
pub fn prune(folder: &Path, keep: Keep) -> Result<()> {
    let all = list(folder)?;
    let mut scored: Vec<(f64, &PathBuf)> =
        all.iter().filter_map(|path| Some((read(path).ok()?.score?.value, path))).collect();
    // Of equals the later one: it has learnt longer.
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(a.1)));
    let best: Vec<&PathBuf> = scored.iter().take(keep.best).map(|(_, path)| *path).collect();
    if let Some(first) = best.first() {
        point(folder, "best", first);
    }
    let old = &all[..all.len().saturating_sub(keep.last.max(1))];
    old.iter().filter(|path| !best.contains(path)).try_for_each(|path| discard(path))
}

/// Removes what processes that were killed left behind.
///
/// # Errors
/// When something cannot be deleted.
pub fn sweep(folder: &Path) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for path in entries.filter_map(|e| Some(e.ok()?.path())) {
        if path.extension().is_some_and(|extension| extension == "tmp") {
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.with_context(|| format!("cannot delete {}", path.display()))?;
        }
    }
    Ok(())
}

/// Deletes a checkpoint; renamed first, so that at no moment half of one bears its name.
pub(super) fn discard(path: &Path) -> Result<()> {
    let going = path.with_extension("old.tmp");
    fs::rename(path, &going)
        .and_then(|()| fs::remove_dir_all(&going))
        .with_context(|| format!("cannot delete the old checkpoint {}", path.display()))
}

/// Makes `folder/name` a link to a checkpoint. It is a convenience for people: where a file system has no links there is
/// none.
#[cfg(unix)]
pub(super) fn point(folder: &Path, name: &str, checkpoint: &Path) {
    let Some(target) = checkpoint.file_name() else { return };
    let beside = folder.join(format!("{name}.tmp"));
    let _ = fs::remove_file(&beside);
    let linked =
        std::os::unix::fs::symlink(target, &beside).and_then(|()| fs::rename(&beside, folder.join(name)));
    if let Err(error) = linked {
        tracing::debug!("{}: no link `{name}`: {error}", folder.display());
    }
}

/// Makes nothing: links need rights on this system that few have.
#[cfg(not(unix))]
pub(super) fn point(_folder: &Path, _name: &str, _checkpoint: &Path) {}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder that looks like a checkpoint with a score.
    fn checkpoint(folder: &Path, step: u64, score: Option<f64>) {
        let path = folder.join(format!("step-{step:08}"));
        fs::create_dir(&path).unwrap();
        let score = score.map(|value| serde_json::json!({"name": "knn", "value": value}));
        let state = serde_json::json!({
            "step": step, "skipped": 0, "skipped_in_a_row": 0, "score": score,
            "data": {"rows": 1, "crc32": 0}, "version": "0", "files": {}
        });
        fs::write(path.join(STATE), state.to_string()).unwrap();
    }

    fn steps(folder: &Path) -> Vec<u64> {
        list(folder).unwrap().iter().map(|path| read(path).unwrap().position.step).collect()
    }

    #[test]
    fn the_last_and_the_best_stay() {
        let dir = tempfile::tempdir().unwrap();
        for (step, score) in [(1, Some(0.2)), (2, Some(0.9)), (3, None), (4, Some(0.4)), (5, Some(0.1))] {
            checkpoint(dir.path(), step, score);
        }
        prune(dir.path(), Keep { last: 2, best: 1 }).unwrap();
        assert_eq!(steps(dir.path()), [2, 4, 5]);
        assert_eq!(fs::read_link(dir.path().join("best")).unwrap(), Path::new("step-00000002"));
        prune(dir.path(), Keep { last: 1, best: 0 }).unwrap();
        assert_eq!(steps(dir.path()), [5]);
    }

    #[test]
    fn what_a_killed_process_left_is_swept_and_is_no_checkpoint() {
        let dir = tempfile::tempdir().unwrap();
        checkpoint(dir.path(), 7, None);
        for debris in ["step-00000008.tmp", "step-00000006.old.tmp"] {
            fs::create_dir(dir.path().join(debris)).unwrap();
            fs::write(dir.path().join(debris).join(STATE), "{}").unwrap();
        }
        assert_eq!(steps(dir.path()), [7]);
        sweep(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_without_checkpoints_has_no_newest_and_one_with_damaged_ones_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(newest(dir.path()).unwrap(), None);
        checkpoint(dir.path(), 1, None);
        assert!(newest(dir.path()).unwrap().is_some());
        fs::write(dir.path().join("step-00000001").join(STATE), "{").unwrap();
        assert!(newest(dir.path()).unwrap_err().to_string().contains("damaged"));
    }
}
