//! What a stranger can do to the real program, and what it costs: counts and bytes, never time.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test ends where the ground it stands on is gone")]

mod support;
#[path = "hops/town.rs"]
mod town;
#[path = "attacks/ground.rs"]
mod ground;
#[path = "support/next_hop.rs"]
mod next_hop;

#[path = "attacks/harvest.rs"]
mod harvest;
#[path = "attacks/refusals.rs"]
mod refusals;
#[path = "attacks/loops.rs"]
mod loops;
#[path = "attacks/out_of_reach.rs"]
mod out_of_reach;
