//! SMTP without a socket: the words, the server's and the client's side of the conversation.

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
