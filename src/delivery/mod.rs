//! From the spool to the next hop: when, where, and what its answer means (DESIGN section 7).
//!
//! `session` hands over what it has committed through a channel of [`dispatch::Handover`];
//! [`dispatch`] schedules it, [`branch`] says what becomes of its recipients, [`attempt`] finds and
//! asks a next hop, [`maildir`] writes files.

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
