//! TLS on both sides: certificates that clients see, and next hops that we check.

pub mod accept;
pub mod connect;
