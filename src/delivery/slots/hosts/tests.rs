//! Hosts that refuse further connections, with a paused clock.

use std::time::Duration;

use tokio::time::{advance, timeout};

use super::super::applicant::{Class, Client, Vouched};
use super::super::queue::Queue;
use super::*;
use crate::config::{Host as Name, SmartHost};

const LIMIT: usize = 20;

fn key(port: u16) -> HostKey {
    HostKey { connector: "secondary".into(), host: SmartHost::new(Name::Name("gw".to_owned()), port) }
}

fn client(number: u32) -> Applicant {
    let client = Client::at(std::net::Ipv4Addr::from_bits(number).into());
    Applicant { client, class: Class::Stranger, vouched: Vouched::Yes }
}

/// The observer's calls, in order.
type Told = Arc<Mutex<Vec<(u16, usize)>>>;

fn limits() -> (Arc<HostLimits>, Told) {
    let told = Told::default();
    let telling = told.clone();
    let observer = move |key: &HostKey, allowed| telling.lock().push((key.host.port, allowed));
    (Arc::new(HostLimits::new(observer)), told)
}

/// How many connections the host is allowed.
fn allowed(limits: &HostLimits) -> Option<usize> {
    limits.hosts.lock().get(&key(25)).map(|host| host.allowed())
}

/// P5: the host accepts five connections and replies 421 to a sixth; twelve clients send, each on a connection of its
/// own.
#[tokio::test(start_paused = true)]
async fn all_get_through_to_a_host_that_takes_five() {
    let (limits, told) = limits();
    let live = Arc::new(Mutex::new(0));
    let refusals = Arc::new(Mutex::new(0));
    let clients: Vec<_> = (0..12)
        .map(|number| {
            let (limits, live, refusals) = (limits.clone(), live.clone(), refusals.clone());
            tokio::spawn(async move {
                loop {
                    let slot = limits.take(&key(25), LIMIT, client(number)).await;
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    if *live.lock() == 5 {
                        assert!(matches!(slot.refused(), AtGreeting::Fewer(5..)));
                        *refusals.lock() += 1;
                        continue;
                    }
                    *live.lock() += 1;
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    *live.lock() -= 1;
                    return;
                }
            })
        })
        .collect();
    for client in clients {
        timeout(Duration::from_secs(2), client).await.unwrap().unwrap();
    }
    assert_eq!(*refusals.lock(), 7, "each is refused once at most");
    assert_eq!(allowed(&limits), Some(5));
    let told = told.lock();
    assert_eq!(*told, [11, 10, 9, 8, 7, 6, 5].map(|allowed| (25, allowed)));
}

#[tokio::test(start_paused = true)]
async fn it_rises_again_and_lets_those_who_wait_through() {
    let (limits, told) = limits();
    let mut held: Vec<HostSlot> = (0..4).map(|number| limits.try_take(&key(25), 5, client(number)).unwrap()).collect();
    assert_eq!(held.pop().unwrap().refused(), AtGreeting::Fewer(3));
    assert!(limits.try_take(&key(25), 5, client(9)).is_none(), "another host is used");
    assert!(limits.try_take(&key(26), 5, client(9)).is_some());
    let key25 = key(25);
    let mut waiting = Box::pin(limits.take(&key25, 5, client(9)));
    assert!(timeout(Duration::from_secs(29), &mut waiting).await.is_err());
    let fourth = timeout(Duration::from_secs(2), &mut waiting).await.unwrap();
    assert_eq!(allowed(&limits), Some(4));
    // Refused again: the 30 seconds begin anew, and the host's limit is known.
    advance(Duration::from_secs(20)).await;
    assert_eq!(fourth.refused(), AtGreeting::Fewer(3));
    advance(Duration::from_secs(20)).await;
    tokio::task::yield_now().await;
    assert_eq!(allowed(&limits), Some(3));
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(allowed(&limits), Some(4));
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(allowed(&limits), Some(5));
    let mut changes = told.lock().clone();
    changes.dedup();
    assert_eq!(changes, [3, 4, 3, 4, 5].map(|allowed| (25, allowed)));
    // Nothing is remembered, and no task is left.
    drop(held);
    let host = limits.host(&key(25), 5);
    assert_eq!((Arc::strong_count(&host), host.line.look(Queue::rises)), (2, None));
}

#[tokio::test(start_paused = true)]
async fn the_only_connection_that_is_refused_says_something_else() {
    let (limits, told) = limits();
    let only = limits.try_take(&key(25), LIMIT, client(1)).unwrap();
    let _other_host = limits.try_take(&key(26), LIMIT, client(1)).unwrap();
    assert_eq!(only.refused(), AtGreeting::Alone);
    assert_eq!(allowed(&limits), Some(LIMIT));
    assert!(told.lock().is_empty());
    let all: Vec<_> = std::iter::from_fn(|| limits.try_take(&key(25), LIMIT, client(1))).collect();
    assert_eq!(all.len(), LIMIT, "its slot came back");
}

#[tokio::test(start_paused = true)]
async fn throttling_leaves_one_less_and_one_at_least() {
    for (held, allowed) in [(1, 1), (2, 1), (3, 2), (20, 19)] {
        let (limits, _) = limits();
        let slots: Vec<_> = (0..held).map(|number| limits.try_take(&key(25), LIMIT, client(number)).unwrap()).collect();
        assert_eq!(slots[0].throttled(), allowed);
        assert_eq!(slots[0].throttled(), allowed, "said twice it is no less");
        assert!(limits.try_take(&key(25), LIMIT, client(99)).is_none());
        drop(slots);
        let all: Vec<_> = std::iter::from_fn(|| limits.try_take(&key(25), LIMIT, client(1))).collect();
        assert_eq!(all.len(), allowed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_connection_is_nobody_elses() {
    // A task waits at a host that is full: it does not get the slot of the one that is refused.
    let (limits, _) = limits();
    let mut held: Vec<HostSlot> = (0..3).map(|number| limits.try_take(&key(25), 3, client(number)).unwrap()).collect();
    let key25 = key(25);
    let mut waiting = Box::pin(limits.take(&key25, 3, client(9)));
    assert!(timeout(Duration::from_millis(1), &mut waiting).await.is_err());
    assert_eq!(held.pop().unwrap().refused(), AtGreeting::Fewer(2));
    assert!(timeout(Duration::from_millis(1), &mut waiting).await.is_err());
    assert!(timeout(Duration::from_millis(1), held[0].slot().wanted()).await.is_ok());
    drop(held.pop());
    assert!(timeout(Duration::from_millis(1), &mut waiting).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn what_is_remembered_is_bounded_and_what_is_in_use_is_not_forgotten() {
    let (limits, _) = limits();
    let _used = limits.try_take(&key(1), 1, client(1)).unwrap();
    let refused = [(); 2].map(|()| limits.try_take(&key(2), LIMIT, client(1)).unwrap());
    let [one, other] = refused;
    assert_eq!(one.refused(), AtGreeting::Fewer(1));
    drop(other);
    for number in 0..=REMEMBERED {
        let host = SmartHost::new(Name::Name(format!("mx{number}")), 25);
        let key = HostKey { connector: "out".into(), host };
        drop(limits.try_take(&key, LIMIT, client(1)));
        assert!(limits.hosts.lock().len() <= REMEMBERED);
    }
    assert!(limits.try_take(&key(1), 1, client(2)).is_none());
    assert_eq!(limits.hosts.lock().get(&key(2)).map(|host| host.allowed()), Some(1));
}
