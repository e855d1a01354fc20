//! SMTP without sockets: the types of its commands, replies and addresses, and state machines for both sides of a
//! conversation.

pub mod address;
pub mod client;
pub mod command;
pub mod path;
pub mod data;
pub mod domain;
pub mod envelope;
pub mod extension;
pub mod hide;
pub mod line_ends;
pub mod names;
pub mod providers;
pub mod proxy_protocol;
pub mod reply;
pub mod sasl;
pub mod server;
