//! Options that several benches have.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use tgm_ops::Precision;

/// How to measure, and where to write it.
#[derive(clap::Args, Debug)]
pub(super) struct Options {
    /// Rounds, in each of which every program does its work once.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// Measure the peers, too: in the Python that TGM_PEERS_PYTHON names, else in a virtual environment that is made once.
    #[arg(long)]
    pub peers: bool,
    /// Write the rows to a file.
    #[arg(long, value_name = "FILE", value_parser = crate::commands::result_file)]
    pub json: Option<PathBuf>,
}

/// How many threads each program may use.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(super) struct Threads {
    /// Threads of each program. Default: all.
    #[arg(long)]
    threads: Option<usize>,
}

impl Threads {
    pub(super) fn count(self) -> usize {
        self.threads.unwrap_or_else(tgm_train::environment::cores)
    }
}

/// Reads a precision by its name.
pub(super) fn precision() -> impl TypedValueParser<Value = Precision> {
    PossibleValuesParser::new(Precision::ALL.map(Precision::name)).map(|name| {
        let named = Precision::ALL.into_iter().find(|precision| precision.name() == name);
        named.expect("the names are those of all precisions")
    })
}

/// The precisions that the processor has fast instructions for: what one would train in here for speed.
pub(super) fn fast_precisions() -> impl Iterator<Item = Precision> {
    Precision::ALL.into_iter().filter(|precision| precision.is_fast())
}
