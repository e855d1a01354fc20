//! Doubt is temporary (DESIGN section 5): the real program, an OpenLDAP that lags behind the administrator, and next
//! hops that know who moved.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test ends where the ground it stands on is gone")]

mod support;
#[path = "support/next_hop.rs"]
mod next_hop;
#[path = "hops/town.rs"]
mod town;

#[path = "doubt/controllers.rs"]
mod controllers;
#[path = "doubt/journey.rs"]
mod journey;
#[path = "doubt/mistakes.rs"]
mod mistakes;
#[path = "doubt/other_side.rs"]
mod other_side;
#[path = "doubt/speed.rs"]
mod speed;
