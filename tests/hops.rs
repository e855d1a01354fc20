//! What next hops do to the whole program: refuse, misunderstand, sleep, die, change; and what the queue and the sender
//! see of it. Each case runs the real binary; the next hops are scripted ones and real Postfix.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test ends where the ground it stands on is gone")]

mod support;
#[path = "support/next_hop.rs"]
mod next_hop;
#[path = "hops/town.rs"]
mod town;

#[path = "hops/says.rs"]
mod says;
#[path = "hops/change.rs"]
mod change;
#[path = "hops/password.rs"]
mod password;
#[path = "hops/reports.rs"]
mod reports;
#[path = "hops/unknown.rs"]
mod unknown;
#[path = "hops/operator.rs"]
mod operator;
#[path = "hops/outage.rs"]
mod outage;
#[path = "hops/parameters.rs"]
mod parameters;
#[path = "hops/silent.rs"]
mod silent;
#[path = "hops/tarpit.rs"]
mod tarpit;
#[path = "hops/postfix.rs"]
mod postfix;
