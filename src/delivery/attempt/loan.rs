//! A connection on loan to a client's transaction: what is said over it, and what it shows of the next hop's health.
//!
//! `lend` makes it, `delivery::cut_through` uses it and gives it back.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, PoisonError};

use super::answer::{Answer, Ended, Patience};
use super::black_hole::BlackHole;
use super::connection::Broken;
use super::conversation::Conversation;
use super::fit::{self, Way};
use super::lend::lines;
use super::places::Place;
use super::trouble::Scope;
use super::{Shared, Target};
use crate::config::EightBit;
use crate::delivery::health::{Change, Key, Standing};
use crate::delivery::refused_in_a_row::Verdict;
use crate::message::envelope::Sender;
use crate::smtp::reply::Reply;
use crate::spool::entry::Content;

/// A connection on loan, in the middle of a transaction.
pub(crate) struct Loan {
    pub(super) talk: Conversation,
    pub(super) key: Key,
    /// Whose `next_hop_up` it is.
    pub(super) label: Option<Arc<str>>,
    pub(super) shared: Arc<Shared>,
    pub(super) limit: usize,
    pub(super) _place: Place,
}

impl Loan {
    /// Which next hop it is: `name[address]:port`.
    pub(crate) fn next_hop(&self) -> Arc<str> {
        self.talk.connection().next_hop.clone()
    }

    /// Further recipients; what they were told. Who is not in the answer was accepted.
    pub(crate) async fn more(
        &mut self,
        recipients: &[(usize, Target<'_>)],
    ) -> (Vec<(usize, Answer)>, Result<(), Ended>) {
        let offers = self.talk.connection().offers.clone();
        let rcpts = lines(&mut self.talk, recipients, &offers);
        let ended = if rcpts.is_empty() { Ok(()) } else { self.talk.more(&rcpts).await };
        (self.talk.told(), ended)
    }

    /// How the content goes, now that it is known.
    ///
    /// # Errors
    /// The branch's final reply: it does not fit.
    pub(crate) fn way(&self, sender: &Sender, content: &Content, bytes: u64) -> Result<Way, Reply> {
        let connection = self.talk.connection();
        fit::content_way(sender, content, bytes, (&connection.terms.smtp, &connection.offers))
    }

    /// Whether content may be sent that has not been seen whole: nothing is asked of it that only its end shows.
    pub(crate) fn takes_unseen(&self) -> bool {
        let connection = self.talk.connection();
        connection.offers.eight_bit_mime || connection.terms.smtp.eight_bit == EightBit::Send
    }

    /// DATA, up to the reply to it.
    ///
    /// # Errors
    /// The transaction is over; [`Loan::told`] has the answers.
    pub(crate) async fn data(&mut self, way: Way, octets: u64) -> Result<(), Ended> {
        self.talk.data(way).await?;
        if way == Way::Bdat {
            self.talk.chunk(octets);
        }
        Ok(())
    }

    /// A piece of the content; it goes out with the next [`Loan::flush`].
    pub(crate) fn piece(&mut self, bytes: &[u8]) {
        self.talk.piece(bytes);
    }

    /// Octets that the next [`Loan::flush`] writes.
    pub(crate) fn queued(&self) -> usize {
        self.talk.connection().queued()
    }

    /// Writes out what is there.
    ///
    /// # Errors
    /// [`Broken`]; [`Loan::interrupted`] says what becomes of it.
    pub(crate) async fn flush(&mut self) -> Result<(), Broken> {
        self.talk.flush().await
    }

    /// The next hop stopped taking the content.
    pub(crate) async fn interrupted(&mut self, broken: &Broken) -> Ended {
        self.talk.interrupted(broken).await
    }

    /// The end of the content; it goes out with the next [`Loan::flush`].
    pub(crate) fn end(&mut self) {
        self.talk.end();
    }

    /// What the next hop says to the whole message.
    pub(crate) async fn verdict(&mut self, patience: Patience) -> Ended {
        self.talk.verdict(patience).await
    }

    /// What recipients were told since this was asked last.
    pub(crate) fn told(&mut self) -> Vec<(usize, Answer)> {
        self.talk.told()
    }

    /// What recipients were told may show that something is wrong with the next hop.
    pub(crate) fn note(&self, told: &[(usize, Answer)]) {
        let trouble = told.iter().find_map(|(_, answer)| match answer {
            Answer::Trouble(trouble) => Some(trouble),
            Answer::Final(_) | Answer::Again(_) => None,
        });
        let Some(trouble) = trouble else { return };
        if trouble.scope == Scope::Message || self.fails(&trouble.reply) == Change::News {
            trouble.log(&self.key.connector);
        }
    }

    /// It is not waited for any longer: whether what was sent seems to get lost on the way, which is told here.
    pub(crate) fn look(&mut self) -> Option<BlackHole> {
        self.talk.look()
    }

    /// It did not answer in time.
    pub(crate) fn timed_out(&mut self, why: &Reply) {
        self.look();
        if self.fails(why) == Change::News {
            tracing::warn!(send_connector = %self.key.connector, next_hop = %self.next_hop(), reason = %why,
                "next hop cannot be used");
        }
    }

    fn fails(&self, why: &Reply) -> Change {
        let change = self.shared.health.enter(self.key.clone()).map_or(Change::Same, |pass| pass.fails(&why.text));
        self.show_health();
        change
    }

    /// It accepted a recipient that somebody vouches for.
    pub(crate) fn accepted_vouched(&self) {
        let mut refusals = self.shared.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(refusals) = refusals.get_mut(&self.key) {
            refusals.accepted();
        }
    }

    /// It refused one for good. Many in a row, over several sessions, and it is the next hop that is wrong.
    pub(crate) fn refused_vouched(&self, session: &str, reply: &Reply) -> Verdict {
        let mut hasher = DefaultHasher::new();
        session.hash(&mut hasher);
        let mut refusals = self.shared.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let verdict = refusals.entry(self.key.clone()).or_default().refused(hasher.finish());
        drop(refusals);
        let why = format!("it refuses recipients that exist, one after another; last: {reply}");
        match verdict {
            Verdict::GoesOn => return verdict,
            Verdict::KeepsItOpen => drop(self.shared.health.open(&self.key, &why)),
            Verdict::OpensBreaker => {
                self.shared.health.open(&self.key, &why);
                tracing::error!(alert = true, send_connector = %self.key.connector, next_hop = %self.next_hop(),
                    reason = why, "next hop cannot be used");
            }
        }
        self.show_health();
        verdict
    }

    /// `next_hop_up`.
    fn show_health(&self) {
        if let Some(label) = &self.label {
            let up = self.shared.metrics.next_hop_up.with_label_values(&[&*self.key.connector, label]);
            up.set(i64::from(self.shared.health.standing(&self.key) == Standing::Up));
        }
    }

    /// The transaction is over: another may have the connection.
    pub(crate) fn give_back(self, ended: Ended) {
        if ended == Ended::Ready {
            self.shared.pool.put(self.key, self.talk.into_connection(), self.limit);
        }
    }

    /// Takes the envelope back (RSET) and returns the connection, without the caller waiting for it.
    pub(crate) fn take_back(mut self) {
        tokio::spawn(async move {
            let ended = self.talk.give_up().await;
            self.give_back(ended);
        });
    }
}
