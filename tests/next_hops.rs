//! What becomes of each recipient, whatever a next hop says or does: `Outbound` against scripted next hops.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

#[path = "support/letter.rs"]
mod letter;
#[path = "support/next_hop.rs"]
mod next_hop;
#[path = "next_hops/content.rs"]
mod content;
#[path = "next_hops/damaged.rs"]
mod damaged;
#[path = "next_hops/failover.rs"]
mod failover;
#[path = "next_hops/health.rs"]
mod health;
#[path = "next_hops/names.rs"]
mod names;
#[path = "next_hops/reach.rs"]
mod reach;
#[path = "next_hops/replies.rs"]
mod replies;
#[path = "next_hops/silent.rs"]
mod silent;
#[path = "next_hops/sink.rs"]
mod sink;
#[path = "next_hops/tls.rs"]
mod tls;
