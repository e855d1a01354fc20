//! `fingerpost`: reads its arguments, does what they say, and ends with 0 (done), 1 (the answer is no) or 2 (usage or
//! configuration). Everything else is in the library; `cli` has a file a command.

use std::process::ExitCode;

use clap::Parser;
use fingerpost::cli::{self, Arguments, Outcome};

/// A message takes some hundred small allocations, on any thread (docs/performance.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // First of all: with two providers compiled in by accident rustls would have none to choose.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(workers()).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&anyhow::anyhow!("cannot start threads: {error}")),
    };
    match runtime.block_on(cli::execute(arguments)) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::No) => ExitCode::from(1),
        Err(error) => failed(&error),
    }
}

/// Threads that serve sessions: half of the processors. A message is little work, and workers that wake one another for
/// it spend more on that than on the message (docs/performance.md); the kernel, the log and the spool use the rest.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, |processors| processors.get().div_ceil(2))
}

fn failed(error: &anyhow::Error) -> ExitCode {
    cli::complain(error);
    ExitCode::from(2)
}
