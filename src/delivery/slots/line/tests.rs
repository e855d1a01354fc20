//! Tasks that wait, are woken, and are dropped before they are woken.

use std::pin::pin;
use std::sync::atomic::AtomicUsize;
use std::task::{Wake, Waker};

use super::super::{Class, Client, Slots};
use super::*;

mod wanted;

/// Each letter is a client: from O on one of ours, before that a stranger. Lower case: without evidence for a
/// recipient.
fn applicant(letter: char) -> Applicant {
    let name = letter.to_ascii_lowercase();
    Applicant {
        client: Client::at(std::net::Ipv4Addr::from_bits(u32::from(name)).into()),
        class: if name >= 'o' { Class::Ours } else { Class::Stranger },
        vouched: if letter.is_lowercase() { Vouched::No } else { Vouched::Yes },
    }
}

fn name() -> Arc<str> {
    "secondary".into()
}

/// Whether the slot of a holder that has not been notified would help a task that waits.
fn is_wanted(slot: &Slot) -> bool {
    slot.line.look(|queue| queue.is_wanted(slot.vouched))
}

fn now(slots: &Slots, limit: usize, letter: char) -> Slot {
    slots.try_take(&name(), limit, applicant(letter)).unwrap()
}

/// Counts how often a task is woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Woken {
    fn times(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// A task that is polled by hand.
struct Task<'a, T> {
    future: std::pin::Pin<Box<dyn Future<Output = T> + 'a>>,
    woken: Arc<Woken>,
}

impl<'a, T> Task<'a, T> {
    /// Polls it once; it has to wait.
    fn waits(future: impl Future<Output = T> + 'a) -> Self {
        let mut task = Self { future: Box::pin(future), woken: Arc::default() };
        assert!(task.poll().is_pending());
        task
    }

    fn poll(&mut self) -> Poll<T> {
        let waker = Waker::from(self.woken.clone());
        self.future.as_mut().poll(&mut Context::from_waker(&waker))
    }

    /// It has been woken, and completes.
    fn finish(mut self) -> T {
        assert_eq!(self.woken.times(), 1);
        match self.poll() {
            Poll::Ready(done) => done,
            Poll::Pending => panic!("it was woken for nothing"),
        }
    }
}

fn waits(slots: &Slots, limit: usize, letter: char) -> Task<'_, Slot> {
    Task::waits(async move { slots.take(&name(), limit, applicant(letter)).await })
}

#[test]
fn a_slot_goes_to_the_next_one_and_wakes_nobody_else() {
    let slots = Slots::default();
    let first = now(&slots, 1, 'A');
    let [a, b, o] = ['A', 'B', 'O'].map(|letter| waits(&slots, 1, letter));
    assert!(slots.try_take(&name(), 1, applicant('P')).is_none());
    drop(first);
    assert_eq!([&a, &b, &o].map(|task| task.woken.times()), [0, 0, 1]);
    // It has the slot although it has not been polled: no other task can take it.
    assert!(slots.try_take(&name(), 1, applicant('P')).is_none());
    let slot = o.finish();
    drop(slot);
    assert_eq!([&a, &b].map(|task| task.woken.times()), [1, 0]);
    drop(a.finish());
    drop(b.finish());
    assert!(slots.try_take(&name(), 1, applicant('P')).is_some());
}

#[test]
fn connectors_have_slots_of_their_own() {
    let slots = Slots::default();
    let _held = now(&slots, 1, 'A');
    assert!(slots.try_take(&name(), 1, applicant('A')).is_none());
    let other = slots.try_take(&"primary".into(), 1, applicant('A'));
    assert!(other.is_some());
    assert!(slots.try_take(&"primary".into(), 1, applicant('A')).is_none());
    drop(other);
    assert!(slots.try_take(&"primary".into(), 1, applicant('A')).is_some());
}

#[test]
fn a_waiter_that_is_gone_loses_no_slot() {
    // Which task is dropped, before the slot becomes free or after it was given; which one gets it in the end.
    for (gone, when, served) in [
        ("A", "before", 'B'),
        ("AB", "before", 'C'),
        ("A", "after", 'B'),
        ("AB", "after", 'C'),
        ("C", "before", 'A'),
        ("ABC", "before", '-'),
        ("ABC", "after", '-'),
    ] {
        let slots = Slots::default();
        let first = now(&slots, 1, 'D');
        let mut tasks: Vec<_> = "ABC".chars().map(|letter| (letter, waits(&slots, 1, letter))).collect();
        if when == "before" {
            tasks.retain(|(letter, _)| !gone.contains(*letter));
            drop(first);
        } else {
            drop(first);
            for letter in gone.chars() {
                let at = tasks.iter().position(|(name, _)| *name == letter).unwrap();
                assert_eq!(tasks[at].1.woken.times(), 1, "{gone} {when}");
                tasks.remove(at);
            }
        }
        let woken: Vec<char> =
            tasks.iter().filter(|(_, task)| task.woken.times() > 0).map(|(letter, _)| *letter).collect();
        if served == '-' {
            assert!(slots.try_take(&name(), 1, applicant('E')).is_some(), "{gone} {when}");
        } else {
            assert_eq!(woken, [served], "{gone} {when}");
            assert!(slots.try_take(&name(), 1, applicant('E')).is_none(), "{gone} {when}");
        }
    }
}

#[test]
fn a_waiter_that_is_gone_wants_nothing() {
    let slots = Slots::default();
    let held = now(&slots, 1, 'A');
    let tasks = ['b', 'B', 'O'].map(|letter| waits(&slots, 1, letter));
    assert!(is_wanted(&held));
    drop(tasks);
    assert!(!is_wanted(&held));
    assert!(held.line.look(Queue::is_empty));
}

#[test]
fn a_slot_given_to_one_who_has_just_gone_goes_on() {
    // Dropped on another thread between being chosen and being sent the slot: its end of the channel is closed.
    let slots = Slots::default();
    let held = now(&slots, 1, 'A');
    for _ in 0..3 {
        let (sender, _) = oneshot::channel();
        held.line.queue.lock().wait(applicant('B'), sender);
    }
    let c = waits(&slots, 1, 'C');
    drop(held);
    drop(c.finish());
    assert!(slots.try_take(&name(), 1, applicant('D')).is_some());
}

#[test]
fn a_new_limit_holds_at_once() {
    let slots = Slots::default();
    let held = [now(&slots, 2, 'A'), now(&slots, 2, 'A')];
    let waiting = ['B', 'C'].map(|letter| waits(&slots, 2, letter));
    // A task comes with the new configuration: earlier ones are served first.
    let mut late = waits(&slots, 4, 'D');
    let _given = waiting.map(Task::finish);
    // And back: old slots count.
    assert!(late.poll().is_pending());
    assert!(slots.try_take(&name(), 2, applicant('D')).is_none());
    drop(held);
    assert_eq!(late.woken.times(), 0, "two of two are held");
    drop(_given);
    drop(late.finish());
    assert!(slots.try_take(&name(), 0, applicant('D')).is_none());
}

#[test]
fn half_is_for_those_that_nobody_vouches_for() {
    let slots = Slots::default();
    let [mut first, _second] = [now(&slots, 4, 'a'), now(&slots, 4, 'b')];
    let [c, d] = ['c', 'd'].map(|letter| waits(&slots, 4, letter));
    let vouched = now(&slots, 4, 'E');
    drop(vouched);
    assert_eq!((c.woken.times(), first.vouched), (0, Vouched::No), "a free slot is not for them");
    first.vouch();
    assert_eq!(first.vouched, Vouched::Yes);
    let c = c.finish();
    first.vouch();
    drop(first);
    assert_eq!(d.woken.times(), 0, "it had left their half before");
    drop(c);
    drop(d.finish());
}

/// Thousands of tasks on real threads, some of which give up: in the end all slots are there, and never were more in
/// use than allowed.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_among_threads() {
    let slots = Arc::new(Slots::default());
    let (held, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let tasks: Vec<_> = (0..3000_u32)
        .map(|number| {
            let (slots, held, most) = (slots.clone(), held.clone(), most.clone());
            tokio::spawn(async move {
                let letter = char::from_u32(u32::from(if number % 3 == 0 { 'a' } else { 'A' }) + number % 20).unwrap();
                let name = name();
                let mut taking = pin!(slots.take(&name, 5, applicant(letter)));
                // Every fourth one gives up after a few turns of the others.
                let mut patience = if number % 4 == 0 { number % 7 } else { u32::MAX };
                let slot = std::future::poll_fn(|context| match taking.as_mut().poll(context) {
                    Poll::Ready(slot) => Poll::Ready(Some(slot)),
                    Poll::Pending if patience == 0 => Poll::Ready(None),
                    Poll::Pending if patience < 7 => {
                        patience -= 1;
                        context.waker().wake_by_ref();
                        Poll::Pending
                    }
                    Poll::Pending => Poll::Pending,
                });
                let Some(slot) = slot.await else { return };
                let others = held.fetch_add(1, Ordering::SeqCst);
                most.fetch_max(others + 1, Ordering::SeqCst);
                for _ in 0..number % 5 {
                    tokio::task::yield_now().await;
                }
                held.fetch_sub(1, Ordering::SeqCst);
                drop(slot);
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let most = most.load(Ordering::SeqCst);
    assert!((2..=5).contains(&most), "{most} slots were in use at once");
    let all: Vec<Slot> = std::iter::from_fn(|| slots.try_take(&name(), 5, applicant('A'))).collect();
    assert_eq!(all.len(), 5);
}

#[test]
fn a_slot_that_its_holder_needs_no_longer_is_given_back_once() {
    let slots = Slots::default();
    let (mut first, _second) = (now(&slots, 2, 'A'), now(&slots, 2, 'B'));
    assert!(slots.try_take(&name(), 2, applicant('C')).is_none());
    first.give_up();
    let _third = now(&slots, 2, 'C');
    first.give_up();
    drop(first);
    assert!(slots.try_take(&name(), 2, applicant('D')).is_none());
}
