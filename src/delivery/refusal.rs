//! Interprets next hops' replies (DESIGN section 7), by a table of what servers really send.
//!
//! `attempt` calls [`read::read`] for every reply and acts on the result. `attempt` itself handles broken connections.

pub mod read;
pub mod row;
pub mod rows;
pub mod words;

/// The step of the conversation that a reply belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The connection.
    Greeting,
    /// EHLO, or HELO after it.
    Ehlo,
    StartTls,
    /// AUTH up to the last reply.
    Auth,
    Mail,
    Rcpt,
    Data,
    /// The end of data, or the last BDAT.
    Dot,
}

/// Whether an operator has to look at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alert {
    /// The fault is temporary.
    No,
    /// The fault will not go away by itself.
    Yes,
}

/// Whether a 2xx or 3xx is the code with which this step continues (RFC 5321 4.3.2).
fn belongs(step: Step, code: u16) -> bool {
    match step {
        Step::Data => code == 354,
        Step::Auth => code == 334 || code == 235,
        _ => (200..300).contains(&code),
    }
}
