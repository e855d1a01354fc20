//! What becomes of each recipient, whatever a next hop says or does: `Outbound` against scripted next hops.

mod content;
mod damaged;
mod failover;
mod health;
mod names;
mod reach;
mod replies;
mod silent;
mod sink;
mod tls;
