//! Where mail goes: the table of decisions, properties of it, whole journeys and loops.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends where what it stands on is gone"
)]

mod journeys;
mod loops;
mod properties;
mod routes;
