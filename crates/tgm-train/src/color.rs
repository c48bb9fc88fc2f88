//! Whether messages are coloured: what `--color` says, what `NO_COLOR` asks for, and whether somebody looks.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::sync::OnceLock;

use clap::{ColorChoice, ValueEnum};

static CHOICE: OnceLock<ColorChoice> = OnceLock::new();

/// What `--color` says, from now on. The first call counts.
pub fn choose(choice: ColorChoice) {
    let _ = CHOICE.set(choice);
}

/// Whether standard error gets colours: by default on a terminal that has some, unless `NO_COLOR` is set (no-color.org).
pub fn on_stderr() -> bool {
    match CHOICE.get().copied().unwrap_or_default() {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto => {
            let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
            std::io::stderr().is_terminal() && !no_color && !dumb
        }
    }
}

/// What `--color` says in these arguments: help and mistakes in usage are told before the command line is understood.
pub fn asked_for(arguments: impl IntoIterator<Item = OsString>) -> ColorChoice {
    let mut arguments = arguments.into_iter().map_while(|argument| argument.into_string().ok());
    let mut asked = None;
    while let Some(argument) = arguments.next() {
        let value = match argument.split_once('=') {
            Some(("--color", value)) => Some(value.to_string()),
            _ if argument == "--color" => arguments.next(),
            _ => None,
        };
        asked = value.and_then(|value| ColorChoice::from_str(&value, false).ok()).or(asked);
    }
    asked.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_choice_is_found_in_both_spellings_and_nonsense_is_left_to_the_parser() {
        let asked = |line: &str| asked_for(line.split(' ').map(OsString::from));
        assert_eq!(asked("tgm --color never config list"), ColorChoice::Never);
        assert_eq!(asked("tgm config list --color=always"), ColorChoice::Always);
        assert_eq!(asked("tgm --color blue config list"), ColorChoice::Auto);
    }
}
