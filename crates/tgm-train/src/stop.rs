//! Leaving a run when somebody asks: Ctrl-C and SIGTERM.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Whether a run was asked to end after its current step.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    requested: Arc<AtomicBool>,
    armed: Arc<AtomicBool>,
}

impl Stop {
    /// Never asks by itself: for runs inside other programs, which call [`Stop::request`].
    pub fn new() -> Self {
        Self::default()
    }

    /// Listens to Ctrl-C and SIGTERM from now on. While [armed](Stop::arm), the first one is a request and the second one
    /// leaves at once; otherwise the first one leaves at once.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn on_signals() -> Result<Self> {
        let stop = Self::default();
        let mut signals = Signals::new([SIGINT, SIGTERM]).context("cannot listen to signals")?;
        let listener = stop.clone();
        let listen = move || {
            for signal in signals.forever() {
                let armed = listener.armed.load(Ordering::SeqCst);
                if !armed || listener.requested.swap(true, Ordering::SeqCst) {
                    // Without destructors: whoever asks twice does not want to wait for them.
                    signal_hook::low_level::exit(128 + signal);
                }
                eprintln!("finishing this step, saving and leaving; once more leaves at once");
            }
        };
        std::thread::Builder::new().name("signals".into()).spawn(listen).context("cannot start a thread")?;
        Ok(stop)
    }

    /// From now on, and until the guard is dropped, there is something to finish and save.
    pub fn arm(&self) -> Armed {
        self.armed.store(true, Ordering::SeqCst);
        Armed(self.armed.clone())
    }

    /// Asks.
    pub fn request(&self) {
        self.requested.store(true, Ordering::SeqCst);
    }

    /// Whether somebody asked.
    pub fn requested(&self) -> bool {
        self.requested.load(Ordering::SeqCst)
    }
}

/// Lasts as long as a request to stop is answered by saving.
#[derive(Debug)]
pub struct Armed(Arc<AtomicBool>);

impl Drop for Armed {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}
