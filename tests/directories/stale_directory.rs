//! Doubt is temporary (DESIGN section 5): the real program, an OpenLDAP that lags behind the administrator, and next
//! hops that know who moved.

mod admin_mistakes;
mod lagging_controller;
mod moved_user;
mod other_organization;
mod recently_good_speed;
