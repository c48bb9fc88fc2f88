//! The folder of a run's checkpoints: which there are, which is the newest, which stay.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::state::{STATE, Score, check, read};

/// Which checkpoints stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// This many of the newest; at least one.
    pub last: usize,
    /// Besides, this many of those with the highest scores.
    pub best: usize,
}

/// Where the checkpoint of a step is, or would be.
pub fn of_step(folder: &Path, step: u64) -> PathBuf {
    folder.join(format!("step-{step:08}"))
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
        "{}: all {} checkpoints are damaged; begin the run again in another folder",
        folder.display(),
        all.len()
    )
}

/// Renames the checkpoints after `good`, which [`newest`] passed over because they are damaged, to `NAME.damaged`. The run
/// goes on before them: under their names they would count among the newest, and the good ones would go in their stead.
/// What cannot be renamed stays, with a warning.
///
/// # Errors
/// When the folder cannot be read.
pub fn set_aside_after(folder: &Path, good: &Path) -> Result<()> {
    let damaged: Vec<PathBuf> = list(folder)?.into_iter().filter(|path| path.as_path() > good).collect();
    for path in &damaged {
        if let Err(error) = fs::rename(path, path.with_extension("damaged")) {
            tracing::warn!("cannot rename the damaged checkpoint {}: {error}", path.display());
        }
    }
    if !damaged.is_empty() {
        point(folder, "latest", good);
    }
    Ok(())
}

/// Deletes the checkpoints that need not stay, and points `best` at the one with the highest score, among those that were
/// measured as the newest was. That of `written`, the step that was just saved, stays whatever else is there.
///
/// # Errors
/// When one cannot be deleted.
pub fn prune(folder: &Path, keep: Keep, written: u64) -> Result<()> {
    let (all, written) = (list(folder)?, of_step(folder, written));
    let scores: Vec<(Score, &PathBuf)> =
        all.iter().filter_map(|path| Some((read(path).ok()?.score?, path))).collect();
    let measured = scores.last().map(|(score, _)| score.name.clone());
    let alike = scores.into_iter().filter(|(score, _)| Some(&score.name) == measured.as_ref());
    let mut scored: Vec<(f64, &PathBuf)> = alike.map(|(score, path)| (score.value, path)).collect();
    // Of equals the later one: it has learnt longer.
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(a.1)));
    let best: Vec<&PathBuf> = scored.iter().take(keep.best).map(|(_, path)| *path).collect();
    if let Some(first) = best.first() {
        point(folder, "best", first);
    }
    let old = &all[..all.len().saturating_sub(keep.last.max(1))];
    let stays = |path: &PathBuf| best.contains(&path) || *path == written;
    old.iter().filter(|path| !stays(path)).try_for_each(|path| discard(path))
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
        measured(folder, step, "knn", score);
    }

    fn measured(folder: &Path, step: u64, name: &str, score: Option<f64>) {
        let path = of_step(folder, step);
        fs::create_dir(&path).unwrap();
        let score = score.map(|value| serde_json::json!({"name": name, "value": value}));
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
        prune(dir.path(), Keep { last: 2, best: 1 }, 5).unwrap();
        assert_eq!(steps(dir.path()), [2, 4, 5]);
        assert_eq!(fs::read_link(dir.path().join("best")).unwrap(), Path::new("step-00000002"));
        prune(dir.path(), Keep { last: 1, best: 0 }, 5).unwrap();
        assert_eq!(steps(dir.path()), [5]);
    }

    /// As when a run goes on with `output.probe_every = 0`.
    #[test]
    fn the_best_is_one_of_those_that_were_measured_as_the_newest_was() {
        let dir = tempfile::tempdir().unwrap();
        measured(dir.path(), 1, "knn", Some(0.1));
        measured(dir.path(), 2, "-masked loss", Some(-3.0));
        measured(dir.path(), 3, "-masked loss", Some(-9.0));
        prune(dir.path(), Keep { last: 1, best: 1 }, 3).unwrap();
        assert_eq!(steps(dir.path()), [2, 3]);
    }

    /// One that could not be renamed is still listed.
    #[test]
    fn the_one_that_was_just_written_stays_although_later_ones_are_there() {
        let dir = tempfile::tempdir().unwrap();
        for step in [5, 7, 10] {
            checkpoint(dir.path(), step, None);
        }
        prune(dir.path(), Keep { last: 1, best: 0 }, 7).unwrap();
        assert_eq!(steps(dir.path()), [7, 10]);
    }

    #[test]
    fn damaged_ones_after_the_good_one_are_set_aside_and_no_checkpoints_any_more() {
        let dir = tempfile::tempdir().unwrap();
        for step in [4, 5, 10] {
            checkpoint(dir.path(), step, None);
        }
        fs::write(of_step(dir.path(), 10).join(STATE), "{").unwrap();
        let good = newest(dir.path()).unwrap().unwrap();
        set_aside_after(dir.path(), &good).unwrap();
        assert_eq!(steps(dir.path()), [4, 5]);
        assert!(dir.path().join("step-00000010.damaged").join(STATE).is_file());
        sweep(dir.path()).unwrap();
        assert!(dir.path().join("step-00000010.damaged").is_dir(), "it is left for a person to look at");
    }

    /// As when the same step was damaged once before.
    #[test]
    fn one_that_cannot_be_renamed_stays_where_it_is() {
        let dir = tempfile::tempdir().unwrap();
        checkpoint(dir.path(), 5, None);
        checkpoint(dir.path(), 10, None);
        let taken = dir.path().join("step-00000010.damaged");
        fs::create_dir(&taken).unwrap();
        fs::write(taken.join(STATE), "{").unwrap();
        set_aside_after(dir.path(), &of_step(dir.path(), 5)).unwrap();
        assert_eq!(steps(dir.path()), [5, 10]);
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
