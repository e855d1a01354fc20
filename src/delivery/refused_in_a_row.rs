//! A next hop that refuses everybody (DESIGN section 7): its own directory is broken, or it is not the server that it
//! should be. It is told from one that refuses those who are gone by who vouches for them. Pure.
//!
//! Whoever speaks to next hops keeps one for each and tells it of recipients that were resolved, verified or recently
//! good, and of no others: anybody can make a next hop refuse recipients that nobody knows.

/// So many refusals in a row.
const REFUSALS: u32 = 20;
/// Over at least so many sessions: one client with an old list proves nothing.
const SESSIONS: usize = 5;

/// What a refusal comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may be right.
    GoesOn,
    /// The breaker was open already, and one more probe has shown that it should be.
    KeepsItOpen,
    /// It is the next hop: to be treated as unreachable ([`Health::open`](super::health::Health::open)).
    OpensBreaker,
}

/// The refusals since the last such recipient was accepted.
#[derive(Debug, Clone, Default)]
pub struct RefusedInARow {
    refusals: u32,
    /// The first few sessions with one.
    sessions: Vec<u64>,
    /// Whether they opened the breaker, and none was accepted since.
    opened: bool,
}

impl RefusedInARow {
    /// One was refused for good, in this session: any number that other sessions do not have.
    pub fn refused(&mut self, session: u64) -> Verdict {
        if self.opened {
            return Verdict::KeepsItOpen;
        }
        self.refusals = self.refusals.saturating_add(1);
        if self.sessions.len() < SESSIONS && !self.sessions.contains(&session) {
            self.sessions.push(session);
        }
        if self.refusals < REFUSALS || self.sessions.len() < SESSIONS {
            return Verdict::GoesOn;
        }
        self.opened = true;
        Verdict::OpensBreaker
    }

    /// One was accepted.
    pub fn accepted(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which refusal opens the breaker, counted from 1; `accepted` comes before these.
    fn opens(sessions: &[u64], accepted: &[usize]) -> Option<usize> {
        let mut row = RefusedInARow::default();
        for (at, session) in sessions.iter().enumerate() {
            if accepted.contains(&(at + 1)) {
                row.accepted();
            }
            if row.refused(*session) == Verdict::OpensBreaker {
                return Some(at + 1);
            }
        }
        None
    }

    #[test]
    fn twenty_in_a_row_over_five_sessions_open_the_breaker() {
        let of = |sessions: u64, refusals: u64| (0..refusals).map(|at| at % sessions).collect::<Vec<_>>();
        let late: Vec<u64> = [vec![1; 30], (2..=5).collect()].concat();
        for (name, sessions, accepted, expected) in [
            ("twenty over five", of(5, 25), &[][..], Some(20)),
            ("twenty over twenty", of(20, 25), &[], Some(20)),
            ("nineteen", of(5, 19), &[], None),
            ("many over four", of(4, 1000), &[], None),
            ("the fifth session comes late", late, &[], Some(34)),
            ("one is accepted in between", of(5, 39), &[20], Some(39)),
            ("one is accepted in between, and too few after it", of(5, 38), &[20], None),
            ("sessions from before do not count", [of(5, 10), vec![9; 100]].concat(), &[11], None),
        ] {
            assert_eq!(opens(&sessions, accepted), expected, "{name}");
        }
    }

    #[test]
    fn once_open_every_refusal_keeps_it_open_until_one_is_accepted() {
        let mut row = RefusedInARow::default();
        for _ in 0..2 {
            let verdicts: Vec<Verdict> = (0..25).map(|session| row.refused(session)).collect();
            assert!(verdicts[..19].iter().all(|verdict| *verdict == Verdict::GoesOn));
            assert_eq!(verdicts[19], Verdict::OpensBreaker);
            assert!(verdicts[20..].iter().all(|verdict| *verdict == Verdict::KeepsItOpen));
            row.accepted();
        }
    }
}
