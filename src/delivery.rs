//! Delivery from the spool, or from a session, to next hops: when, where, and what their replies mean (DESIGN section
//! 7).
//!
//! `session` hands over what it has committed through a channel of [`dispatch::Handover`]; [`dispatch`] schedules
//! attempts, [`branch`] sends a part of a message, [`attempt`] finds and talks to a next hop, [`maildir`] writes files.

pub mod attempt;
pub mod branch;
pub mod final_reply;
pub(crate) mod concurrently;
pub(crate) mod cut_through;
pub mod dispatch;
pub mod dns;
pub mod health;
pub mod last_refusals;
pub mod maildir;
pub mod memory;
pub mod rcpt_in_flight;
pub mod outcome;
pub mod pool;
pub mod refusal;
pub mod refuses_everybody;
pub mod schedule;
pub mod silence;
pub mod slots;
pub(crate) mod stamping;
pub(crate) mod unknown;
pub mod unreachable;
