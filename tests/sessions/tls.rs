//! TLS as others see it: certificates by name, renewal, client certificates in and out, next hops that are not who they
//! should be. The other side is OpenSSL, Python and Postfix.

pub(crate) mod fixture;

mod certificates;
mod check;
mod clients;
mod tenants;
mod next_hops;
mod connection_slots;
