//! TLS as others see it: certificates by name, renewal, client certificates in and out, next hops that are not who they
//! should be. The other side is OpenSSL, Python and Postfix.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test ends where the ground it stands on is gone")]

mod support;
#[path = "tls/ground.rs"]
mod ground;

#[path = "tls/certificates.rs"]
mod certificates;
#[path = "tls/check.rs"]
mod check;
#[path = "tls/clients.rs"]
mod clients;
#[path = "tls/tenants.rs"]
mod tenants;
#[path = "tls/next_hops.rs"]
mod next_hops;
#[path = "tls/places.rs"]
mod places;
