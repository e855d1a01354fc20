//! Cut-through as a mail administrator reads DESIGN sections 5 to 7: the real binary between real senders and next hops
//! that refuse, stall, drop, freeze and recover; each test looks at what the sender was told, at the copies on each
//! side, at the queue and at the reports.

pub(crate) mod fixture;

mod table;
mod words;
mod known;
mod many;
mod parameters;
mod loops;
mod connection_checkout;
mod standby;
mod errors;
mod neighbours;
mod large;
mod client;
mod postfix;
