//! `tidy`: rules about the files themselves, which neither rustfmt nor clippy checks.
//!
//! A line that must break a rule says so with the words `tidy: allow` in a comment.

use std::fmt;
use std::fs;
use std::process::Command;

use crate::command::{Failure, Result, output, root};

/// A crate is one idea and a file one subject: a longer file wants to be two.
const MAX_LINES: usize = 600;
/// All committed test data together.
const MAX_FIXTURES: u64 = 10 << 20;
/// Folders at the root of a file system which are different on each machine.
const MACHINE_FOLDERS: [&str; 6] = ["root", "home", "Users", "work", "tmp", "mnt"];

/// A place that breaks a rule.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    /// From 1; 0 for the file as a whole.
    line: usize,
    what: String,
}

/// From a file's text to the places that break the rule.
type Rule = fn(&str) -> Vec<Finding>;

/// Checks every file of the repository that git does not ignore.
pub fn tidy() -> Result {
    let mut findings = Vec::new();
    let mut fixtures = 0;
    let files = files()?;
    for path in &files {
        let bytes = fs::read(root().join(path))
            .map_err(|error| Failure::new(format!("cannot read {path}: {error}")))?;
        if is_fixture(path) {
            fixtures += bytes.len() as u64;
        }
        if let Some(text) = text_of(&bytes) {
            findings.extend(check(path, text).into_iter().map(|finding| format!("{path}{finding}")));
        }
    }
    if fixtures > MAX_FIXTURES {
        findings.push(format!("fixtures: {fixtures} bytes in all, the limit is {MAX_FIXTURES}"));
    }
    if findings.is_empty() {
        println!("tidy: {} files, fixtures {:.1} MiB", files.len(), fixtures as f64 / f64::from(1 << 20));
        return Ok(());
    }
    Err(Failure::new(format!("tidy found {}:\n{}", counted(findings.len(), "place"), findings.join("\n"))))
}

/// Paths relative to the root with `/` between the folders: what is committed, or would be by `git add`.
fn files() -> Result<Vec<String>> {
    let mut git = Command::new("git");
    // The checkout may belong to another user, as in a container: listing its files is safe.
    git.args(["-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let listed = output(git.current_dir(root()))?;
    let paths = listed.split_terminator('\0').filter(|path| root().join(path).is_file());
    Ok(paths.map(str::to_owned).collect())
}

fn check(path: &str, text: &str) -> Vec<Finding> {
    if path == "Cargo.lock" || is_fixture(path) && !path.ends_with(".md") {
        return Vec::new();
    }
    let rust = path.ends_with(".rs");
    let source = rust && in_src(path);
    let rules: [(bool, Rule); 6] = [
        (true, trailing_white_space),
        (true, no_newline_at_end),
        (true, machine_paths),
        (rust, tabs),
        (source, no_module_docs),
        (source, too_long),
    ];
    rules.into_iter().filter(|(applies, _)| *applies).flat_map(|(_, rule)| rule(text)).collect()
}

fn trailing_white_space(text: &str) -> Vec<Finding> {
    lines_where(text, "white space at the end of the line", |line| line.ends_with([' ', '\t', '\r']))
}

fn tabs(text: &str) -> Vec<Finding> {
    lines_where(text, "a tab; write spaces, or \\t in a string", |line| line.contains('\t'))
}

fn machine_paths(text: &str) -> Vec<Finding> {
    lines_where(text, "a path that exists on one machine only", |line| {
        MACHINE_FOLDERS.iter().any(|folder| has_path_into(line, folder))
    })
}

fn no_newline_at_end(text: &str) -> Vec<Finding> {
    let whole = text.is_empty() || text.ends_with('\n');
    if whole { Vec::new() } else { file_as_a_whole("no newline at the end") }
}

fn no_module_docs(text: &str) -> Vec<Finding> {
    if text.starts_with("//!") { Vec::new() } else { file_as_a_whole("does not begin with a `//!` comment") }
}

fn too_long(text: &str) -> Vec<Finding> {
    let lines = text.lines().count();
    if lines <= MAX_LINES {
        return Vec::new();
    }
    file_as_a_whole(&format!("{lines} lines, the limit is {MAX_LINES}; split it by subject"))
}

/// Whether the line holds the absolute path `/folder/…`, as opposed to `some/folder/…` or part of an address.
fn has_path_into(line: &str, folder: &str) -> bool {
    let path = format!("/{folder}/");
    line.match_indices(&path).any(|(at, _)| {
        line[..at]
            .chars()
            .next_back()
            .is_none_or(|before| before.is_whitespace() || "\"'`(<[=:,".contains(before))
    })
}

fn lines_where(text: &str, what: &str, breaks: impl Fn(&str) -> bool) -> Vec<Finding> {
    let lines =
        text.split('\n').enumerate().filter(|(_, line)| breaks(line) && !line.contains("tidy: allow"));
    lines.map(|(index, _)| Finding { line: index + 1, what: what.to_owned() }).collect()
}

fn file_as_a_whole(what: &str) -> Vec<Finding> {
    vec![Finding { line: 0, what: what.to_owned() }]
}

fn is_fixture(path: &str) -> bool {
    path.split('/').any(|folder| folder == "fixtures")
}

/// In the sources of a crate, not its tests, examples or benches.
fn in_src(path: &str) -> bool {
    let mut folders = path.split('/');
    match folders.next() {
        Some("crates") => folders.nth(1) == Some("src"),
        Some("xtask" | "benches") => folders.next() == Some("src"),
        _ => false,
    }
}

fn text_of(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, ": {}", self.what),
            line => write!(f, ":{line}: {}", self.what),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(findings: &[Finding]) -> Vec<usize> {
        findings.iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn white_space_at_the_end_of_a_line_is_found() {
        assert_eq!(lines(&check("README.md", "a \nb\nc\t\nd\r\n")), [1, 3, 4]);
    }

    #[test]
    fn tabs_are_found_in_rust_only() {
        assert_eq!(lines(&check("crates/a/tests/a.rs", "fn f() {\n\tg();\n}\n")), [2]);
        assert_eq!(check("Makefile", "all:\n\ttrue\n"), []);
    }

    #[test]
    fn a_file_ends_with_a_newline() {
        assert_eq!(lines(&check("README.md", "a\nb")), [0]);
        assert_eq!(check("empty.toml", ""), []);
    }

    #[test]
    fn a_source_file_begins_with_its_documentation() {
        assert_eq!(lines(&check("crates/a/src/b/c.rs", "use std::fmt;\n")), [0]);
        assert_eq!(check("crates/a/src/b/c.rs", "//! What it is.\n"), []);
        assert_eq!(check("crates/a/tests/c.rs", "use std::fmt;\n"), []);
    }

    #[test]
    fn a_source_file_has_at_most_600_lines() {
        let of = |lines: usize| format!("//!\n{}", "x\n".repeat(lines - 1));
        assert_eq!(check("crates/a/src/lib.rs", &of(600)), []);
        let findings = check("crates/a/src/lib.rs", &of(601));
        assert_eq!(findings[0].to_string(), ": 601 lines, the limit is 600; split it by subject");
    }

    #[test]
    fn absolute_paths_of_one_machine_are_found() {
        for folder in MACHINE_FOLDERS {
            for before in ["", "see ", "\"", "`", "(", "--out=", "file:"] {
                let line = format!("{before}/{folder}/x");
                assert_eq!(lines(&machine_paths(&line)), [1], "{line}");
            }
        }
    }

    #[test]
    fn paths_that_only_look_absolute_are_left_alone() {
        for before in ["https://example.org", "..", "~", "$HOME", "${DIR}", "target"] {
            let line = format!("{before}/{}/x", "tmp");
            assert_eq!(machine_paths(&line), [], "{line}");
        }
    }

    #[test]
    fn a_line_may_ask_for_an_exception() {
        let line = format!("let socket = \"/{}/socket\"; // tidy: allow, the system's own place\n", "tmp");
        assert_eq!(check("crates/a/tests/a.rs", &line), []);
    }

    #[test]
    fn generated_files_and_test_data_are_not_read_as_prose() {
        assert_eq!(check("Cargo.lock", "a \n"), []);
        assert_eq!(check("fixtures/clips/labels.csv", "a,b \r\n"), []);
        assert_eq!(lines(&check("fixtures/README.md", "a \n")), [1]);
    }

    #[test]
    fn fixtures_are_counted_wherever_they_lie() {
        assert!(is_fixture("fixtures/a.mp4"));
        assert!(is_fixture("crates/tgm-mae/tests/fixtures/a.safetensors"));
        assert!(!is_fixture("docs/fixtures.md"));
    }

    #[test]
    fn binary_files_are_not_text() {
        assert_eq!(text_of(b"a\0b"), None);
        assert_eq!(text_of(&[0xff, 0xfe]), None);
        assert_eq!(text_of("ü".as_bytes()), Some("ü"));
    }
}
