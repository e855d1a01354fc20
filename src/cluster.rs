//! Several nodes with one queue: a spool in PostgreSQL (docs/cluster.md, DESIGN section 11).
//!
//! The parts: [`database`] (connections), [`schema`] (its tables, by number), `settings` (what it must be like), [`epoch`] (a node's life, from joining
//! until its rows are given to others) with `node_number`, `ids` and `draining`, [`timelines`] (which primary is believed), [`ClusterSpool`] (what sessions and delivery use), `committer` with
//! [`batch`] (group commit, and transactions whose outcome is unknown), `contents` (bodies), `sweep` (takes over the
//! mail of nodes that are gone), [`living`] with [`census`] (which nodes live, and the gauges that one exports for all),
//! [`evidence`] and `secrets` (what nodes know together), [`state`] (what a node has in memory of its own mail; pure).
//! For an operator: [`status`] (all of it in one look), [`listing`] (the mail of all nodes), [`requests`] (what is to be
//! done with that of another), [`import`] and [`export`] (mail of a node's own spool) with [`moving`] and [`stopped`].

mod applied;
pub mod batch;
pub mod census;
mod committer;
mod contents;
pub mod database;
pub mod directory_reads;
pub mod draining;
pub mod epoch;
pub mod evidence;
pub mod export;
pub mod ids;
pub mod import;
pub mod listing;
pub mod living;
pub mod moving;
mod node_number;
pub mod requests;
pub mod schema;
mod secrets;
pub(crate) mod settings;
mod shared;
mod spool;
pub mod state;
pub mod status;
pub mod stopped;
mod sweep;
pub mod timelines;
mod unwritten;

pub use spool::ClusterSpool;
