//! `fingerpost`: parses its arguments, runs the command, and exits with 0 (done), 1 (the answer is no) or 2 (usage or
//! configuration). Everything else is in the library; `cli` has a file for each command.

use std::process::ExitCode;

use clap::Parser;
use fingerpost::cli::{self, Arguments, Outcome};

/// A message takes some hundred small allocations on different threads (docs/performance.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Called first: if two providers were compiled in by accident, rustls could not choose one.
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

/// The number of threads that serve sessions: half of the processors. A message is little work, and workers that wake
/// one another would cost more than that (docs/performance.md); the kernel, the log and the spool use the rest.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, |processors| processors.get().div_ceil(2))
}

fn failed(error: &anyhow::Error) -> ExitCode {
    cli::complain(error);
    ExitCode::from(2)
}
