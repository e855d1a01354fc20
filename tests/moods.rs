//! Real servers in all their moods, and scripted ones as Exchange, Postfix, qmail and others of the field really are:
//! what the program makes of it. Nobody is told what is not so, nobody waits for somebody else, nothing is lost.
//!
//! Everywhere `pN` are in the directory and go to the connector `primary`; all others of the domain are unresolved and go
//! to `secondary`. The comments have the numbers of the field's cases: M refusals, P slow but healthy.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test ends where the ground it stands on is gone")]

mod doubles;
mod support;
#[path = "support/next_hop.rs"]
mod next_hop;
#[path = "hops/town.rs"]
mod town;
#[path = "cut_through/ground.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod ground;
#[path = "path_mtu/network.rs"]
mod network;

#[path = "moods/place.rs"]
mod place;
#[path = "moods/postfix_refuses.rs"]
mod postfix_refuses;
#[path = "moods/postfix_slows.rs"]
mod postfix_slows;
#[path = "moods/dovecot.rs"]
mod dovecot;
#[path = "moods/kinds.rs"]
mod kinds;
#[path = "moods/refusals.rs"]
mod refusals;
#[path = "moods/dot.rs"]
mod dot;
#[path = "moods/exchange.rs"]
mod exchange;
#[path = "moods/wan.rs"]
mod wan;
#[path = "moods/pace.rs"]
mod pace;
