//! A 250 is a promise: `fingerpost run` as a process, with its power cut, its disk slow, failing or full, its clients
//! gone, and itself stopped at a bad moment. `tests/crash.rs` kills it; `tests/spool_store` does the like to the spool
//! alone.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test ends where the ground it stands on is gone")]

#[allow(dead_code, reason = "tests/spool_store uses the rest")]
#[path = "../support/power_loss.rs"]
mod power_loss;
#[path = "../support/mod.rs"]
mod support;

mod cut;
mod fault;
mod full;
mod many;
mod outcome;
mod pressure;
mod sick;
mod slow;
mod stop;
mod world;
