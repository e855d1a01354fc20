//! Next hops: what they say and do, and what becomes of the mail; at once and from the queue.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends where what it stands on is gone"
)]

mod cut_through;
mod hops;
mod lmtp;
mod next_hop_behaviour;
mod next_hops;
mod path_mtu;
mod queue_change;
mod queue_delivery;
mod queue_reports;
mod queue_under_way;
mod refusals;
mod xforward;
