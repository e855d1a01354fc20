//! SMTP AUTH both ways: swaks and Python against a users file and against slapd; us against a Postfix with Cyrus SASL.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test ends where the ground it stands on is gone")]

mod support;
#[path = "tls/ground.rs"]
mod ground;

#[path = "auth/inbound.rs"]
mod inbound;
#[path = "auth/outbound.rs"]
mod outbound;
#[path = "auth/guesses.rs"]
mod guesses;
#[path = "auth/under_way.rs"]
mod under_way;
