//! The client's side of SMTP without a socket: reads a next hop's bytes, writes those for it.
//!
//! `delivery/attempt` drives it: [`replies`] turns bytes into replies, [`offers`] reads the reply to EHLO, [`commands`]
//! writes MAIL and RCPT, [`xforward`] writes XFORWARD, [`encode`] writes the content. `delivery` decides which
//! parameters a next hop gets and what its refusals mean.

pub mod commands;
pub mod encode;
pub mod offers;
pub mod replies;
pub mod xforward;
