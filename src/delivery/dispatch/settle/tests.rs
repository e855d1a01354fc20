//! How each result of an attempt is settled.

use std::time::Duration;

use super::*;
use crate::delivery::dispatch::sample::{self, route};
use crate::smtp::reply::{NO_ROUTE, TRY_AGAIN, USER_UNKNOWN};
use crate::time::UnixTime;

const RETRY: Retry = Retry {
    first: Duration::from_secs(60),
    factor: 2.0,
    max: Duration::from_secs(600),
    warn_after: Duration::from_secs(1000),
    give_up_after: Duration::from_secs(5000),
};

fn entry(state: RecipientState) -> Entry {
    sample::entry(7, &[("bob@contoso.com", "exchange", state)])
}

fn waiting((attempts, warned): (u32, bool)) -> RecipientState {
    RecipientState::Waiting(Waiting { attempts, tried: attempts, warned, ..Waiting::default() })
}

fn at(seconds: u64) -> Moment {
    Moment { day: UnixTime(seconds), queue: QueueTime(seconds), up: Duration::from_secs(3600) }
}

fn attempted(end: AttemptOutcome, reply: Reply) -> Attempted {
    Attempted {
        recipient: 0,
        known: Known { fresh: true, ..Known::default() },
        route: route("bob@contoso.com", "exchange"),
        refused_now: None,
        tries: 0,
        outcome: Outcome::answered(reply, &"hub[192.0.2.1]:25".into()),
        counts: true,
        end,
    }
}

fn settled(
    state: RecipientState,
    end: AttemptOutcome,
    reply: Reply,
    age: u64,
) -> (RecipientState, Option<Action>, Known) {
    let settled = settle(&entry(state), &attempted(end, reply), &RETRY, at(10_000 + age));
    (settled.update.state, settled.reported.map(|reported| reported.action), settled.update.known)
}

#[test]
fn a_delivery_is_over_and_told_to_who_asked() {
    for action in [None, Some(Action::Relayed), Some(Action::Delivered)] {
        let delivered = attempted(AttemptOutcome::Delivered, TRY_AGAIN);
        let outcome = Outcome { success: action, ..delivered.outcome };
        let settled = settle(&entry(waiting((0, false))), &Attempted { outcome, ..delivered }, &RETRY, at(10_001));
        assert!(matches!(settled.update.state, RecipientState::Done(Done::Delivered { .. })));
        assert_eq!(settled.reported.map(|reported| reported.action), action);
    }
}

#[test]
fn a_refusal_is_over_and_reported_with_its_words() {
    let settled =
        settle(&entry(waiting((0, false))), &attempted(AttemptOutcome::Refused, USER_UNKNOWN), &RETRY, at(10_001));
    let reported = settled.reported.unwrap();
    assert_eq!((reported.action, &reported.reply), (Action::Failed, &USER_UNKNOWN));
    assert_eq!(&*reported.next_hop, "hub[192.0.2.1]:25");
    let next_hop = "hub[192.0.2.1]:25".into();
    assert_eq!(settled.update.state, RecipientState::Done(Done::Failed { next_hop, reply: USER_UNKNOWN }));
}

#[test]
fn a_deferral_waits_warns_once_and_ends() {
    for (attempts, warned, age, warned_then, told) in [
        (0, false, 1, Some(false), None),
        (5, false, 999, Some(false), None),
        (5, false, 1000, Some(true), Some(Action::Delayed)),
        (6, true, 1600, Some(true), None),
        (9, true, 5000, None, Some(Action::Failed)),
        (0, true, 5000, Some(true), None), // hardly tried: it was held, or we were stopped
    ] {
        let (state, action, known) = settled(waiting((attempts, warned)), AttemptOutcome::Deferred, TRY_AGAIN, age);
        assert_eq!(action, told, "{attempts} {warned} {age}");
        assert!(!known.fresh, "the next attempt decides again");
        match (state, warned_then) {
            (
                RecipientState::Waiting(Waiting { attempts: then, next_attempt, warned, last_error, .. }),
                Some(expected),
            ) => {
                assert_eq!((then, warned), (attempts + 1, expected));
                assert!(next_attempt > UnixTime(10_000 + age));
                assert!(last_error.starts_with("hub[192.0.2.1]:25: 451"), "{last_error}");
            }
            (RecipientState::Done(Done::Failed { reply, next_hop }), None) => {
                assert_eq!(reply.enhanced, Some(Enhanced(5, 4, 7)));
                assert!(reply.text.contains("451 4.3.0"), "{reply}");
                assert_eq!(&*next_hop, "", "we say so, not the next hop");
            }
            (state, _) => panic!("{state:?} at {age}"),
        }
    }
}

#[test]
fn an_attempt_counts_where_somebody_was_really_tried() {
    for (counts, ends) in [(true, true), (false, false)] {
        let attempted = Attempted { counts, ..attempted(AttemptOutcome::Deferred, TRY_AGAIN) };
        let before = RecipientState::Waiting(Waiting { attempts: 70, tried: 2, warned: true, ..Waiting::default() });
        let state = settle(&entry(before), &attempted, &RETRY, at(15_000)).update.state;
        match state {
            RecipientState::Waiting(Waiting { attempts, tried, .. }) => {
                assert_eq!((attempts, tried, ends), (71, 2, false))
            }
            _ => assert!(ends),
        }
    }
}

#[test]
fn what_may_have_arrived_says_so_to_its_end() {
    let broke =
        |end| Attempted { outcome: Outcome::in_doubt(&"hub".into(), "it broke off"), ..attempted(end, TRY_AGAIN) };
    let mut entry = entry(waiting((0, false)));
    // The age at the attempt, and whether the connection broke; then how often it may have arrived, and the least wait.
    for (age, broken, in_doubt, least, why) in [
        (10, true, 1, 600, Why::InDoubt),
        (700, false, 1, 54, Why::Deferred), // an ordinary wait: the hop said no
        (800, true, 2, 2400, Why::InDoubt),
    ] {
        let attempted =
            if broken { broke(AttemptOutcome::Deferred) } else { attempted(AttemptOutcome::Deferred, TRY_AGAIN) };
        let settled = settle(&entry, &attempted, &RETRY, at(10_000 + age));
        let RecipientState::Waiting(waiting) = &settled.update.state else { panic!("it waits") };
        assert_eq!((waiting.in_doubt, waiting.why), (in_doubt, why), "{age}");
        assert!(waiting.next_attempt >= UnixTime(10_000 + age + least), "{age}: {waiting:?}");
        assert_eq!(waiting.last_error.contains("may have arrived"), broken, "{}", waiting.last_error);
        entry.recipients[0].state = settled.update.state;
    }
    let settled = settle(&entry, &attempted(AttemptOutcome::Deferred, TRY_AGAIN), &RETRY, at(15_000));
    let RecipientState::Done(Done::Failed { reply, .. }) = settled.update.state else { panic!("it is over") };
    assert!(reply.text.contains("may have arrived all the same"), "{reply}");
}

#[test]
fn a_report_that_waited_for_its_turn_ages_from_its_first_attempt() {
    let made =
        |organization: &str| sample::report(7, organization, &[("bob@contoso.com", "exchange", waiting((0, false)))]);
    let deferred = |entry: &mut Entry, attempted: &Attempted, now| {
        let settled = settle(entry, attempted, &RETRY, at(now));
        entry.recipients[0].state = settled.update.state;
        matches!(entry.recipients[0].state, RecipientState::Done(_))
    };
    let attempted = attempted(AttemptOutcome::Deferred, TRY_AGAIN);
    // Made at 10,000, first tried ten days later: it has all its 5,000 seconds then.
    let late = 10_000 + 864_000;
    let mut report = made("");
    let ends = [0, 60, 120, 4_999, 5_000].map(|after| deferred(&mut report, &attempted, late + after));
    assert_eq!(ends, [false, false, false, false, true]);
    // A report about our own mail did not have to wait.
    let mut report = made("primary");
    let ends = [0, 60, 120].map(|after| deferred(&mut report, &attempted, late + after));
    assert_eq!(ends, [false, false, true]);
    // A failure to route it was not an attempt.
    let mut report = made("");
    let undecided = Attempted { route: route("bob@contoso.com", UNDECIDED), ..attempted };
    assert!(!deferred(&mut report, &undecided, late));
    assert!(matches!(
        report.recipients[0].state,
        RecipientState::Waiting(Waiting { attempts: 1, ages_from: None, .. })
    ));
}

#[test]
fn a_decision_that_would_refuse_is_shown_and_nothing_more() {
    let attempted = Attempted { refused_now: Some(NO_ROUTE), ..attempted(AttemptOutcome::Deferred, TRY_AGAIN) };
    let settled = settle(&entry(waiting((1, false))), &attempted, &RETRY, at(10_100));
    let RecipientState::Waiting(Waiting { last_error, .. }) = settled.update.state else { panic!("it waits") };
    assert!(last_error.contains("a decision made now says 550 5.4.4"), "{last_error}");
    assert!(settled.reported.is_none());
}

#[test]
fn a_changed_answer_is_followed_at_once() {
    let (state, told, known) =
        settled(waiting((2, true)), AttemptOutcome::Follow(route("bob@contoso.com", "secondary")), USER_UNKNOWN, 100);
    assert!(matches!(
        state,
        RecipientState::Waiting(Waiting {
            attempts: 3,
            next_attempt: UnixTime(10_100),
            warned: true,
            followed: true,
            ..
        })
    ));
    assert_eq!(told, None);
    assert!(known.fresh);
}

#[test]
fn held_mail_is_not_reported() {
    let (state, told, _) = settled(waiting((2, false)), AttemptOutcome::Held, TRY_AGAIN, 9000);
    assert_eq!((state, told), (RecipientState::Held(HeldFor::NoConnector), None));
}
