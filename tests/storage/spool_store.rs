//! What every spool promises, whichever store is behind the trait: `docs/decisions/0005-segmented-spool.md`.
//!
//! A new store is added to [`fixture::STORES`] and has to pass everything here.

pub(crate) mod fixture;
mod journal;
mod workload;

mod compaction;
mod cut;
mod damage;
mod faults;
mod formats;
mod kill;
mod model;
mod offline;
mod reserve;
mod speed;
mod start;
mod undecodable;
mod unreadable;
