//! Slots, turns, and which questions give way.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::*;

const MOST: Most = Most { all: 12, networks: 10, strangers: 8, each: 2 };
const SLOW: Duration = Duration::from_secs(1);

fn client(number: usize) -> Behalf {
    let [.., a, b] = number.to_be_bytes();
    Behalf::client([192, 0, a, b].into())
}

/// Asks this many questions concurrently that take so long each; returns how many were answered, gave way, and found no
/// slot.
async fn asked(number: usize, takes: Duration, standing: Standing) -> (usize, usize, usize) {
    let line = Line::new(MOST);
    let until = Instant::now() + Duration::from_secs(5);
    let mut tasks = JoinSet::new();
    for number in 0..number {
        let line = Arc::clone(&line);
        tasks.spawn(async move {
            let Some(place) = line.take(&client(number), standing, until).await else { return (0, 0, 1) };
            tokio::select! {
                biased;
                () = sleep(takes) => (1, 0, 0),
                () = async { sleep(SLOW).await; place.gives_way().await } => (0, 1, 0),
            }
        });
    }
    let all = tasks.join_all().await;
    let kind = line.kind(standing);
    assert_eq!(kind.waiting.load(Ordering::SeqCst), 0);
    assert_eq!(kind.wanted.available_permits(), 0, "nobody waits, so nobody need give way");
    assert_eq!((line.state.lock().running, kind.lasting.available_permits()), ([0; 3], MOST.for_kind(standing) / 2));
    assert!(line.state.lock().queues.iter().all(|queue| queue.waiting.is_empty()));
    all.into_iter().fold((0, 0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1, sum.2 + one.2))
}

#[tokio::test(start_paused = true)]
async fn slow_questions_give_way_only_to_who_waits_and_only_half_of_them() {
    let ms = Duration::from_millis;
    for (number, takes, standing, answered, gave_way, no_place) in [
        // Quick questions take turns.
        (8, 900, Standing::Stranger, 8, 0, 0),
        (40, 900, Standing::Stranger, 40, 0, 0),
        (8, 44_000, Standing::Stranger, 8, 0, 0),
        // One waits, so one gives way.
        (9, 44_000, Standing::Stranger, 8, 1, 0),
        (12, 44_000, Standing::Stranger, 8, 4, 0),
        (13, 44_000, Standing::Stranger, 8, 5, 0),
        // Four stay; the other slots change hands every second, four times before the time is up.
        (40, 44_000, Standing::Stranger, 8, 16, 16),
        (12, 44_000, Standing::Known, 12, 0, 0),
        (13, 44_000, Standing::Known, 12, 1, 0),
        (60, 44_000, Standing::Known, 12, 24, 24),
    ] {
        let came_to = asked(number, ms(takes), standing).await;
        assert_eq!(came_to, (answered, gave_way, no_place), "{number} that take {takes} ms, {standing:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn strangers_all_together_leave_places_to_networks_and_to_whom_we_know() {
    let line = Line::new(MOST);
    let soon = || Instant::now() + SLOW;
    let mut held = Vec::new();
    for (standing, places) in [(Standing::Stranger, 8), (Standing::Network, 2), (Standing::Known, 2)] {
        for number in 0..places {
            held.push(line.take(&client(number), standing, soon()).await.unwrap());
        }
        assert!(line.take(&client(99), standing, soon()).await.is_none(), "{standing:?}");
    }
    // A known client goes first, however late it comes.
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = JoinSet::new();
    for standing in [Standing::Stranger, Standing::Network, Standing::Known] {
        let (line, order) = (Arc::clone(&line), Arc::clone(&order));
        tasks.spawn(async move {
            let _place = line.take(&client(50), standing, soon()).await.unwrap();
            order.lock().push(standing);
        });
        tokio::task::yield_now().await;
    }
    drop(held);
    tasks.join_all().await;
    assert_eq!(*order.lock(), KINDS);
}

#[tokio::test(start_paused = true)]
async fn who_had_no_turn_goes_before_the_lists_of_the_others() {
    let line = Line::new(Most { all: 1, networks: 1, strangers: 1, each: 1 });
    let far = Instant::now() + Duration::from_secs(1000);
    let held = line.take(&client(0), Standing::Stranger, far).await.unwrap();
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = JoinSet::new();
    let mut come = |number: usize, times: usize| {
        for _ in 0..times {
            let (line, order) = (Arc::clone(&line), Arc::clone(&order));
            tasks.spawn(async move {
                let place = line.take(&client(number), Standing::Stranger, far).await.unwrap();
                order.lock().push(number);
                sleep(SLOW).await;
                drop(place);
            });
        }
    };
    (1..=60).for_each(|number| come(number, 15));
    sleep(SLOW).await;
    drop(held);
    // In the middle of the round a client comes for the first time.
    sleep(SLOW * 100).await;
    let before = order.lock().len();
    come(77, 1);
    tasks.join_all().await;
    let order = order.lock();
    let at = order.iter().position(|number| *number == 77).unwrap();
    assert!(at - before <= 60, "{at} of {}, came at {before}", order.len());
    let first: std::collections::HashSet<_> = order[..60].iter().collect();
    assert_eq!(first.len(), 60, "each has one before any has two");
}

#[tokio::test(start_paused = true)]
async fn who_goes_while_he_waits_takes_nobodys_place() {
    let line = Line::new(MOST);
    let until = Instant::now() + SLOW;
    let mut held = Vec::new();
    for number in 0..8 {
        held.push(line.take(&client(number), Standing::Stranger, until).await);
    }
    for number in 0..10_000 {
        let behalf = client(number % 5000);
        let waits = line.take(&behalf, Standing::Stranger, until);
        assert!(tokio::time::timeout(Duration::ZERO, waits).await.is_err());
    }
    assert!(line.state.lock().queues.iter().all(|queue| queue.waiting.is_empty()));
    let bounded = |queue: &Queue| queue.last.len() <= 2 * REMEMBERED;
    assert!(line.state.lock().queues.iter().all(bounded), "what is remembered is bounded");
    drop(held);
    assert!(line.take(&client(1), Standing::Stranger, until).await.is_some());
    assert_eq!(line.state.lock().running, [0; 3]);
}
