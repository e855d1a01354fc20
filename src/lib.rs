//! Fingerpost: an SMTP routing proxy for one mail domain that lives on two mail systems.
//!
//! A message walks a straight line, and so does the code:
//! listener -> session -> resolve (directory) -> decide (routing) -> cut-through or spool -> delivery -> report.
//! The modules below stand in that order; words first, then the journey, then what is around it. `DESIGN` in a comment
//! is docs/design.md.
//!
//! # From RCPT to the wire and back
//!
//! One recipient in cut-through, step by step. What is read off the wire becomes an `Outcome`, which goes back up as it is.
//!
//! ```text
//! session::rcpt               Transaction::answer     RCPTs that are decided are asked about in one go
//! delivery::cut_through       Branches::ask           each in its branch: one send connector; by MX, one domain
//! delivery::branch            Branch::ask             says the envelope, or the further RCPT
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
//! session::end_of_data             end                     after the client's dot
//! delivery::cut_through       Branches::send          all branches side by side
//! delivery::branch            Branch::send            the envelope again where it was taken back, then
//!                                                     Checkout::data, ::piece, ::end, ::verdict: an Outcome each
//! delivery::final_reply       final_reply                 one answer from all outcomes, and what is queued or reported
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

// -- words (pure) --
pub mod time;
pub mod fast_map;
pub mod keyed_hash;
pub mod one_client;
pub mod smtp;
pub mod message;
pub mod lookup;
pub mod guesses;

// -- the journey --
pub mod listener;
pub mod session;
pub mod directory;
pub mod routing;
pub mod resolve;
pub mod spool;
pub mod delivery;
pub mod report;
pub mod strangers;

// -- around it --
pub mod config;
pub mod reload;
pub mod in_force;
pub mod keys;
pub mod tls;
pub mod net;
mod patience;
pub mod descriptors;
pub mod give_back;
pub mod obstacle;
mod printable;
pub mod private;
pub mod pressure;
pub mod state;
pub mod trace;
pub mod metrics;
pub mod admin;
pub mod run;
pub mod cli;

#[cfg(test)]
mod formats;
