//! How many addresses are asked about at once, and who goes when others want to.
//!
//! A server may keep an answer back (Exchange's tarpit: 5 s and more before it refuses a recipient). Nobody can tell
//! beforehand whom it will refuse, so a question that takes long gives its place to one that waits for it. Half of the
//! places are not given up: whoever took long first gets his answer in the end.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep, timeout_at};

/// So many addresses are asked about at once, on a connection each.
pub const MAX_PROBES: usize = 8;

/// Beside them, so many that nobody has.
pub(super) const MAX_STRANGERS: usize = 4;

/// A question that takes longer gives way.
pub(super) const SLOW: Duration = Duration::from_secs(1);

/// What is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    /// An address that a sender named.
    Recipient,
    /// One that nobody has. On its answer all others rest, so it gives way to nobody.
    Stranger,
}

/// All places.
pub(super) struct Places {
    recipients: Semaphore,
    strangers: Semaphore,
    /// Who has one of these gives way no more.
    lasting: Semaphore,
    /// One for each of `waiting` who has not had somebody give way for him yet.
    wanted: Semaphore,
    waiting: AtomicUsize,
}

/// One place, until it is dropped.
pub(super) struct Place<'a> {
    places: &'a Places,
    about: About,
    _permit: SemaphorePermit<'a>,
}

impl Places {
    pub(super) fn new() -> Self {
        Self {
            recipients: Semaphore::new(MAX_PROBES),
            strangers: Semaphore::new(MAX_STRANGERS),
            lasting: Semaphore::new(MAX_PROBES / 2),
            wanted: Semaphore::new(0),
            waiting: AtomicUsize::new(0),
        }
    }

    /// A place, as soon as there is one; `None`: there was none by `until`.
    pub(super) async fn take(&self, about: About, until: Instant) -> Option<Place<'_>> {
        let places = match about {
            About::Recipient => &self.recipients,
            About::Stranger => &self.strangers,
        };
        let permit = match places.try_acquire() {
            Ok(permit) => permit,
            Err(_) => {
                let _waits = (about == About::Recipient).then(|| Waits::new(self));
                timeout_at(until, places.acquire()).await.ok()?.ok()?
            }
        };
        // A place that becomes free when the time is up is none.
        (Instant::now() < until).then_some(Place { places: self, about, _permit: permit })
    }
}

impl Place<'_> {
    /// Ends when the question that began now is to give way to another one.
    pub(super) async fn gives_way(&self) {
        if self.about == About::Stranger {
            return std::future::pending().await;
        }
        sleep(SLOW).await;
        tokio::select! {
            biased;
            Ok(_lasting) = self.places.lasting.acquire() => std::future::pending().await,
            Ok(wanted) = self.places.wanted.acquire() => wanted.forget(),
        }
    }
}

/// Somebody who waits for a place.
struct Waits<'a>(&'a Places);

impl<'a> Waits<'a> {
    fn new(places: &'a Places) -> Self {
        places.waiting.fetch_add(1, Ordering::SeqCst);
        places.wanted.add_permits(1);
        Self(places)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        let Self(places) = self;
        let others = places.waiting.fetch_sub(1, Ordering::SeqCst) - 1;
        if places.wanted.available_permits() > others {
            places.wanted.forget_permits(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::task::JoinSet;

    use super::*;

    /// Asks so many questions at once that take so long each; returns how many were answered, gave way, found no place.
    async fn asked(number: usize, takes: Duration, about: About) -> (usize, usize, usize) {
        let places = Arc::new(Places::new());
        let until = Instant::now() + Duration::from_secs(5);
        let mut tasks = JoinSet::new();
        for _ in 0..number {
            let places = Arc::clone(&places);
            tasks.spawn(async move {
                let Some(place) = places.take(about, until).await else { return (0, 0, 1) };
                tokio::select! {
                    biased;
                    () = sleep(takes) => (1, 0, 0),
                    () = place.gives_way() => (0, 1, 0),
                }
            });
        }
        let all = tasks.join_all().await;
        assert_eq!(places.waiting.load(Ordering::SeqCst), 0);
        assert_eq!(places.wanted.available_permits(), 0, "nobody waits, so nobody need give way");
        assert_eq!((places.recipients.available_permits(), places.lasting.available_permits()), (8, 4));
        all.into_iter().fold((0, 0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1, sum.2 + one.2))
    }

    #[tokio::test(start_paused = true)]
    async fn slow_questions_give_way_only_to_who_waits_and_only_half_of_them() {
        let ms = Duration::from_millis;
        for (number, takes, about, answered, gave_way, no_place) in [
            // Quick ones take turns.
            (8, 900, About::Recipient, 8, 0, 0),
            (40, 900, About::Recipient, 40, 0, 0),
            (8, 44_000, About::Recipient, 8, 0, 0),
            // One waits, one goes.
            (9, 44_000, About::Recipient, 8, 1, 0),
            (12, 44_000, About::Recipient, 8, 4, 0),
            (13, 44_000, About::Recipient, 8, 5, 0),
            // Four stay; the others' places change hands every second, four times before the time is up.
            (40, 44_000, About::Recipient, 8, 16, 16),
            (4, 44_000, About::Stranger, 4, 0, 0),
            (12, 2_000, About::Stranger, 12, 0, 0),
            (6, 44_000, About::Stranger, 4, 0, 2),
        ] {
            let came_to = asked(number, ms(takes), about).await;
            assert_eq!(came_to, (answered, gave_way, no_place), "{number} that take {takes} ms, {about:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_and_recipients_do_not_wait_for_each_other() {
        let places = Places::new();
        let until = Instant::now() + SLOW;
        let mut held = Vec::new();
        for _ in 0..MAX_PROBES {
            held.push(places.take(About::Recipient, until).await);
        }
        assert!(places.take(About::Stranger, until).await.is_some());
        assert!(Instant::now() < until);
    }
}
