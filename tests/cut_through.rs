//! Cut-through as a mail administrator reads DESIGN sections 5 to 7: the real binary between real senders and next hops
//! that refuse, stall, drop, freeze and recover; each test looks at what the sender was told, at the copies on each
//! side, at the queue and at the reports.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test ends where the ground it stands on is gone")]

mod support;
#[path = "support/next_hop.rs"]
mod next_hop;
#[path = "hops/town.rs"]
mod town;
#[path = "cut_through/ground.rs"]
mod ground;

#[path = "cut_through/table.rs"]
mod table;
#[path = "cut_through/words.rs"]
mod words;
#[path = "cut_through/known.rs"]
mod known;
#[path = "cut_through/many.rs"]
mod many;
#[path = "cut_through/parameters.rs"]
mod parameters;
#[path = "cut_through/loops.rs"]
mod loops;
#[path = "cut_through/lending.rs"]
mod lending;
#[path = "cut_through/standby.rs"]
mod standby;
#[path = "cut_through/errors.rs"]
mod errors;
#[path = "cut_through/neighbours.rs"]
mod neighbours;
#[path = "cut_through/large.rs"]
mod large;
#[path = "cut_through/client.rs"]
mod client;
#[path = "cut_through/postfix.rs"]
mod postfix;
