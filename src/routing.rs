//! Decides where each recipient goes, and why. Pure: time and the directories' answers are arguments.
//!
//! [`decide::decide`] is called until it has all it needs; `crate::resolve` is the loop around it. [`table::Table`] is the
//! part of the configuration that decisions depend on.

pub mod accepted_domain;
pub mod address_space;
mod ask;
pub mod decide;
pub mod doubt;
mod first_refused;
pub mod loops;
mod order;
mod ranks;
pub mod recently_good;
pub mod relay_memory;
mod source_route;
pub mod table;
mod target;
pub mod verdict;
mod walk;
