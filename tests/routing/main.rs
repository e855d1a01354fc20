//! Where mail goes: the table of decisions, worlds at random, whole journeys and loops.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends where what it stands on is gone"
)]

mod journeys;
mod loops;
mod routes;
mod routing_worlds;
