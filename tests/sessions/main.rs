//! Sessions: what a client says and hears, over any line, whoever it is.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends where what it stands on is gone"
)]

mod attacks;
mod auth;
mod connection_slots;
mod cut_through_limits;
mod dialogs;
mod listener;
mod proxy_protocol;
mod session;
mod slow_but_healthy;
mod smuggling;
mod smuggling_through;
mod strangers;
mod tls;
mod turns;
