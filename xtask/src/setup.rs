//! `setup`: what the build needs from the system, installed where that is possible.

use std::io;
use std::process::{Command, Stdio};
use std::{env, fs};

use crate::command::{Failure, Result, output, run, succeeds};
use crate::probe;

const APT: &str = "apt-get install -y --no-install-recommends libavcodec-dev libavformat-dev libavutil-dev \
    libswscale-dev libavfilter-dev libavdevice-dev libswresample-dev pkg-config libclang-dev ffmpeg";
const APT_BROWSER: &str = "apt-get install -y --no-install-recommends chromium";
const DNF: &str = "dnf install -y ffmpeg-free ffmpeg-free-devel pkgconf-pkg-config clang-devel";
const PACMAN: &str = "pacman -S --needed ffmpeg pkgconf clang";
const BREW: &str = "brew install ffmpeg pkgconf llvm";

/// Browsers that the tests can drive.
const BROWSERS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// How system packages are installed here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manager {
    Apt,
    Dnf,
    Pacman,
    Brew,
}

/// Who we are to the package manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rights {
    Root,
    /// `sudo` without a password.
    Sudo,
    None,
}

/// Installs what is missing, or tells how to. Silent, and quick, when nothing is missing.
pub fn ensure() -> Result {
    let missing = probe::missing();
    if missing.is_empty() {
        return Ok(());
    }
    let manager = Manager::of(env::consts::OS, &fs::read_to_string("/etc/os-release").unwrap_or_default());
    match (manager, rights()) {
        (Some(Manager::Apt), rights @ (Rights::Root | Rights::Sudo)) => {
            eprintln!("setup: not found: {}; installing with apt-get", missing.join(", "));
            install(APT, rights)?;
            match probe::missing() {
                missing if missing.is_empty() => Ok(()),
                missing => Err(Failure::new(format!(
                    "still not found after the installation: {}",
                    missing.join(", ")
                ))),
            }
        }
        (manager, rights) => Err(Failure::new(advice(&missing, manager, rights))),
    }
}

/// The `setup` command: `ensure`, then says so.
pub fn setup() -> Result {
    ensure()?;
    println!("setup: FFmpeg's libraries and program, pkg-config and libclang are there");
    Ok(())
}

/// The `setup --browser` command, after `setup`.
pub fn browser() -> Result {
    if !has_browser() {
        let manager =
            Manager::of(env::consts::OS, &fs::read_to_string("/etc/os-release").unwrap_or_default());
        match (manager, rights()) {
            (Some(Manager::Apt), rights @ (Rights::Root | Rights::Sudo)) => install(APT_BROWSER, rights)?,
            _ => return Err(Failure::new("no Chromium here; install it from your system's packages")),
        }
        if !has_browser() {
            return Err(Failure::new("Chromium was installed, but does not start"));
        }
    }
    println!("setup: a browser for the tests is there");
    Ok(())
}

fn has_browser() -> bool {
    BROWSERS.iter().any(|name| succeeds(Command::new(name).arg("--version")))
}

impl Manager {
    /// From the operating system's name and the text of `/etc/os-release`.
    fn of(os: &str, os_release: &str) -> Option<Self> {
        if os == "macos" {
            return Some(Self::Brew);
        }
        let names = os_release
            .lines()
            .filter_map(|line| line.strip_prefix("ID=").or_else(|| line.strip_prefix("ID_LIKE=")))
            .flat_map(|value| value.trim_matches('"').split_whitespace());
        names.into_iter().find_map(|name| match name {
            "debian" | "ubuntu" => Some(Self::Apt),
            "fedora" | "rhel" => Some(Self::Dnf),
            "arch" => Some(Self::Pacman),
            _ => None,
        })
    }
}

fn rights() -> Rights {
    if output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0") {
        Rights::Root
    } else if succeeds(Command::new("sudo").args(["-n", "true"])) {
        Rights::Sudo
    } else {
        Rights::None
    }
}

fn install(packages: &str, rights: Rights) -> Result {
    // A package source that is unreachable fails the update, but the packages may still be had from the others:
    // what counts is whether the installation works.
    if run(&mut apt(rights, "apt-get update")).is_err() {
        eprintln!("setup: `apt-get update` failed, going on with the package lists that are there");
    }
    run(&mut apt(rights, packages))
        .map_err(|failure| failure.at(&format!("setup failed at `{}`", line(packages, rights))))
}

/// A line for apt as a command that asks nothing and waits for another apt that is running.
fn apt(rights: Rights, line: &str) -> Command {
    let mut command = Command::new(if rights == Rights::Sudo { "sudo" } else { "env" });
    if rights == Rights::Sudo {
        command.args(["-n", "env"]);
    }
    let mut words = line.split_whitespace();
    command.arg("DEBIAN_FRONTEND=noninteractive").args(words.next()).args(["-o", "DPkg::Lock::Timeout=300"]);
    // stdout belongs to the results of the command that called us.
    command.args(words).stdin(Stdio::null()).stdout(io::stderr());
    command
}

fn advice(missing: &[String], manager: Option<Manager>, rights: Rights) -> String {
    let missing = missing.join(", ");
    let install = match manager {
        Some(Manager::Apt) => format!("{} && {}", line("apt-get update", rights), line(APT, rights)),
        Some(Manager::Dnf) => line(DNF, rights),
        Some(Manager::Pacman) => line(PACMAN, rights),
        Some(Manager::Brew) => BREW.to_owned(),
        None => {
            return format!(
                "not found: {missing}. Install FFmpeg with its development files (libav*, libsw*), pkg-config and libclang"
            );
        }
    };
    format!("not found: {missing}. Run this line, then the command again:\n{install}")
}

/// What the user would type.
fn line(install: &str, rights: Rights) -> String {
    if rights == Rights::Root { install.to_owned() } else { format!("sudo {install}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::shown;

    #[test]
    fn the_package_manager_follows_from_the_distribution_or_the_one_it_is_like() {
        let debian = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\"\nID=debian\n";
        assert_eq!(Manager::of("linux", debian), Some(Manager::Apt));
        assert_eq!(Manager::of("linux", "ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n"), Some(Manager::Apt));
        assert_eq!(
            Manager::of("linux", "ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n"),
            Some(Manager::Dnf)
        );
        assert_eq!(Manager::of("linux", "ID=arch\n"), Some(Manager::Pacman));
        assert_eq!(Manager::of("linux", "ID=nixos\n"), None);
        assert_eq!(Manager::of("macos", ""), Some(Manager::Brew));
    }

    #[test]
    fn advice_names_what_is_missing_and_ends_with_one_line_to_run() {
        let advice = advice(&["libclang".to_owned()], Some(Manager::Apt), Rights::None);
        assert!(advice.starts_with("not found: libclang."), "{advice}");
        let last = advice.lines().last().expect("advice has lines");
        assert!(last.starts_with("sudo apt-get update && sudo apt-get install -y "), "{last}");
        assert!(last.ends_with(" libclang-dev ffmpeg"), "{last}");
    }

    #[test]
    fn advice_for_an_unknown_system_still_says_what_to_install() {
        let advice = advice(&["pkg-config".to_owned()], None, Rights::None);
        assert!(advice.contains("Install FFmpeg with its development files"), "{advice}");
    }

    #[test]
    fn apt_asks_nothing_and_uses_sudo_only_when_it_must() {
        assert_eq!(
            shown(&apt(Rights::Root, "apt-get update")),
            "env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 update"
        );
        assert!(
            shown(&apt(Rights::Sudo, APT)).starts_with("sudo -n env DEBIAN_FRONTEND=noninteractive apt-get ")
        );
    }
}
