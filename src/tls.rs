//! TLS for both sides: our certificates, and the verification of clients' and next hops'.

pub mod accept;
pub mod authority;
pub mod connect;
pub mod serve;
mod signatures;
