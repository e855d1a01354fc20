//! What the next hop says, and what it means (DESIGN section 7): a table of what servers really say.
//!
//! `attempt` asks [`read::read`] about every reply it reads and acts on the answer. [`hide`] takes internal names out of a
//! next hop's words; reports call it. What a break of the connection means is `attempt`'s business.

pub mod read;
pub mod row;
pub mod rows;
pub mod words;

/// What the next hop was replying to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Our connection.
    Greeting,
    /// EHLO, or HELO after it.
    Ehlo,
    /// STARTTLS.
    StartTls,
    /// AUTH and what belongs to it, up to the last reply.
    Auth,
    Mail,
    Rcpt,
    Data,
    /// The final dot, or the last BDAT.
    Dot,
}

/// Whether somebody has to look at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alert {
    /// It passes by itself.
    No,
    /// It will not go away by itself.
    Yes,
}

/// Whether a 2xx or 3xx is what this step goes on with (RFC 5321 4.3.2).
fn belongs(step: Step, code: u16) -> bool {
    match step {
        Step::Data => code == 354,
        Step::Auth => code == 334 || code == 235,
        _ => (200..300).contains(&code),
    }
}
