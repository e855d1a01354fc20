//! TLS on both sides: certificates that clients see and show, and next hops that we check.

pub mod accept;
pub mod authority;
pub mod connect;
pub mod serve;
mod signatures;
