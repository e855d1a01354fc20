//! Compares the queue with a simple model that examines every waiting transaction.

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::applicant::Client;
use super::tests::{applicant, come, kept};
use super::*;

/// A step of the model.
#[derive(Debug, Clone, Copy)]
enum Step {
    Comes(char),
    /// The holder or waiting transaction at this position, modulo their number.
    Ends(usize),
    Leaves(usize),
    IsVouchedFor(usize),
    Returns(usize),
    Limit(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let letters: Vec<char> = "abcopqABCOPQ".chars().collect();
    let step = prop_oneof![
        8 => prop::sample::select(letters).prop_map(Step::Comes),
        5 => any::<usize>().prop_map(Step::Ends),
        2 => any::<usize>().prop_map(Step::Leaves),
        1 => any::<usize>().prop_map(Step::IsVouchedFor),
        1 => any::<usize>().prop_map(Step::Returns),
        1 => (0..8_usize).prop_map(Step::Limit),
    ];
    vec(step, 0..300)
}

/// A slot in the model.
#[derive(Debug, Clone, Copy)]
struct Given {
    applicant: Applicant,
    stays: Stays,
}

/// The rules, applied by examining all.
struct Model {
    limit: usize,
    held: Vec<Given>,
    /// In the order in which they came.
    waiting: Vec<(Applicant, usize, Ticket)>,
    /// By client: when it began to wait, or was last served while others of its transactions waited.
    since: Vec<(Client, Class, usize)>,
    last: Class,
    last_of: [Vouched; 2],
    clock: usize,
}

impl Model {
    fn new(limit: usize) -> Self {
        let (held, waiting, since) = (Vec::new(), Vec::new(), Vec::new());
        Self { limit, held, waiting, since, last: Class::Stranger, last_of: [Vouched::Yes; 2], clock: 0 }
    }

    fn unvouched(&self) -> usize {
        self.held.iter().filter(|given| given.applicant.vouched == Vouched::No).count()
    }

    fn fits(&self, applicant: Applicant) -> bool {
        let half = self.limit - self.limit / 2;
        self.held.len() < self.limit && (applicant.vouched == Vouched::Yes || self.unvouched() < half)
    }

    fn since(&mut self, applicant: Applicant) -> &mut usize {
        let is = |(client, class, _): &(Client, Class, usize)| (*client, *class) == (applicant.client, applicant.class);
        let at = self.since.iter().position(is).unwrap_or_else(|| {
            self.since.push((applicant.client, applicant.class, 0));
            self.since.len() - 1
        });
        &mut self.since[at].2
    }

    fn waits(&self, applicant: Applicant) -> bool {
        self.waiting.iter().any(|(who, ..)| (who.client, who.class) == (applicant.client, applicant.class))
    }

    fn comes(&mut self, applicant: Applicant, number: usize, ticket: Ticket) {
        self.clock += 1;
        if !self.waits(applicant) {
            *self.since(applicant) = self.clock;
        }
        self.waiting.push((applicant, number, ticket));
    }

    fn gives(&mut self, applicant: Applicant) {
        self.held.push(Given { applicant, stays: Stays::Kept });
        self.last = applicant.class;
        self.last_of[applicant.class as usize] = applicant.vouched;
    }

    /// The one that should be next.
    fn next(&mut self) -> Option<usize> {
        let may = |model: &Self, applicant: Applicant| {
            let vouched_waits =
                model.waiting.iter().any(|(who, ..)| (who.class, who.vouched) == (applicant.class, Vouched::Yes));
            let again = model.limit == 1 && model.last_of[applicant.class as usize] == Vouched::No && vouched_waits;
            model.fits(applicant) && (applicant.vouched == Vouched::Yes || !again)
        };
        let entitled: Vec<(Applicant, usize)> = self.waiting.iter().map(|(who, number, _)| (*who, *number)).collect();
        let entitled: Vec<_> = entitled.into_iter().filter(|(who, _)| may(self, *who)).collect();
        let last = self.last;
        let entitled = entitled.into_iter().map(|(who, number)| (who.class == last, *self.since(who), number));
        let (_, _, number) = entitled.min()?;
        let at = self.waiting.iter().position(|(_, waiting, _)| *waiting == number)?;
        let (applicant, ..) = self.waiting.remove(at);
        self.clock += 1;
        *self.since(applicant) = self.clock;
        self.gives(applicant);
        Some(number)
    }
}

/// Removes the one at this position, modulo their number.
fn pick<T>(all: &mut Vec<T>, at: usize) -> Option<T> {
    (!all.is_empty()).then(|| all.remove(at % all.len()))
}

fn perform(queue: &mut Queue<usize>, model: &mut Model, number: usize, step: Step) {
    match step {
        Step::Comes(letter) => {
            let applicant = applicant(letter);
            let taken = queue.take(applicant);
            assert_eq!(taken, model.fits(applicant), "a free slot is nobody's");
            if taken {
                model.gives(applicant);
            } else {
                let ticket = queue.wait(applicant, number);
                model.comes(applicant, number, ticket);
            }
        }
        Step::Ends(at) => {
            if let Some(Given { applicant, stays }) = pick(&mut model.held, at) {
                queue.free(Held { vouched: applicant.vouched, stays });
            }
        }
        Step::Leaves(at) => {
            if let Some((.., ticket)) = pick(&mut model.waiting, at) {
                queue.leave(ticket);
            }
        }
        Step::IsVouchedFor(at) => {
            let mut unvouched: Vec<&mut Given> =
                model.held.iter_mut().filter(|given| given.applicant.vouched == Vouched::No).collect();
            if let Some(given) = pick(&mut unvouched, at) {
                given.applicant.vouched = Vouched::Yes;
                queue.vouch(given.stays);
            }
        }
        Step::Returns(at) => {
            let mut kept: Vec<&mut Given> = model.held.iter_mut().filter(|given| given.stays == Stays::Kept).collect();
            if let Some(given) = pick(&mut kept, at)
                && queue.is_wanted(given.applicant.vouched)
            {
                given.stays = Stays::Returning;
                queue.returns(given.applicant.vouched);
            }
        }
        Step::Limit(limit) => {
            queue.configure(limit);
            model.limit = limit;
        }
    }
}

/// `is_wanted` predicts the effect of giving back, if no other slot is returned and no limit is exceeded since it was
/// lowered.
fn is_wanted_tells_the_truth(queue: &Queue<usize>, held: &[Given]) {
    let exceeded = held.len() > queue.limit() || *queue.held.of(Vouched::No) > queue.share();
    if exceeded || held.iter().any(|given| given.stays == Stays::Returning) {
        return;
    }
    for given in held {
        let mut after = queue.clone();
        after.free(kept(given.applicant.vouched));
        assert_eq!(queue.is_wanted(given.applicant.vouched), after.next().is_some(), "{given:?}");
    }
}

proptest! {
    /// After any steps the right one is next, none waits for a slot that is free for it, and no limit is exceeded.
    #[test]
    fn it_does_what_looking_at_everybody_would(limit in 1..8_usize, steps in steps()) {
        let (mut queue, mut model) = (Queue::new(limit), Model::new(limit));
        for (number, step) in steps.into_iter().enumerate() {
            let before = (model.held.len(), model.unvouched());
            perform(&mut queue, &mut model, number, step);
            loop {
                let next = queue.next().map(|(number, _)| number);
                prop_assert_eq!(next, model.next());
                if next.is_none() {
                    break;
                }
            }
            let (held, unvouched) = (model.held.len(), model.unvouched());
            prop_assert_eq!((queue.held(), *queue.held.of(Vouched::No)), (held, unvouched));
            prop_assert!(held <= model.limit.max(before.0), "{held} of {}", model.limit);
            prop_assert!(unvouched <= model.limit.div_ceil(2).max(before.1), "{unvouched} of {}", model.limit);
            prop_assert!(model.waiting.iter().all(|(applicant, ..)| !model.fits(*applicant)));
            is_wanted_tells_the_truth(&queue, &model.held);
        }
        // When all have ended nothing is left, once there are slots.
        queue.configure(limit);
        model.limit = limit;
        while queue.next().is_some() {
            model.next();
        }
        while let Some(Given { applicant, stays }) = model.held.pop() {
            queue.free(Held { vouched: applicant.vouched, stays });
            while queue.next().is_some() {
                model.next();
            }
        }
        prop_assert!(queue.is_empty() && model.waiting.is_empty());
        prop_assert_eq!((queue.held(), queue.returning.total()), (0, 0));
    }

    /// A waiting client is served after each other client of its class had one slot, and the other class as many,
    /// however many transactions the others have.
    #[test]
    fn every_client_is_served_soon(
        limit in 1..8_usize,
        waiting in vec(prop::sample::select("abcopqABCOPQ".chars().collect::<Vec<_>>()), 0..60),
        more in vec(prop::sample::select("abcopqABCOPQ".chars().collect::<Vec<_>>()), 200),
        who in prop::sample::select("ABCOPQ".chars().collect::<Vec<_>>()),
    ) {
        let mut queue = Queue::new(limit);
        for _ in 0..limit {
            come(&mut queue, 'A');
        }
        for letter in waiting.into_iter().filter(|letter| letter.to_ascii_uppercase() != who) {
            come(&mut queue, letter);
        }
        prop_assert!(come(&mut queue, who).is_some());
        let others = 2;
        let mut held = vec![Vouched::Yes; limit];
        let mut slots = 0;
        for letter in more {
            queue.free(kept(held.remove(0)));
            let (served, vouched) = queue.next().unwrap();
            held.push(vouched);
            slots += 1;
            if served == who {
                break;
            }
            if letter.to_ascii_uppercase() != who {
                come(&mut queue, letter);
            }
        }
        prop_assert!(slots <= 2 * (others + 1), "{slots}");
    }
}
