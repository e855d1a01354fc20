//! Fingerpost: an SMTP routing proxy for one mail domain that lives on two mail systems.
//!
//! A message takes a straight path, and so does the code: `listener`, `session`, `resolve` with `directory`, `routing`,
//! then `delivery` at once or `spool` and `delivery` later, then `report`. A room (a module directly in `src`) uses
//! only rooms above it in the list below; `tests/operation/structure.rs` has the table and checks it. docs/architecture.md
//! has the picture, and what to read first for a usual change. docs/glossary.md has our own terms. `DESIGN` in a
//! comment is docs/design.md.
//!
//! # From RCPT to the wire and back
//!
//! One recipient in cut-through, step by step. A reply from the wire becomes an `Outcome`, which is returned unchanged
//! through all callers.
//!
//! ```text
//! session::rcpt               Transaction::answer     RCPTs that are routed are sent to next hops together
//! delivery::cut_through       Branches::ask           each in its branch: one send connector; by MX, one domain
//! delivery::branch            Branch::ask             sends MAIL and RCPT, or the further RCPT
//! delivery::attempt::walk     WayOut::walk            lists the next hops; waits for a connection slot
//!                             Walk::next              tries hosts until a connection is ready for MAIL: a Checkout
//! delivery::attempt           Checkout::envelope      MAIL and RCPT with the parameters that the next hop offers
//!                             Conversation::envelope  writes the lines, reads the replies
//! delivery::refusal           read::read              whom a refusal concerns, by the table of refusals
//! delivery::outcome           Outcome                 the recipient's outcome: the same type all the way back
//! session::rcpt               Transaction::take       accepted, refused, unknown (Memory::judge), or unreachable
//!                                                     (unreachable::policy): the reply to RCPT
//! ```
//!
//! The message, when it is complete: `session::loop_check` has checked its header section for loops, and
//! `session::streaming` has sent on a large one as it came.
//!
//! ```text
//! session::end_of_data        end                     after the client's end of data
//! delivery::cut_through       Branches::send          all branches concurrently
//! delivery::branch            Branch::send            the envelope again where it was aborted, then
//!                                                     Checkout::data, ::piece, ::end, ::verdict: an Outcome each
//! delivery::final_reply       final_reply             one reply from all outcomes, and what is queued or reported
//! session::commit             commit, or delivered    makes durable what is left; then the reply
//! ```
//!
//! The queue takes the same path, without a waiting client.
//!
//! ```text
//! delivery::dispatch          run::run                routes again
//! delivery::branch            Outbound::send          a QueuedBranch: a Branch with its content on disk
//!                             Branch::send            as above: WayOut::walk, Walk::next, Checkout, Outcome
//! delivery::dispatch          commit::commit          settle::settle: new states, and what the sender
//!                                                     gets as a report; then it is durable
//! ```

// Types and rules, without I/O.
pub mod time; // points in time, and the clocks of the program
pub mod fast_map; // fast hash maps for lookups
pub mod keyed_hash; // hashes of values that strangers choose
pub mod one_client; // which addresses count as one client
pub mod share; // a node's share of limits that nodes have together
pub mod smtp; // commands, replies, addresses; both sides of a conversation as state machines
pub mod message; // header section, trace fields, stamps, queue ids
pub mod lookup; // questions to directories, and their answers
pub mod guesses; // limits on guessing passwords
pub mod routing; // the decision: where a recipient goes, and why

// Utilities.
pub mod obstacle; // what prevents a start, and the remedy
pub mod give_back; // returns memory to the system
pub mod private; // files with access for this user only
mod printable; // makes strangers' text safe to display
mod patience; // time limits
pub mod net; // TCP sockets
pub mod keys; // the keys that stamps are signed with

// What operators configure and see.
pub mod config; // the configuration, checked, with all defaults
pub mod metrics; // every metric
pub mod state; // what survives a restart besides the spool
pub mod trace; // the message trace
pub mod tls; // certificates, ours and theirs
pub mod descriptors; // how many connections the descriptors allow

// The path of a message.
pub mod directory; // who has a mailbox: LDAP, files, mail servers
pub mod resolve; // asks the directories the questions of a decision
pub mod in_force; // one configuration and everything built from it
pub mod reload; // puts a changed configuration in force
pub mod spool; // durable storage: queued messages and outcomes
pub mod cluster; // a spool that several nodes share, in PostgreSQL
pub mod pressure; // back-pressure: refuses mail while resources are short
pub mod strangers; // detects harvesting; summaries of strangers' events
pub mod report; // delivery status notifications
pub mod delivery; // next hops: cut-through, and the queue
pub mod session; // one client's session
pub mod listener; // sockets, limits, which receive connector

// The interfaces, and the program as a whole.
pub mod admin; // the API, the page, the probes, `/metrics`
pub mod run; // puts a node together
pub mod cli; // the commands

#[cfg(test)]
mod formats;
