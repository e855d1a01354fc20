//! Decides the reply to the client's end of data, and what is done for each recipient, from all outcomes (DESIGN
//! section 7, "After the dot"). Pure.
//!
//! `session` calls [`final_reply`] when every next hop has answered or will not. A recipient of an SMTP branch has its
//! branch's reply, one of an LMTP branch its own. Recipients that loop are not considered: a loop is reported whenever
//! the message is accepted.

use super::outcome::{Class, Outcome};
use super::unreachable::Unreachable;

/// What is done for a recipient of an accepted message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Nothing: it was delivered.
    Nothing,
    /// It is queued before the 250.
    Queue,
    /// A report about it is made durable before the 250.
    Report,
}

/// The result for one recipient without regard to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Alone {
    Accepted,
    /// 4xx.
    Deferred,
    /// 5xx.
    Refused,
    /// Nothing was sent to a next hop; the queue will do it.
    Queued,
}

impl Alone {
    /// `otherwise`: what to do if no next hop can be used. `None`: its connector queues.
    fn of(outcome: Option<&Outcome>, otherwise: Unreachable) -> Self {
        let Some(outcome) = outcome else { return Self::Queued };
        match (outcome.class, otherwise) {
            (Class::Accepted, _) => Self::Accepted,
            (Class::Refused | Class::UnknownRecipient, _) => Self::Refused,
            (Class::LeftToQueue, _) | (Class::Unreachable, Unreachable::Queue) => Self::Queued,
            (Class::Unreachable, Unreachable::Defer) => Self::Deferred,
            (Class::Deferred | Class::TooManyRecipients | Class::InDoubt, _) => Self::Deferred,
        }
    }
}

/// What is done for each recipient of an accepted message, in order.
///
/// # Errors
/// The message is refused: the index of the recipient whose outcome is the client's reply.
pub fn final_reply(outcomes: &[(Option<&Outcome>, Unreachable)]) -> Result<Vec<Then>, usize> {
    let alone: Vec<Alone> = outcomes.iter().map(|(outcome, otherwise)| Alone::of(*outcome, *otherwise)).collect();
    let first = |which: Alone| alone.iter().position(|one| *one == which);
    if first(Alone::Accepted).is_none()
        // Branches that queue do not count as acceptance: if every other one refused the content, the message is
        // refused.
        && let Some(answer) = first(Alone::Deferred).or(first(Alone::Refused))
    {
        return Err(answer);
    }
    let then = |one: &Alone| match one {
        Alone::Accepted => Then::Nothing,
        Alone::Deferred | Alone::Queued => Then::Queue,
        Alone::Refused => Then::Report,
    };
    Ok(alone.iter().map(then).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::reply::{Enhanced, Reply};

    const BUSY: Reply = Reply::fixed(452, Enhanced(4, 3, 1), "full");
    const SPAM: Reply = Reply::fixed(554, Enhanced(5, 7, 1), "spam");

    /// `q`: its connector queues; `u` and `d`: unreachable, to be queued or deferred.
    fn outcome(letter: char) -> (Option<Outcome>, Unreachable) {
        let ours = |class, reply| Some(Outcome::ours(class, reply));
        let outcome = match letter {
            'a' => ours(Class::Accepted, BUSY),
            'b' => ours(Class::Deferred, BUSY),
            'l' => ours(Class::InDoubt, BUSY),
            's' => ours(Class::Refused, SPAM),
            'x' => ours(Class::UnknownRecipient, SPAM),
            'c' => ours(Class::LeftToQueue, BUSY),
            'u' | 'd' => ours(Class::Unreachable, BUSY),
            _ => None,
        };
        (outcome, if letter == 'd' { Unreachable::Defer } else { Unreachable::Queue })
    }

    fn letters(then: &[Then]) -> String {
        let letter = |then: &Then| match then {
            Then::Nothing => '-',
            Then::Queue => 'q',
            Then::Report => 'r',
        };
        then.iter().map(letter).collect()
    }

    #[test]
    fn every_mix_has_one_answer() {
        for (outcomes, expected) in [
            // One branch: its reply is ours.
            ("a", Ok("-")),
            ("aaa", Ok("---")),
            ("b", Err(0)),
            ("l", Err(0)),
            ("s", Err(0)),
            ("x", Err(0)),
            ("ss", Err(0)),
            ("q", Ok("q")),
            ("qqq", Ok("qqq")),
            ("u", Ok("q")),
            ("d", Err(0)),
            ("c", Ok("q")),
            // Any accepted: 250; another's 4xx or unknown outcome is queued, its 5xx reported.
            ("ab", Ok("-q")),
            ("al", Ok("-q")),
            ("la", Ok("q-")),
            ("as", Ok("-r")),
            ("sa", Ok("r-")),
            ("ax", Ok("-r")),
            ("aq", Ok("-q")),
            ("ad", Ok("-q")),
            ("absqcu", Ok("-qrqqq")),
            ("sbqla", Ok("rqqq-")),
            // None accepted and any 4xx: that 4xx.
            ("bs", Err(0)),
            ("sb", Err(1)),
            ("sl", Err(1)),
            ("lb", Err(0)),
            ("sd", Err(1)),
            // None accepted, only 5xx: the first.
            ("sx", Err(0)),
            ("xs", Err(0)),
            // Branches that queue do not count as acceptance.
            ("sq", Err(0)),
            ("qs", Err(1)),
            ("us", Err(1)),
            ("qb", Err(1)),
            ("qsb", Err(2)),
        ] {
            let all: Vec<_> = outcomes.chars().map(outcome).collect();
            let all: Vec<_> = all.iter().map(|(outcome, otherwise)| (outcome.as_ref(), *otherwise)).collect();
            assert_eq!(
                final_reply(&all).as_deref().map(letters).map_err(|at| *at),
                expected.map(str::to_owned),
                "{outcomes}"
            );
        }
    }
}
