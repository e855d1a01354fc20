//! The guard question: whether a mail server refuses an address that does not exist. Otherwise its acceptance proves
//! nothing.
//!
//! Exchange and others delay such a refusal by 5 s and more (a tarpit), so the guard question has its own time limit
//! and its own slots, and continues when the caller is gone. Its result is renewed before it expires: by a caller at
//! that time, and for a slow server even without one, because the next caller would have to wait.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::strangers::{self, Manner};
use super::{Asker, SLOW};
use crate::lookup::{Answer, Fresh, Freshness, Lookup};
use crate::smtp::domain::Domain;

/// A failed renewal is tried again after a tenth of an answer's lifetime, but not sooner than this.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// The key of the question among those in progress; it is different from the key of any address.
fn guard_key(domain: &Domain) -> Arc<str> {
    domain.as_str().into()
}

impl Asker {
    /// How the server treats non-existent addresses of this domain. All callers share one question. While there is no
    /// new answer the last one is used, so that a tarpit does not delay mail for existing users.
    pub(super) async fn manner(self: &Arc<Self>, domain: &Domain) -> Result<Manner, Arc<str>> {
        let noted = self.strangers.lock().manner(domain, Instant::now().into_std());
        if let Some(manner) = noted {
            self.keep_manner(domain);
            return Ok(manner);
        }
        let last = self.strangers.lock().last(domain, Instant::now().into_std());
        let lookup = match last {
            None => self.guard_question(domain).await.lookup,
            // If the server answers quickly, its new answer is used instead of the last one.
            Some(last) => match timeout(SLOW, self.guard_question(domain)).await.map(|answer| answer.lookup) {
                Err(_) | Ok(Lookup::Unavailable(_)) => return Ok(last),
                Ok(lookup) => lookup,
            },
        };
        match lookup {
            Lookup::NotFound => Ok(Manner::Refused),
            Lookup::Unavailable(cause) => {
                Err(format!("its yes is not believed while nobody knows whether it ever says no: {cause}").into())
            }
            Lookup::Found(_) | Lookup::Ambiguous(_) | Lookup::AcceptsEverything(_) | Lookup::Held(_) => {
                Ok(Manner::Accepted)
            }
        }
    }

    /// Whether the first guard question of the domain is in progress.
    pub(super) fn waits_for_first_guard(&self, domain: &Domain) -> bool {
        let known = self.strangers.lock().last(domain, Instant::now().into_std()).is_some();
        !known && self.in_flight.is_under_way(&guard_key(domain))
    }

    /// Renews the result in the background if it expires soon.
    pub(super) fn keep_manner(self: &Arc<Self>, domain: &Domain) {
        if self.strangers.lock().wants_renewal(domain, Instant::now().into_std()) {
            let (asker, asked) = (Arc::clone(self), domain.clone());
            // Runs in the background.
            drop(self.in_flight.join_or_start(&guard_key(domain), Freshness::Live, || asker.stranger(asked)));
        }
    }

    /// Asks, or joins the question in progress.
    async fn guard_question(self: &Arc<Self>, domain: &Domain) -> Answer {
        let (asker, asked) = (Arc::clone(self), domain.clone());
        self.in_flight.ask(&guard_key(domain), Freshness::Live, || asker.stranger(asked)).await
    }

    /// Asks about a non-existent address and records the result.
    async fn stranger(self: Arc<Self>, domain: Domain) -> Answer {
        let asked = Instant::now();
        let answer = match strangers::address(&domain) {
            Ok(address) => {
                let (asker, key) = (Arc::clone(&self), address.key().into());
                let question = || async move {
                    let heard = asker.probe_nobody(&address).await;
                    Answer { lookup: asker.read(heard), fresh: Fresh::Live }
                };
                self.in_flight.ask(&key, Freshness::Live, question).await
            }
            Err(cause) => Answer { lookup: Lookup::Unavailable(cause.into()), fresh: Fresh::Live },
        };
        match &answer.lookup {
            Lookup::Found(_) => self.note(&domain, Manner::Accepted),
            Lookup::NotFound => {
                self.note(&domain, Manner::Refused);
                if asked.elapsed() >= SLOW {
                    self.renew(domain);
                }
            }
            Lookup::Ambiguous(_) | Lookup::AcceptsEverything(_) | Lookup::Held(_) | Lookup::Unavailable(_) => {}
        }
        answer
    }

    /// Renews the result before it expires, while the domain gets mail.
    fn renew(self: &Arc<Self>, domain: Domain) {
        let holds = self.config.cache.found;
        if holds.is_zero() {
            return;
        }
        let asker = Arc::downgrade(self);
        tokio::spawn(async move {
            sleep(holds / 5 * 4).await;
            // Stops if another caller has renewed it meanwhile.
            while let Some(asker) = asker.upgrade()
                && asker.strangers.lock().is_to_be_renewed(&domain, Instant::now().into_std())
                && asker.guard_question(&domain).await.lookup != Lookup::NotFound
            {
                drop(asker);
                sleep((holds / 10).max(TRY_AGAIN)).await;
            }
        });
    }

    fn note(&self, domain: &Domain, manner: Manner) {
        let (before, accepting) = {
            let mut strangers = self.strangers.lock();
            (strangers.note(domain, manner, Instant::now().into_std()), strangers.any_accepted())
        };
        self.metrics.directory_accepts_everything.with_label_values(&[&*self.name]).set(i64::from(accepting));
        match (before, manner) {
            (Some(Manner::Accepted), Manner::Refused) => {
                tracing::info!(directory = %self.name, %domain, "the mail server refuses unknown recipients again");
            }
            (None | Some(Manner::Refused), Manner::Accepted) => {
                // Earlier answers may have been wrong as well.
                self.cache.forget();
                tracing::error!(
                    alert = true,
                    directory = %self.name,
                    "{}: let it refuse unknown recipients at RCPT",
                    self.relays_unknowns(domain)
                );
            }
            (Some(Manner::Accepted), Manner::Accepted) | (None | Some(Manner::Refused), Manner::Refused) => {}
        }
    }
}
