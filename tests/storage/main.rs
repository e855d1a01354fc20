//! What was accepted stays: the spool, power cuts, kill -9, full and sick disks, clocks.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends where what it stands on is gone"
)]

mod clock;
mod cluster;
mod crash;
mod postgres;
mod power;
mod queue_crash;
mod spool_store;
mod state_dir;
