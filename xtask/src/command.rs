//! Running other programs, and how a failure becomes an exit status.

use std::env;
use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus};

/// The result of a command of `cargo xtask`.
pub type Result<T = ()> = std::result::Result<T, Failure>;

/// Why a command stopped: what to tell the user, and the exit status.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    code: u8,
    /// Empty when the program that failed has already said why.
    message: String,
}

impl Failure {
    /// A failure that the user hears of here: exit status 1.
    pub fn new(message: impl Into<String>) -> Self {
        Self { code: 1, message: message.into() }
    }

    /// Bad usage: exit status 2.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { code: 2, message: format!("{} (see `cargo xtask --help`)", message.into()) }
    }

    /// A program failed and has said why: its signal as 128+n, anything else as exit status 1.
    fn of_program(status: ExitStatus) -> Self {
        Self { code: signal(status).map_or(1, |signal| 128 + signal), message: String::new() }
    }

    /// The same failure, with a line that tells where it happened.
    pub fn at(self, place: &str) -> Self {
        let message =
            if self.message.is_empty() { place.to_owned() } else { format!("{place}: {}", self.message) };
        Self { message, ..self }
    }

    /// Tells the user, and gives the exit status to end with.
    pub fn report(&self) -> ExitCode {
        if !self.message.is_empty() {
            eprintln!("error: {}", self.message);
        }
        ExitCode::from(self.code)
    }
}

/// The root of the workspace.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in a folder of the workspace")
}

/// The `cargo` that runs us, at the root of the workspace.
pub fn cargo<I: IntoIterator<Item: AsRef<std::ffi::OsStr>>>(args: I) -> Command {
    let mut command = cargo_here(args);
    command.current_dir(root());
    command
}

/// The `cargo` that runs us, in the user's current folder.
pub fn cargo_here<I: IntoIterator<Item: AsRef<std::ffi::OsStr>>>(args: I) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    command.args(args);
    command
}

/// Runs a program to its end; its output goes to the terminal.
pub fn run(command: &mut Command) -> Result {
    let status = command.status().map_err(|error| cannot_start(command, &error))?;
    if status.success() { Ok(()) } else { Err(Failure::of_program(status)) }
}

/// Runs a program to its end and returns what it wrote to stdout.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.output().map_err(|error| cannot_start(command, &error))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(Failure::new(format!("`{}` failed: {}", shown(command), stderr.trim())));
    }
    String::from_utf8(output.stdout)
        .map_err(|_| Failure::new(format!("`{}` wrote something other than UTF-8", shown(command))))
}

/// Whether a program can be started and ends well; its output is dropped.
pub fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

/// Becomes the program: the terminal, signals and the exit status are then the program's own.
#[cfg(unix)]
pub fn become_program(command: &mut Command) -> Result {
    let error = std::os::unix::process::CommandExt::exec(command);
    Err(cannot_start(command, &error))
}

/// Runs the program and ends with its exit status.
#[cfg(not(unix))]
pub fn become_program(command: &mut Command) -> Result {
    let status = command.status().map_err(|error| cannot_start(command, &error))?;
    std::process::exit(status.code().unwrap_or(1))
}

/// The command as a line that a user could type; the path to cargo is cut down to its name.
pub fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let envs =
        command.get_envs().filter_map(|(key, value)| Some(assignment(key.to_str()?, value?.to_str()?)));
    let words =
        std::iter::once(program).chain(command.get_args()).map(|word| quoted(&word.to_string_lossy()));
    envs.chain(words).collect::<Vec<_>>().join(" ")
}

/// An error unless the command was given no arguments.
pub fn no_arguments(name: &str, args: &[String]) -> Result {
    match args.first() {
        None => Ok(()),
        Some(arg) => Err(Failure::usage(format!("`cargo xtask {name}` takes no arguments, found `{arg}`"))),
    }
}

fn assignment(key: &str, value: &str) -> String {
    format!("{key}={}", quoted(value))
}

fn quoted(word: &str) -> String {
    if word.contains(' ') { format!("'{word}'") } else { word.to_owned() }
}

fn cannot_start(command: &Command, error: &std::io::Error) -> Failure {
    Failure::new(format!("cannot start `{}`: {error}", shown(command)))
}

#[cfg(unix)]
fn signal(status: ExitStatus) -> Option<u8> {
    std::os::unix::process::ExitStatusExt::signal(&status).and_then(|signal| u8::try_from(signal).ok())
}

#[cfg(not(unix))]
fn signal(_: ExitStatus) -> Option<u8> {
    None
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_failed_program_ends_with_1_and_no_second_message() {
        assert_eq!(run(&mut shell("exit 101")), Err(Failure { code: 1, message: String::new() }));
        assert_eq!(run(&mut shell("exit 0")), Ok(()));
    }

    #[test]
    fn a_signal_ends_with_128_and_its_number() {
        assert_eq!(run(&mut shell("kill -TERM $$")), Err(Failure { code: 143, message: String::new() }));
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let failure = run(&mut Command::new("no-such-program")).unwrap_err();
        assert!(failure.message.starts_with("cannot start `no-such-program`"), "{}", failure.message);
    }

    #[test]
    fn the_output_of_a_failed_program_is_its_stderr() {
        let failure = output(&mut shell("echo out; echo why >&2; exit 3")).unwrap_err();
        assert!(failure.message.ends_with("failed: why"), "{}", failure.message);
        assert_eq!(output(&mut shell("echo out")), Ok("out\n".to_owned()));
    }

    #[test]
    fn a_command_is_shown_as_one_would_type_it() {
        let mut command = Command::new("/opt/rust/bin/cargo");
        command.args(["doc", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings").env_remove("RUSTFLAGS");
        assert_eq!(shown(&command), "RUSTDOCFLAGS='-D warnings' cargo doc --no-deps");
    }

    #[test]
    fn a_place_is_put_in_front_of_the_reason() {
        assert_eq!(Failure::new("no").at("here").message, "here: no");
        assert_eq!(Failure { code: 143, message: String::new() }.at("here").message, "here");
    }
}
