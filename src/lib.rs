//! Fingerpost: an SMTP routing proxy for one mail domain that lives on two mail systems.
//!
//! A message walks a straight line, and so does the code:
//! listener -> session -> resolve (directory) -> decide (routing) -> cut-through or spool -> delivery -> report.
//! The modules below stand in that order; words first, then the journey, then what is around it. `DESIGN` in a comment
//! is docs/design.md.

// -- words (pure) --
pub mod time;
pub mod fast_map;
pub mod keyed_hash;
pub mod smtp;
pub mod message;
pub mod recipient;

// -- the journey --
pub mod listener;
pub mod session;
pub mod directory;
pub mod routing;
pub mod resolve;
pub mod spool;
pub mod delivery;
pub mod report;

// -- around it --
pub mod config;
pub mod in_force;
pub mod keys;
pub mod tls;
pub mod net;
mod patience;
pub mod pressure;
pub mod state;
pub mod trace;
pub mod metrics;
pub mod admin;
pub mod run;
pub mod cli;
