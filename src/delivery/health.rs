//! Tracks which next hops answer: one that failed is not used, except for one test at a time, until it answers again.
//!
//! `attempt` orders hosts by [`Health::standing`], and reports whether each new connection became ready for MAIL
//! ([`Health::answers`], [`Health::fails`]). Only the host counts: it accepts the connection, greets, and accepts EHLO,
//! TLS and AUTH. Replies to MAIL, RCPT or the end of data have no effect. If an established connection breaks, the host
//! is tested ([`Health::begin_test`]), and only the test counts.
//!
//! One failure is no outage: a connection may be reset while others work. A next hop that has answered within
//! `TRUSTED` goes down with two failures in a row; one that has not, with the first, so that a server which is off is
//! not tried by twenty messages. The first answer brings it back.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::config::SmartHost;
use crate::fast_map::FastMap;
use crate::smtp::domain::Domain;
use crate::smtp::reply::Reply;

/// The least time between tests, and between a failure of a next hop that is down and a test.
const PAUSE: Duration = Duration::from_secs(1);
/// A next hop that answered within this time may fail once.
const TRUSTED: Duration = Duration::from_secs(60);
/// Hosts without news for this long are forgotten first.
const FORGOTTEN: Duration = Duration::from_secs(60);
/// The most events that are queued; mail for others waits for its time.
const MOST_BACK: usize = 100;
/// The most next hops that are remembered; beyond that those without news for [`FORGOTTEN`] are forgotten, or all.
const REMEMBERED: usize = 10_000;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    pub connector: Arc<str>,
    /// After the MX lookup.
    pub host: SmartHost,
}

/// The state of a next hop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It answers, as far as is known.
    Up,
    /// It failed, with this error.
    Down(Arc<Reply>),
}

/// Whether a next hop's state has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It began to fail, fails for another reason, or answers again: to be logged.
    News,
    Same,
}

/// A next hop that answers again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Back {
    pub connector: Arc<str>,
    /// With MX: the recipients' domain.
    pub domain: Option<Domain>,
}

/// The next hops that were tried lately.
#[derive(Debug, Default)]
pub struct Health {
    known: Mutex<FastMap<Key, Known>>,
    /// Notified when a test is over.
    tested: Notify,
    /// Next hops that answer and were down or unknown, until they are taken.
    back: Mutex<Vec<Back>>,
    is_back: Notify,
}

#[derive(Debug)]
struct Known {
    state: HostHealth,
    /// The last news of it.
    heard: Instant,
    test: Testing,
}

#[derive(Debug)]
enum HostHealth {
    /// It answered, and has not failed since.
    Answered,
    /// It failed once since it answered.
    Struck(Arc<Reply>),
    Down(Arc<Reply>),
    /// It is being tested for the first time.
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Testing {
    Never,
    UnderWay,
    Since(Instant),
}

impl HostHealth {
    fn reason(&self) -> Option<&Reply> {
        match self {
            Self::Answered | Self::Unknown => None,
            Self::Struck(reason) | Self::Down(reason) => Some(reason),
        }
    }
}

impl Health {
    #[must_use]
    pub fn standing(&self, key: &Key) -> Standing {
        match self.known.lock().get(key).map(|known| &known.state) {
            Some(HostHealth::Down(reason)) => Standing::Down(reason.clone()),
            None | Some(HostHealth::Answered | HostHealth::Struck(_) | HostHealth::Unknown) => Standing::Up,
        }
    }

    /// A connection became ready for MAIL.
    pub fn answers(&self, key: &Key) -> Change {
        let mut all = self.known.lock();
        let known = entry(&mut all, key);
        known.heard = Instant::now();
        match std::mem::replace(&mut known.state, HostHealth::Answered) {
            HostHealth::Down(_) => {
                self.is_back(Back { connector: key.connector.clone(), domain: None });
                Change::News
            }
            // It may have been down before the start.
            HostHealth::Unknown => {
                self.is_back(Back { connector: key.connector.clone(), domain: None });
                Change::Same
            }
            HostHealth::Answered | HostHealth::Struck(_) => Change::Same,
        }
    }

    /// Queues the event that a next hop answers which may have been unreachable.
    pub fn is_back(&self, back: Back) {
        let mut all = self.back.lock();
        if all.len() < MOST_BACK && !all.contains(&back) {
            all.push(back);
            self.is_back.notify_one();
        }
    }

    /// Waits until next hops answer that were down or unknown. Only one task may wait.
    pub async fn came_back(&self) -> Vec<Back> {
        loop {
            let back = std::mem::take(&mut *self.back.lock());
            if !back.is_empty() {
                return back;
            }
            self.is_back.notified().await;
        }
    }

    /// No connection became ready for MAIL.
    pub fn fails(&self, key: &Key, reason: &Reply) -> Change {
        let mut all = self.known.lock();
        let known = entry(&mut all, key);
        let now = Instant::now();
        let change =
            if known.state.reason().is_some_and(|before| before == reason) { Change::Same } else { Change::News };
        known.state = match known.state {
            HostHealth::Answered if now - known.heard < TRUSTED => HostHealth::Struck(reason.clone().into()),
            HostHealth::Answered | HostHealth::Struck(_) | HostHealth::Down(_) | HostHealth::Unknown => {
                HostHealth::Down(reason.clone().into())
            }
        };
        known.heard = now;
        change
    }

    /// Permission to test it. `None`: a test is in progress, or it is too soon.
    #[must_use]
    pub fn begin_test(self: &Arc<Self>, key: &Key) -> Option<Test> {
        let mut all = self.known.lock();
        let known = entry(&mut all, key);
        let recent = match (known.test, &known.state) {
            (Testing::UnderWay, _) => true,
            (Testing::Since(at), _) if at.elapsed() < PAUSE => true,
            (_, HostHealth::Down(_)) => known.heard.elapsed() < PAUSE,
            (_, HostHealth::Answered | HostHealth::Struck(_) | HostHealth::Unknown) => false,
        };
        if recent {
            return None;
        }
        known.test = Testing::UnderWay;
        Some(Test { health: self.clone(), key: key.clone() })
    }

    /// Waits for the test in progress, if there is one.
    pub async fn after_test(&self, key: &Key) {
        loop {
            let tested = self.tested.notified();
            let mut tested = std::pin::pin!(tested);
            tested.as_mut().enable();
            if self.known.lock().get(key).is_none_or(|known| known.test != Testing::UnderWay) {
                return;
            }
            tested.await;
        }
    }
}

fn entry<'a>(known: &'a mut FastMap<Key, Known>, key: &Key) -> &'a mut Known {
    if known.len() >= REMEMBERED && !known.contains_key(key) {
        known.retain(|_, known| known.heard.elapsed() < FORGOTTEN);
        if known.len() > REMEMBERED / 2 {
            known.clear();
        }
    }
    let nothing = || Known { state: HostHealth::Unknown, heard: Instant::now(), test: Testing::Never };
    known.entry(key.clone()).or_insert_with(nothing)
}

/// A test in progress; dropping it ends it.
#[derive(Debug)]
pub struct Test {
    health: Arc<Health>,
    key: Key,
}

impl Drop for Test {
    fn drop(&mut self) {
        if let Some(known) = self.health.known.lock().get_mut(&self.key) {
            known.test = Testing::Since(Instant::now());
        }
        self.health.tested.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Host;
    use crate::smtp::reply::Enhanced;

    fn key(port: u16) -> Key {
        Key { connector: "secondary".into(), host: SmartHost::new(Host::Name("gw".to_owned()), port) }
    }

    fn failure(text: &'static str) -> Reply {
        Reply::fixed(451, Enhanced(4, 4, 1), text)
    }

    fn is_up(health: &Health) -> bool {
        health.standing(&key(1)) == Standing::Up
    }

    /// Events of a next hop, a letter each: `a` an answer, `f` a failure, `1` a second later, `m` a minute later.
    #[tokio::test(start_paused = true)]
    async fn one_failure_of_a_trusted_next_hop_is_no_outage() {
        for (events, up) in [
            ("", true),
            ("f", false),
            ("a", true),
            ("af", true),
            ("aff", false),
            ("af1f", false),
            ("afaf", true),
            ("afmf", false),
            ("amf", false),
            ("fm", false),
            ("f1a", true),
            ("f1af", true),
            ("f1f", false),
        ] {
            let health = Health::default();
            for event in events.chars() {
                match event {
                    'a' => _ = health.answers(&key(1)),
                    'f' => _ = health.fails(&key(1), &failure("refused")),
                    '1' => tokio::time::advance(PAUSE).await,
                    _ => tokio::time::advance(TRUSTED).await,
                }
            }
            assert_eq!(is_up(&health), up, "{events}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_told_once() {
        let health = Health::default();
        assert_eq!(health.fails(&key(1), &failure("refused")), Change::News);
        assert_eq!(health.fails(&key(1), &failure("refused")), Change::Same);
        assert_eq!(health.fails(&key(1), &failure("timed out")), Change::News);
        assert_eq!(health.standing(&key(1)), Standing::Down(failure("timed out").into()));
        assert_eq!(health.standing(&key(2)), Standing::Up);
        assert_eq!(health.answers(&key(1)), Change::News);
        assert_eq!(health.answers(&key(1)), Change::Same);
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_down_or_not_known_and_answers_is_told_once() {
        let health = Health::default();
        let back = |domain: Option<&str>| Back {
            connector: "secondary".into(),
            domain: domain.map(|domain| Domain::parse(domain).unwrap()),
        };
        health.answers(&key(1));
        assert_eq!(health.came_back().await, [back(None)]);
        health.answers(&key(1));
        for _ in 0..3 {
            health.fails(&key(1), &failure("refused"));
        }
        health.is_back(back(Some("a.test")));
        health.is_back(back(Some("a.test")));
        health.answers(&key(1));
        assert_eq!(health.came_back().await, [back(Some("a.test")), back(None)]);
        for number in 0..1000 {
            health.is_back(back(Some(&format!("d{number}.test"))));
        }
        assert_eq!(health.came_back().await.len(), MOST_BACK);
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_one_test_at_a_time_and_one_a_second() {
        let health = Arc::new(Health::default());
        let test = health.begin_test(&key(1)).unwrap();
        assert!(health.begin_test(&key(1)).is_none());
        assert!(health.begin_test(&key(2)).is_some(), "others have their own");
        tokio::time::advance(PAUSE * 9).await;
        assert!(health.begin_test(&key(1)).is_none(), "however long it takes");
        drop(test);
        assert!(health.begin_test(&key(1)).is_none());
        tokio::time::advance(PAUSE).await;
        assert!(health.begin_test(&key(1)).is_some());
        tokio::time::advance(PAUSE).await;
        health.fails(&key(1), &failure("refused"));
        assert!(health.begin_test(&key(1)).is_none(), "it has just failed");
        tokio::time::advance(PAUSE).await;
        assert!(health.begin_test(&key(1)).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn others_wait_for_a_test() {
        let health = Arc::new(Health::default());
        health.after_test(&key(1)).await;
        health.fails(&key(1), &failure("refused"));
        tokio::time::advance(PAUSE).await;
        let test = health.begin_test(&key(1)).unwrap();
        let waiting = tokio::spawn({
            let health = health.clone();
            async move { health.after_test(&key(1)).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        health.answers(&key(1));
        drop(test);
        waiting.await.unwrap();
        assert!(is_up(&health));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_is_bounded() {
        let health = Health::default();
        for number in 0..=REMEMBERED {
            let host = SmartHost::new(Host::Name(format!("mx{number}")), 25);
            health.answers(&Key { connector: "out".into(), host });
            assert!(health.known.lock().len() <= REMEMBERED);
        }
    }
}
