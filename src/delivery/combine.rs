//! What the sender is told after the dot, and what is done for each recipient, from what became of all of them
//! (DESIGN section 7, "After the dot"). Pure.
//!
//! `session::ending` calls [`combine`] when every next hop has answered or will not. A recipient of an SMTP
//! branch has its branch's reply, one of an LMTP branch its own. Who loops is not here: a loop is reported whenever
//! the message is accepted.

use crate::smtp::reply::Reply;

/// What became of one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The next hop has it.
    Accepted,
    /// The next hop's 4xx, or ours because nobody knows what became of it.
    Deferred(Reply),
    /// The next hop's 5xx, or ours for what it cannot take.
    Refused(Reply),
    /// Nothing was sent to a next hop, and the queue will: its connector queues, its next hop is out of reach, or it was
    /// cut loose from the others.
    Queued,
}

/// What the sender is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// 250, once all that [`Then`] asks for is durable.
    Accepted,
    /// This; nothing is kept.
    Refused(Reply),
}

/// What is done for one recipient of a message that is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Nothing: it has been delivered.
    Nothing,
    /// It is queued, before the 250.
    Queue,
    /// The sender gets a report about it, durable before the 250.
    Report,
}

/// The reply, and what follows for each recipient in the order of `outcomes`; nothing follows where it is refused.
#[must_use]
pub fn combine(outcomes: &[Outcome]) -> (Told, Vec<Then>) {
    let accepted = outcomes.contains(&Outcome::Accepted);
    let all_queued = outcomes.iter().all(|outcome| *outcome == Outcome::Queued);
    if accepted || all_queued {
        return (Told::Accepted, outcomes.iter().map(then).collect());
    }
    let deferred = outcomes.iter().find_map(|outcome| match outcome {
        Outcome::Deferred(reply) => Some(reply),
        _ => None,
    });
    let refused = outcomes.iter().find_map(|outcome| match outcome {
        Outcome::Refused(reply) => Some(reply),
        _ => None,
    });
    // Branches that queue do not count as acceptance: if every other one refused the content, so do we.
    match deferred.or(refused) {
        Some(reply) => (Told::Refused(reply.clone()), Vec::new()),
        None => (Told::Accepted, outcomes.iter().map(then).collect()),
    }
}

fn then(outcome: &Outcome) -> Then {
    match outcome {
        Outcome::Accepted => Then::Nothing,
        Outcome::Deferred(_) | Outcome::Queued => Then::Queue,
        Outcome::Refused(_) => Then::Report,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::reply::Enhanced;

    const BUSY: Reply = Reply::fixed(452, Enhanced(4, 3, 1), "full");
    const LOST: Reply = Reply::fixed(451, Enhanced(4, 4, 2), "no answer after the dot");
    const SPAM: Reply = Reply::fixed(554, Enhanced(5, 7, 1), "spam");
    const VIRUS: Reply = Reply::fixed(554, Enhanced(5, 6, 0), "virus");

    fn outcome(letter: char) -> Outcome {
        match letter {
            'a' => Outcome::Accepted,
            'b' => Outcome::Deferred(BUSY),
            'l' => Outcome::Deferred(LOST),
            's' => Outcome::Refused(SPAM),
            'v' => Outcome::Refused(VIRUS),
            _ => Outcome::Queued,
        }
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
        let refused = |reply: Reply| (Told::Refused(reply), "");
        for (outcomes, expected) in [
            // One branch: its reply is ours.
            ("a", (Told::Accepted, "-")),
            ("aaa", (Told::Accepted, "---")),
            ("b", refused(BUSY)),
            ("l", refused(LOST)),
            ("s", refused(SPAM)),
            ("ss", refused(SPAM)),
            ("q", (Told::Accepted, "q")),
            ("qqq", (Told::Accepted, "qqq")),
            // Any accepted: 250; another's 4xx or unknown outcome is queued, its 5xx reported.
            ("ab", (Told::Accepted, "-q")),
            ("al", (Told::Accepted, "-q")),
            ("la", (Told::Accepted, "q-")),
            ("as", (Told::Accepted, "-r")),
            ("sa", (Told::Accepted, "r-")),
            ("aq", (Told::Accepted, "-q")),
            ("absq", (Told::Accepted, "-qrq")),
            ("sbqla", (Told::Accepted, "rqqq-")),
            // None accepted and any 4xx: that 4xx.
            ("bs", refused(BUSY)),
            ("sb", refused(BUSY)),
            ("sl", refused(LOST)),
            ("lb", refused(LOST)),
            // None accepted, only 5xx: the first.
            ("sv", refused(SPAM)),
            ("vs", refused(VIRUS)),
            // What queues does not count as acceptance.
            ("sq", refused(SPAM)),
            ("qs", refused(SPAM)),
            ("qb", refused(BUSY)),
            ("qsb", refused(BUSY)),
        ] {
            let all: Vec<Outcome> = outcomes.chars().map(outcome).collect();
            let (told, then) = combine(&all);
            assert_eq!((told, letters(&then).as_str()), expected, "{outcomes}");
        }
    }
}
