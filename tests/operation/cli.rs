//! The command line as scripts see it: exit codes and outputs, with and without a running server, and the demo.

mod cluster;
mod demo;
mod directory;
mod export;
mod installation;
mod server;
mod without_server;
