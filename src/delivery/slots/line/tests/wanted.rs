//! Holders of slots that would give them back, and are notified when a task waits.

use super::*;

/// Whether it was notified, when polled again.
fn told(task: &mut Task<'_, ()>) -> bool {
    task.poll().is_ready()
}

/// A holder that waits to be notified, and has not been polled yet.
fn again(slot: &Slot) -> Task<'_, ()> {
    Task { future: Box::pin(slot.wanted()), woken: Arc::default() }
}

#[test]
fn as_many_holders_are_told_as_are_needed() {
    let slots = Slots::default();
    let [first, second, third, _busy] = [(); 4].map(|()| now(&slots, 4, 'A'));
    let mut one = Task::waits(first.wanted());
    let two = Task::waits(second.wanted());
    let three = Task::waits(third.wanted());
    assert!(!is_wanted(&first));
    let b = waits(&slots, 4, 'B');
    assert_eq!([&one, &two, &three].map(|task| task.woken.times()), [1, 0, 0]);
    assert!(is_wanted(&second), "nobody has been polled yet");
    assert!(told(&mut one));
    drop(one);
    assert!(!is_wanted(&second) && told(&mut again(&first)));
    assert_eq!([&two, &three].map(|task| task.woken.times()), [0, 0]);
    let c = waits(&slots, 4, 'C');
    two.finish();
    assert_eq!(three.woken.times(), 0);
    drop(first);
    assert_eq!((b.woken.times(), c.woken.times(), three.woken.times()), (1, 0, 0));
    drop(second);
    assert_eq!((c.woken.times(), three.woken.times()), (1, 0));
    // The first two give their slots back, and no task waits: an earlier notification is not delivered later.
    drop((b.finish(), c.finish()));
    assert!(!is_wanted(&third));
    drop(three);
    let mut three = Task::waits(third.wanted());
    assert!(!told(&mut three));
}

#[test]
fn whoever_is_told_and_keeps_his_slot_is_told_again() {
    let slots = Slots::default();
    let [first, second] = [(); 2].map(|()| now(&slots, 2, 'A'));
    let one = Task::waits(first.wanted());
    let mut two = Task::waits(second.wanted());
    let _b = waits(&slots, 2, 'B');
    one.finish();
    assert!(!told(&mut two));
    // The holder continues.
    let mut one = again(&first);
    assert!(told(&mut one));
    assert!(!told(&mut two));
}

#[test]
fn a_holder_that_is_gone_before_he_hears_it_passes_it_on() {
    let slots = Slots::default();
    let [first, second] = [(); 2].map(|()| now(&slots, 2, 'A'));
    let [one, two] = [&first, &second].map(|slot| Task::waits(slot.wanted()));
    let _b = waits(&slots, 2, 'B');
    assert_eq!((one.woken.times(), two.woken.times()), (1, 0));
    drop(one);
    two.finish();
}

#[test]
fn one_that_is_on_its_way_back_counts_before_it_is_there() {
    let slots = Slots::default();
    let [first, second] = [(); 2].map(|()| now(&slots, 2, 'A'));
    let b = waits(&slots, 2, 'B');
    assert!(is_wanted(&first) && is_wanted(&second));
    assert!(told(&mut again(&first)));
    assert!(!is_wanted(&second));
    let two = Task::waits(second.wanted());
    let _c = waits(&slots, 2, 'C');
    two.finish();
    drop(first);
    drop(b.finish());
}

#[test]
fn those_are_told_whose_slots_would_help() {
    // The half for transactions without evidence is full: only a slot of that half helps another one.
    let slots = Slots::default();
    let [first, second] = ['a', 'b'].map(|letter| now(&slots, 4, letter));
    let vouched = now(&slots, 4, 'E');
    let (one, three) = (Task::waits(first.wanted()), Task::waits(vouched.wanted()));
    let c = waits(&slots, 4, 'c');
    assert_eq!((one.woken.times(), three.woken.times()), (1, 0));
    one.finish();
    drop(first);
    drop(c.finish());
    assert_eq!(three.woken.times(), 0);
    drop(second);
}

#[test]
fn one_of_two_halves_is_told() {
    let slots = Slots::default();
    let [first, second] = ['a', 'A'].map(|letter| now(&slots, 2, letter));
    let mut two = Task::waits(second.wanted());
    let _b = waits(&slots, 2, 'B');
    // No holder of the first half was waiting for a notification; one asks before the other exists.
    let mut one = again(&first);
    assert!(told(&mut one));
    assert_eq!(two.woken.times(), 1);
    assert!(!told(&mut two), "one is enough");
    let _c = waits(&slots, 2, 'C');
    assert_eq!(two.woken.times(), 2);
    assert!(told(&mut two));
}

#[test]
fn a_lower_limit_takes_back_as_many_as_are_too_many() {
    let slots = Slots::default();
    let held = [(); 4].map(|()| now(&slots, 4, 'A'));
    let [one, two, three, four] = held.each_ref().map(|slot| Task::waits(slot.wanted()));
    assert!(slots.try_take(&name(), 2, applicant('B')).is_none());
    assert_eq!(one.woken.times(), 0, "nobody waits");
    let b = waits(&slots, 2, 'B');
    // One change, three that should give back: each that is notified notifies the next.
    one.finish();
    two.finish();
    three.finish();
    assert_eq!(four.woken.times(), 0);
    drop(four);
    let [first, second, third, _fourth] = held;
    drop((first, second));
    assert_eq!(b.woken.times(), 0);
    drop(third);
    drop(b.finish());
}

/// Holders that give back only when notified, on real threads: every task is served all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_notice_is_lost_among_threads() {
    const TASKS: usize = 2000;
    let (slots, served) = (Arc::new(Slots::default()), Arc::new(AtomicUsize::new(0)));
    let all_served = tokio_util::sync::CancellationToken::new();
    let tasks: Vec<_> = (0..TASKS)
        .map(|number| {
            let (slots, served, all_served) = (slots.clone(), served.clone(), all_served.clone());
            tokio::spawn(async move {
                let letters = ['a', 'B', 'c', 'O', 'p', 'Q', 'D'];
                let slot = slots.take(&name(), 6, applicant(letters[number % letters.len()])).await;
                if served.fetch_add(1, Ordering::SeqCst) + 1 == TASKS {
                    all_served.cancel();
                }
                tokio::select! {
                    () = slot.wanted() => {}
                    () = all_served.cancelled() => {}
                }
            })
        })
        .collect();
    let all = async {
        for task in tasks {
            task.await.unwrap();
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), all).await.unwrap();
}
