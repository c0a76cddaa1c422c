//! The `populate` program.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Number of mimalloc's option `purge_delay`: milliseconds until free pages go back to the system.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
/// Never.
const NEVER: std::ffi::c_long = -1;

fn main() -> ExitCode {
    keep_pages();
    cli::main()
}

/// Keeps the pages of buffers that were freed. Each step of a training asks for the same ones again,
/// and the system, which zeroes every page that it gives, took an eighth of the time.
#[expect(unsafe_code, reason = "mimalloc's options are set by a function of C")]
fn keep_pages() {
    // SAFETY: the option exists and takes any number; no other thread runs yet.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, NEVER) }
}
