//! Standard output. Its reader may close it at any time (`tgm config list | head`), which ends no work, and its disk may be full,
//! which is an error at the end. The macros here stand before those of the standard library, which would panic.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write as _};
use std::sync::OnceLock;

/// Why something could not be written.
static FAILURE: OnceLock<String> = OnceLock::new();

/// Writes to standard output; a failure is kept for [`failure`].
pub(crate) fn write(text: Arguments<'_>) {
    match std::io::stdout().lock().write_fmt(text) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => drop(FAILURE.set(error.to_string())),
        _ => {}
    }
}

/// Writes what is still held back, and says why anything could not be written, other than that nobody reads it.
pub(crate) fn failure() -> Option<&'static str> {
    match std::io::stdout().flush() {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => drop(FAILURE.set(error.to_string())),
        _ => {}
    }
    FAILURE.get().map(String::as_str)
}

macro_rules! print {
    ($($text:tt)*) => { $crate::out::write(format_args!($($text)*)) };
}

macro_rules! println {
    () => { $crate::out::write(format_args!("\n")) };
    ($($text:tt)*) => { $crate::out::write(format_args!("{}\n", format_args!($($text)*))) };
}
