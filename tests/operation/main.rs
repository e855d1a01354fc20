//! What an operator has in hands: commands, configuration, documents, reloads, metrics; and the structure of the source.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends where what it stands on is gone"
)]

mod cli;
mod configs;
mod docs;
mod kubernetes;
mod large;
mod log_reader;
mod probes;
mod prometheus;
mod reload;
mod reload_under_load;
mod structure;

/// The demo takes its usual ports if they are free when it looks: one demo at a time.
static DEMO: parking_lot::Mutex<()> = parking_lot::Mutex::new(());
