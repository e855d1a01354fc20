//! The command line as scripts see it: exit codes and outputs, with and without a running server, and the demo.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "cli/demo.rs"]
mod demo;
#[path = "cli/directory.rs"]
mod directory;
#[path = "cli/export.rs"]
mod export;
#[path = "cli/house.rs"]
mod house;
#[path = "cli/server.rs"]
mod server;
#[path = "cli/without_server.rs"]
mod without_server;
