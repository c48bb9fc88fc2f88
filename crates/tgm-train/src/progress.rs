//! What a person sees while something runs: a bar on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::color;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Whether lines go through `tracing` instead: with `--log-format json`.
static MESSAGES: AtomicBool = AtomicBool::new(false);

/// From now on lines are messages, and there are no bars.
pub fn as_messages() {
    MESSAGES.store(true, Ordering::Relaxed);
}

/// Writes a line for people to standard error, or a message with [`as_messages`].
pub fn say(line: &str) {
    if MESSAGES.load(Ordering::Relaxed) {
        line.lines().for_each(|line| tracing::info!("{line}"));
    } else {
        eprintln!("{line}");
    }
}

/// Without a terminal, how often a line says how far it is, unless another one was written.
const QUIET: Duration = Duration::from_secs(20);

/// Progress on standard error.
pub struct Progress {
    bar: ProgressBar,
    terminal: bool,
    /// When there was a line last.
    said: Mutex<Instant>,
}

impl Progress {
    /// A bar of `length` steps behind `title`.
    pub fn new(title: &str, length: u64) -> Self {
        let terminal = std::io::stderr().is_terminal() && !MESSAGES.load(Ordering::Relaxed);
        let bar = ProgressBar::with_draw_target(
            Some(length),
            if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() },
        );
        let bar_style = if color::on_stderr() { ":.cyan/dim" } else { "" };
        let template = format!("{{prefix}} {{wide_bar{bar_style}}} {{pos}}/{{len}} {{eta}} {{msg}}");
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style);
        }
        bar.set_prefix(title.to_string());
        Self { bar, terminal, said: Mutex::new(Instant::now()) }
    }

    /// Moves the bar.
    pub fn set(&self, position: u64) {
        self.bar.set_position(position);
        if !self.terminal && self.is_due() {
            say(&format!("{} {position}/{}", self.bar.prefix(), self.bar.length().unwrap_or(0)));
        }
    }

    /// Whether nothing was said for a while; from now on something was.
    fn is_due(&self) -> bool {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let due = said.elapsed() >= QUIET;
        if due {
            *said = Instant::now();
        }
        due
    }

    /// Writes beside the bar what is of interest now.
    pub fn message(&self, message: impl Into<String>) {
        self.bar.set_message(message.into());
    }

    /// Writes a line above the bar.
    pub fn line(&self, line: &str) {
        if self.terminal {
            self.bar.println(line);
        } else {
            *self.said.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            say(line);
        }
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
