//! What every spool promises, whichever store is behind the trait: `docs/decisions/0005-segmented-spool.md`.
//!
//! A new store on a disk is added to [`fixture::STORES`] and has to pass everything here. What does not depend on a disk
//! ([`model`], [`contract`]) holds for the queue that nodes share too, and is run on it in `cluster/contract.rs`.

pub(crate) mod fixture;
mod journal;
mod workload;

mod compaction;
pub(crate) mod contract;
mod cut;
mod damage;
mod faults;
mod formats;
mod kill;
pub(crate) mod model;
mod offline;
mod reserve;
mod speed;
mod start;
mod undecodable;
mod unreadable;
