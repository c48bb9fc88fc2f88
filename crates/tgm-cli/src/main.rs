//! The `tgm` command line.

use std::process::ExitCode;

/// Freed tensors are kept for the next step: glibc would hand each one back to the system and fault it in again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    keep_freed_memory();
    tgm_cli::commands::main()
}

/// `mi_option_arena_eager_commit` and `mi_option_purge_delay` of mimalloc's `mi_option_e`, which the bindings leave out.
const ARENA_EAGER_COMMIT: libmimalloc_sys::mi_option_t = 4;
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// mimalloc, too, hands memory back after a second by default, and takes more at a time than is used. `docs/performance.md` has
/// what this does for training; every other command keeps what it once took, too. `MIMALLOC_PURGE_DELAY` and
/// `MIMALLOC_ARENA_EAGER_COMMIT` go before it.
#[allow(unsafe_code)]
extern "C" fn keep_freed_memory() {
    // SAFETY: sets numbers in mimalloc's table of options, below its length, while there is one thread.
    unsafe {
        libmimalloc_sys::mi_option_set_default(PURGE_DELAY, -1);
        libmimalloc_sys::mi_option_set_default(ARENA_EAGER_COMMIT, 0);
    }
}

/// The second option decides about memory that is taken for the first allocation, which comes before `main`.
// SAFETY: the loader calls the functions in this section, with arguments that a C function may ignore.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = keep_freed_memory;
