//! The client's side of SMTP without a socket: what is read from a next hop and what is written to it.
//!
//! `delivery/attempt` drives it: [`replies`] turns bytes into replies, [`offers`] reads what EHLO said,
//! [`commands`] writes MAIL and RCPT, [`xforward`] who the client was, [`encode`]
//! writes the content. What fits a next hop and what its refusals mean is decided in `delivery`.

pub mod commands;
pub mod encode;
pub mod offers;
pub mod replies;
pub mod xforward;
