//! Joins equal questions in progress, so that each is asked once (DESIGN section 5).
//!
//! `ldap` and `call_ahead` ask through it. A question runs in a task of its own: it continues when the session that
//! asked first is gone, and if it panics all waiting callers get `Unavailable`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::lookup::{Answer, Fresh, Freshness, Lookup};

type Flights = Arc<Mutex<HashMap<Arc<str>, Flight>>>;

/// The questions in progress, by the address's key.
pub struct InFlight {
    flights: Flights,
    /// For this long after it was asked a question gives a live answer.
    live: Duration,
}

#[derive(Clone)]
struct Flight {
    asked: Instant,
    answer: watch::Receiver<Option<Answer>>,
}

/// Removes a question from the map when its task ends, in any way.
struct Landing {
    flights: Flights,
    key: Arc<str>,
    asked: Instant,
}

impl InFlight {
    /// With answers that are live for this long after the question.
    #[must_use]
    pub fn live_for(live: Duration) -> Self {
        Self { flights: Flights::default(), live }
    }

    /// Joins the question for this address that is in progress, or asks `question`. A question that has been in
    /// progress for too long gives no live answer, so if one is needed it is asked again.
    pub async fn ask<Q>(&self, key: &Arc<str>, wanted: Freshness, question: impl FnOnce() -> Q) -> Answer
    where
        Q: Future<Output = Answer> + Send + 'static,
    {
        let mut answer = self.join_or_start(key, wanted, question);
        match answer.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(answer)) => answer.clone(),
            Ok(None) | Err(_) => Answer {
                lookup: Lookup::Unavailable("the question broke off; the log has the reason".into()),
                fresh: Fresh::Live,
            },
        }
    }

    /// Whether a question for this key is in progress.
    #[must_use]
    pub fn is_under_way(&self, key: &Arc<str>) -> bool {
        self.flights.lock().contains_key(key)
    }

    /// Joins or starts under one lock, so that two callers do not both ask. The caller may drop the receiver.
    pub fn join_or_start<Q>(
        &self,
        key: &Arc<str>,
        wanted: Freshness,
        question: impl FnOnce() -> Q,
    ) -> watch::Receiver<Option<Answer>>
    where
        Q: Future<Output = Answer> + Send + 'static,
    {
        let mut flights = self.flights.lock();
        let joined = |flight: &&Flight| wanted == Freshness::Any || flight.asked.elapsed() <= self.live;
        if let Some(flight) = flights.get(key).filter(joined) {
            return flight.answer.clone();
        }
        let (sender, answer) = watch::channel(None);
        let asked = Instant::now();
        flights.insert(Arc::clone(key), Flight { asked, answer: answer.clone() });
        drop(flights);
        let landing = Landing { flights: Arc::clone(&self.flights), key: Arc::clone(key), asked };
        let question = question();
        tokio::spawn(async move {
            let answer = question.await;
            drop(landing);
            // There may be no receiver any more.
            sender.send_replace(Some(answer));
        });
        answer
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        let mut flights = self.flights.lock();
        if flights.get(&self.key).is_some_and(|flight| flight.asked == self.asked) {
            flights.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::directory::cache::LIVE;

    fn not_found() -> Answer {
        Answer { lookup: Lookup::NotFound, fresh: Fresh::Live }
    }

    /// Asks `times` concurrently for one address, with a question that takes `takes`; returns how often it was asked.
    async fn asked(times: usize, takes: Duration) -> usize {
        let in_flight = Arc::new(InFlight::live_for(LIVE));
        let count = Arc::new(AtomicUsize::new(0));
        let key: Arc<str> = "a@b.c".into();
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..times {
            let (in_flight, count, key) = (Arc::clone(&in_flight), Arc::clone(&count), Arc::clone(&key));
            tasks.spawn(async move {
                let question = || async move {
                    count.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(takes).await;
                    not_found()
                };
                in_flight.ask(&key, Freshness::Live, question).await
            });
        }
        assert!(tasks.join_all().await.iter().all(|answer| *answer == not_found()));
        assert!(in_flight.flights.lock().is_empty());
        count.load(Ordering::Relaxed)
    }

    #[tokio::test(start_paused = true)]
    async fn equal_questions_are_asked_once() {
        assert_eq!(asked(20, Duration::from_secs(1)).await, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_goes_on_without_the_one_who_asked() {
        let in_flight = InFlight::live_for(LIVE);
        let key: Arc<str> = "a@b.c".into();
        let slow = || async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            not_found()
        };
        let first = in_flight.ask(&key, Freshness::Any, slow);
        assert!(tokio::time::timeout(Duration::from_secs(1), first).await.is_err());
        let second = in_flight.ask(&key, Freshness::Any, || async { unreachable!("it is under way") });
        assert_eq!(second.await, not_found());
    }

    #[tokio::test(start_paused = true)]
    async fn a_live_question_does_not_join_an_old_one() {
        let in_flight = InFlight::live_for(LIVE);
        let key: Arc<str> = "a@b.c".into();
        let first = in_flight.ask(&key, Freshness::Any, std::future::pending);
        assert!(tokio::time::timeout(Duration::from_secs(6), first).await.is_err());
        let live = in_flight.ask(&key, Freshness::Live, || async { not_found() });
        assert_eq!(live.await, not_found());
    }

    #[tokio::test]
    async fn a_panic_is_unavailable() {
        let in_flight = InFlight::live_for(LIVE);
        let key: Arc<str> = "a@b.c".into();
        let answer = in_flight.ask(&key, Freshness::Any, || async { panic!("on purpose") }).await;
        assert!(matches!(answer.lookup, Lookup::Unavailable(_)));
        assert_eq!(in_flight.ask(&key, Freshness::Any, || async { not_found() }).await, not_found());
    }
}
