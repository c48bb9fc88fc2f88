//! What the build needs from the system, and whether it is there. Runs before every command: no more than
//! one short process and a few directory listings when all is well.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::succeeds;

/// FFmpeg's libraries as pkg-config knows them: those that `video-rs` links.
const LIBRARIES: [&str; 7] =
    ["libavcodec", "libavformat", "libavutil", "libswscale", "libavfilter", "libavdevice", "libswresample"];

/// Names what is missing; empty when the build and the tests can run.
pub fn missing() -> Vec<String> {
    let mut missing = missing_libraries();
    if !has_libclang() {
        missing.push("libclang (bindgen reads FFmpeg's headers with it)".to_owned());
    }
    if !on_path("ffmpeg") {
        missing.push("the ffmpeg program (the tests make videos with it)".to_owned());
    }
    missing
}

fn missing_libraries() -> Vec<String> {
    // ffmpeg-sys-next takes an FFmpeg of one's own from this folder, without asking pkg-config.
    if env::var_os("FFMPEG_DIR").is_some() {
        return Vec::new();
    }
    if exists(&LIBRARIES) {
        return Vec::new();
    }
    if !succeeds(pkg_config().arg("--version")) {
        return vec!["pkg-config".to_owned()];
    }
    LIBRARIES
        .into_iter()
        .filter(|library| !exists(&[library]))
        .map(|library| format!("{library}.pc"))
        .collect()
}

fn exists(libraries: &[&str]) -> bool {
    succeeds(pkg_config().arg("--exists").args(libraries))
}

/// The same choice as the pkg-config crate makes in build scripts.
fn pkg_config() -> Command {
    Command::new(env::var_os("PKG_CONFIG").unwrap_or_else(|| OsString::from("pkg-config")))
}

fn on_path(program: &str) -> bool {
    let file = format!("{program}{}", env::consts::EXE_SUFFIX);
    env::split_paths(&env::var_os("PATH").unwrap_or_default()).any(|folder| folder.join(&file).is_file())
}

fn has_libclang() -> bool {
    if let Some(path) = env::var_os("LIBCLANG_PATH").map(PathBuf::from) {
        return path.is_file() || holds_libclang(&path);
    }
    libclang_folders().iter().any(|folder| holds_libclang(folder))
}

/// Where distributions and Apple put libclang; clang-sys looks there as well.
fn libclang_folders() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = [
        "/usr/lib",
        "/usr/lib64",
        "/usr/local/lib",
        "/opt/homebrew/opt/llvm/lib",
        "/usr/local/opt/llvm/lib",
        "/Library/Developer/CommandLineTools/usr/lib",
        "/Applications/Xcode.app/Contents/Developer/Toolchains/XcodeDefault.xctoolchain/usr/lib",
    ]
    .map(PathBuf::from)
    .into();
    folders.push(format!("/usr/lib/{}-linux-gnu", env::consts::ARCH).into());
    for parent in ["/usr/lib", "/usr/lib64", "/usr/local"] {
        let versions = names(Path::new(parent)).into_iter().filter(|name| name.starts_with("llvm"));
        folders.extend(versions.map(|name| Path::new(parent).join(name).join("lib")));
    }
    folders
}

fn holds_libclang(folder: &Path) -> bool {
    names(folder).iter().any(|name| is_libclang(name))
}

/// Only the names that come with the development files: a bare `libclang-14.so.1` has no compiler headers
/// (`stddef.h`) beside it, and bindgen fails without them.
fn is_libclang(name: &str) -> bool {
    let Some(version) = name.strip_prefix("libclang") else { return false };
    match version.strip_suffix(".so").or_else(|| version.strip_suffix(".dylib")) {
        Some(version) => version.is_empty() || version.starts_with("-") && !version.starts_with("-cpp"),
        None => version == ".dll",
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libclang_is_told_from_its_relatives() {
        for name in ["libclang.so", "libclang-14.so", "libclang-14.0.6.so", "libclang.dylib", "libclang.dll"]
        {
            assert!(is_libclang(name), "{name}");
        }
        for name in ["libclang-14.so.1", "libclang.so.1", "libclang-cpp.so", "libclangAST.a", "libfoo.so"] {
            assert!(!is_libclang(name), "{name}");
        }
    }

    #[test]
    fn a_folder_that_is_not_there_holds_nothing() {
        assert!(!holds_libclang(Path::new("/no/such/folder")));
    }

    #[test]
    fn programs_are_looked_for_on_the_path() {
        assert!(!on_path("no-such-program"));
        #[cfg(unix)]
        assert!(on_path("sh"));
    }
}
