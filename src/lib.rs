//! Fingerpost: an SMTP routing proxy for one mail domain that lives on two mail systems.
//!
//! A message walks a straight line, and so does the code: `listener`, `session`, `resolve` with `directory`, `routing`,
//! then `delivery` at once or `spool` and `delivery` later, then `report`. A room knows only rooms that stand above it in
//! the list below; `tests/operation/structure.rs` has the table, and holds every line to it. docs/architecture.md has the
//! picture, and what to read first for a usual change. `DESIGN` in a comment is docs/design.md.
//!
//! # From RCPT to the wire and back
//!
//! One recipient in cut-through, step by step. What is read off the wire becomes an `Outcome`, which goes back up as it is.
//!
//! ```text
//! session::rcpt               Transaction::answer     RCPTs that are decided are asked about in one go
//! delivery::cut_through       Branches::ask           each in its branch: one send connector; by MX, one domain
//! delivery::branch            Branch::ask             sends MAIL and RCPT, or the further RCPT
//! delivery::attempt::walk     WayOut::walk            which next hops there are; waits for a connection slot
//!                             Walk::next              from hop to hop until a connection is ready for MAIL: a Checkout
//! delivery::attempt           Checkout::envelope      what of MAIL and RCPT fits what the next hop offers
//!                             Conversation::envelope  the lines on the wire, the replies off it
//! delivery::refusal           read::read              whom a refusal is about, by which row of the table
//! delivery::outcome           Outcome                 what became of the recipient: the same type all the way back
//! session::rcpt               Transaction::take       accepted, refused, unknown (Memory::judge), or out of reach
//!                                                     (unreachable::policy): the reply to RCPT
//! ```
//!
//! The message, when it is there: `session::loop_check` has looked for loops at its header section, and `session::streaming`
//! has handed on a large one as it came.
//!
//! ```text
//! session::end_of_data        end                     after the client's dot
//! delivery::cut_through       Branches::send          all branches side by side
//! delivery::branch            Branch::send            the envelope again where it was taken back, then
//!                                                     Checkout::data, ::piece, ::end, ::verdict: an Outcome each
//! delivery::final_reply       final_reply             one answer from all outcomes, and what is queued or reported
//! session::commit             commit, or delivered    what is left is durable; then the reply
//! ```
//!
//! The queue goes the same way, for nobody who waits.
//!
//! ```text
//! delivery::dispatch          run::run                the way is decided again
//! delivery::branch            Outbound::send          a QueuedBranch: a Branch with its content on disk
//!                             Branch::send            as above: WayOut::walk, Walk::next, Checkout, Outcome
//! delivery::dispatch          commit::commit          settle::settle: what the queue keeps, what the
//!                                                     sender hears; then it is durable
//! ```

// Types and rules, without I/O.
pub mod time; // points in time, and the clocks of the program
pub mod fast_map; // hash maps for what is looked up for every message
pub mod keyed_hash; // hashes of what strangers choose
pub mod one_client; // which addresses count as one client
pub mod smtp; // commands, replies, addresses; both sides of a conversation as state machines
pub mod message; // header section, trace fields, stamps, queue ids
pub mod lookup; // what a directory is asked, and what it answers
pub mod guesses; // passwords that clients try
pub mod routing; // the decision: where a recipient goes, and why

pub mod obstacle; // what keeps the program from starting
pub mod give_back; // memory goes back to the system
pub mod private; // files that only we can read
mod printable; // strangers' text made fit to be shown
mod patience; // waiting with a limit
pub mod net; // TCP sockets
pub mod keys; // the keys that stamps are signed with

pub mod config; // the configuration, checked, with all defaults
pub mod metrics; // every metric
pub mod state; // what outlives a restart besides the spool
pub mod trace; // the message trace
pub mod tls; // certificates, ours and theirs
pub mod descriptors; // how many connections there may be

// The path of a message.
pub mod directory; // who has a mailbox: LDAP, files, mail servers that are asked
pub mod resolve; // asks the directories what a decision wants to know
pub mod in_force; // one configuration and all that was built from it
pub mod reload; // takes another configuration over
pub mod spool; // what is durable: queued messages and what became of them
pub mod pressure; // mail is turned away while something is short
pub mod strangers; // who looks for addresses, and what is told of it
pub mod report; // what the sender is told: delivery status notifications
pub mod delivery; // next hops: cut-through, and the queue
pub mod session; // one client's session
pub mod listener; // sockets, limits, which receive connector

pub mod admin; // the API, the page, the probes, `/metrics`
pub mod run; // the wiring of a node
pub mod cli; // the commands

#[cfg(test)]
mod formats;
