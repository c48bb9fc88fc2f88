//! The `tgm` command line.

use std::process::ExitCode;

/// Freed tensors are kept for the next step: glibc would hand each one back to the system and fault it in again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    tgm_train::commands::main()
}
