//! Doubt is temporary (DESIGN section 5): the real program, an OpenLDAP that lags behind the administrator, and next
//! hops that know who moved.

mod controllers;
mod journey;
mod mistakes;
mod other_side;
mod speed;
