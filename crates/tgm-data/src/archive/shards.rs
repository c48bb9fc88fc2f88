//! The names of a set of archives.

use std::path::{Path, PathBuf};

use super::ArchiveError;

/// Archives that are one data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shards {
    /// The folder that all of them are below.
    pub folder: PathBuf,
    /// Their paths, relative to the folder, in order.
    pub paths: Vec<String>,
}

/// Whether a file is taken for an archive: by the end of its name.
pub fn is_archive(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("tar"))
}

/// More shards than any data set has.
const MOST: usize = 1_000_000;

impl Shards {
    /// The archives that an argument means: `shards.tar`, or a pattern such as `shards-{000..012}.tar` or
    /// `{train,val}/{0..9}.tar`, as shells and WebDataset expand it. `None` for anything else.
    ///
    /// # Errors
    /// [`ArchiveError::Pattern`]; [`ArchiveError::Read`] when the path is relative and there is no working directory. Whether the
    /// archives exist is not looked at.
    pub fn of(pattern: &Path) -> Result<Option<Self>, ArchiveError> {
        if !is_archive(pattern) {
            return Ok(None);
        }
        let unreadable = |source| ArchiveError::Read { archive: pattern.to_owned(), source };
        let full = std::path::absolute(pattern).map_err(unreadable)?;
        let failed =
            |problem: &str| ArchiveError::Pattern { pattern: pattern.to_owned(), problem: problem.into() };
        // A file whose name has braces is that file.
        let plain = full.is_file();
        let has_brace = |part: &Path| part.to_string_lossy().contains('{');
        let mut folder = full.parent().unwrap_or(Path::new("/"));
        while let Some(above) = folder.parent().filter(|_| !plain && has_brace(folder)) {
            folder = above;
        }
        let below = full.strip_prefix(folder).unwrap_or(&full);
        let below = below.to_str().ok_or_else(|| failed("is not Unicode"))?;
        let paths =
            if plain { vec![below.to_owned()] } else { expand(below).map_err(|problem| failed(&problem))? };
        Ok(Some(Self { folder: folder.to_owned(), paths }))
    }
}

/// All texts that a pattern stands for, the rightmost braces turning fastest.
fn expand(pattern: &str) -> Result<Vec<String>, String> {
    let Some((before, rest)) = pattern.split_once('{') else {
        return match pattern.contains('}') {
            true => Err("has a `}` without its `{`".to_owned()),
            false => Ok(vec![pattern.to_owned()]),
        };
    };
    if before.contains('}') {
        return Err("has a `}` without its `{`".to_owned());
    }
    let (inside, after) = rest.split_once('}').ok_or("has a `{` without its `}`")?;
    if inside.contains('{') {
        return Err("has braces within braces".to_owned());
    }
    let (middles, ends) = (alternatives(inside)?, expand(after)?);
    if middles.len().saturating_mul(ends.len()) > MOST {
        return Err(format!("stands for more than {MOST} archives"));
    }
    let join = |middle: &String| ends.iter().map(|end| format!("{before}{middle}{end}")).collect::<Vec<_>>();
    Ok(middles.iter().flat_map(join).collect())
}

/// What may stand in place of a pair of braces.
fn alternatives(inside: &str) -> Result<Vec<String>, String> {
    let Some((first, last)) = inside.split_once("..") else {
        return match inside.contains(',') {
            true => Ok(inside.split(',').map(str::to_owned).collect()),
            false => Err(format!("`{{{inside}}}` is neither a range nor a list")),
        };
    };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<usize>().ok()).flatten().ok_or(format!("`{text}` is no number"))
    };
    let (from, to) = (number(first)?, number(last)?);
    if from > to {
        return Err(format!("the range `{{{inside}}}` runs backwards"));
    }
    if to - from >= MOST {
        return Err(format!("stands for more than {MOST} archives"));
    }
    // As in shells: one leading zero makes all numbers as wide as the widest end.
    let padded = [first, last].iter().any(|text| text.len() > 1 && text.starts_with('0'));
    let width = if padded { first.len().max(last.len()) } else { 0 };
    Ok((from..=to).map(|number| format!("{number:0width$}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(pattern: &str) -> Vec<String> {
        expand(pattern).unwrap()
    }

    #[test]
    fn braces_expand_as_in_a_shell() {
        assert_eq!(expanded("a.tar"), ["a.tar"]);
        assert_eq!(expanded("s-{008..011}.tar"), ["s-008.tar", "s-009.tar", "s-010.tar", "s-011.tar"]);
        assert_eq!(expanded("{9..10}"), ["9", "10"]);
        assert_eq!(expanded("{09..10}"), ["09", "10"]);
        assert_eq!(expanded("{0..1}"), ["0", "1"]);
        assert_eq!(expanded("{a,b}/{1..2}"), ["a/1", "a/2", "b/1", "b/2"]);
        assert_eq!(expanded("{,x}"), ["", "x"]);
    }

    #[test]
    fn patterns_that_mean_nothing_are_refused() {
        for pattern in [
            "{",
            "a}",
            "}{",
            "{1..2",
            "{{1..2}}",
            "{a}",
            "{}",
            "{2..1}",
            "{a..b}",
            "{-1..2}",
            "{..}",
            "{0..9999999}",
        ] {
            assert!(expand(pattern).is_err(), "{pattern}");
        }
        assert!(expand("{0..999}{0..999}{0..999}").is_err());
        assert!(expand("{0..99999999999999999999999}").is_err());
    }

    #[test]
    fn the_folder_is_the_one_that_all_have_in_common() {
        let shards = |pattern: &str| Shards::of(Path::new(pattern)).unwrap().unwrap();
        let all = shards("/data/{train,val}/s-{0..1}.tar");
        assert_eq!(all.folder, Path::new("/data"));
        assert_eq!(all.paths, ["train/s-0.tar", "train/s-1.tar", "val/s-0.tar", "val/s-1.tar"]);
        assert_eq!(shards("/data/one.TAR").paths, ["one.TAR"]);
        assert_eq!(Shards::of(Path::new("/data/clips.csv")).unwrap(), None);
    }

    #[test]
    fn a_file_with_braces_in_its_name_is_that_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("{x}.tar");
        assert!(Shards::of(&file).is_err());
        std::fs::write(&file, "").unwrap();
        assert_eq!(Shards::of(&file).unwrap().unwrap().paths, ["{x}.tar"]);
    }
}
