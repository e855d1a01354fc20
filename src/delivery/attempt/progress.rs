//! What the recipients of one branch have been told so far, over all next hops.

use super::answer::Answer;
use super::connection::Connection;
use super::trouble::Trouble;
use super::{Handed, HandedResult};
use crate::smtp::reply::TRY_AGAIN;

/// Recipients go by their position in the branch.
pub(super) struct Progress {
    handed: Vec<Option<Handed>>,
    /// Nobody has answered for these yet.
    pub pending: Vec<usize>,
    /// What the last next hop that could not be used failed with.
    pub last: Option<Trouble>,
}

impl Progress {
    pub(super) fn new(recipients: usize) -> Self {
        Self { handed: vec![None; recipients], pending: (0..recipients).collect(), last: None }
    }

    /// Takes what one transaction told its recipients. Those that another next hop may take leave `pending` for
    /// `elsewhere`. Returns every different trouble once.
    pub(super) fn note(
        &mut self,
        told: Vec<(usize, Answer)>,
        connection: &Connection,
        elsewhere: &mut Vec<usize>,
    ) -> Vec<Trouble> {
        let mut troubles = Vec::new();
        for (at, answer) in told {
            match answer {
                Answer::Again(_) => continue,
                Answer::Final(result) => {
                    self.handed[at] = Some(Handed { next_hop: connection.next_hop.clone(), result });
                }
                Answer::Trouble(trouble) => {
                    elsewhere.push(at);
                    if !troubles.contains(&trouble) {
                        troubles.push(trouble);
                    }
                }
            }
            self.pending.retain(|other| *other != at);
        }
        if let Some(trouble) = troubles.last() {
            self.last = Some(trouble.clone());
        }
        troubles
    }

    /// Every recipient's answer; who has none is deferred with the last trouble.
    pub(super) fn finish(self) -> Vec<Handed> {
        let unreached = match self.last {
            Some(trouble) => Handed { next_hop: trouble.next_hop, result: HandedResult::Deferred(trouble.reply) },
            None => Handed { next_hop: "".into(), result: HandedResult::Deferred(TRY_AGAIN) },
        };
        self.handed.into_iter().map(|handed| handed.unwrap_or_else(|| unreached.clone())).collect()
    }
}
