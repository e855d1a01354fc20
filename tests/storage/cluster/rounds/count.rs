//! What is sent in the rounds, and what arrives.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use support::senders::{Letter, Raw};
use support::sink::Sink;
use support::two_systems::{TwoSystems, message, token};

/// The pause of a sender before each message.
const PACE: Duration = Duration::from_millis(40);
/// How long next hops are up, and then down.
const UP: Duration = Duration::from_secs(5);
const DOWN: Duration = Duration::from_secs(2);
/// What a node had sent before it died is read after that at most so late.
const LATE: Duration = Duration::from_secs(1);

/// What the senders know.
#[derive(Default)]
pub(super) struct Sent {
    acknowledged: Mutex<Vec<String>>,
    refused: AtomicUsize,
    /// Messages without a reply to their end.
    unanswered: AtomicUsize,
    /// Replies for good, of which there must be none: everybody exists.
    denied: Mutex<Vec<String>>,
    is_over: AtomicBool,
}

impl Sent {
    pub(super) fn acknowledged(&self) -> usize {
        self.acknowledged.lock().len()
    }

    /// How many transactions heard 451.
    pub(super) fn refused(&self) -> usize {
        self.refused.load(Ordering::SeqCst)
    }
}

/// Ends senders and weather when it is dropped, also by a round that fails.
pub(super) struct Over<'a>(pub(super) &'a Sent);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::SeqCst);
    }
}

/// Whether a message is the primary organisation's, known to the directory; it shows in its token.
fn is_known(token: &str) -> bool {
    let number = token.rsplit('-').next().and_then(|number| number.parse::<usize>().ok());
    number.is_some_and(|number| number % 2 == 0)
}

/// Sends message after message to this door. None of them is sent again.
pub(super) fn send(sender: usize, door: SocketAddr, sent: &Sent) {
    for number in 0.. {
        if sent.is_over.load(Ordering::SeqCst) {
            return;
        }
        std::thread::sleep(PACE); // other tests want the processors, too
        let token = format!("s{sender}-{number}");
        let to = if is_known(&token) {
            format!("known{}@contoso.test", number % 100)
        } else {
            format!("other{number}@contoso.test")
        };
        let Some(mut raw) = Raw::try_hello(door) else { continue };
        let bytes = message(&token, if number % 50 == 7 { 400_000 } else { 3_000 });
        let (replies, end) = raw.transact(&Letter { from: "s@sender.test", to: &[&to], bytes: &bytes }, "");
        match end.or_else(|| replies.last().cloned()) {
            Some((250, _)) => sent.acknowledged.lock().push(token),
            Some((451, _)) => {
                sent.refused.fetch_add(1, Ordering::SeqCst);
            }
            Some((0, _)) => {
                sent.unanswered.fetch_add(1, Ordering::SeqCst);
            }
            Some((code @ 500..=599, text)) => sent.denied.lock().push(format!("{token} to {to}: {code} {text}")),
            _ => {}
        }
    }
}

/// The next hops go down and come up again, one after the other and both at once.
pub(super) fn change_weather(hops: &[Sink; 2], sent: &Sent) {
    let wait = |time: Duration| {
        let began = Instant::now();
        while began.elapsed() < time && !sent.is_over.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let all: [&[Sink]; 3] = [&hops[..1], &hops[1..], hops];
    for down in all.into_iter().cycle() {
        wait(UP);
        down.iter().for_each(Sink::refuse_connections);
        wait(DOWN);
        down.iter().for_each(Sink::take_connections);
        if sent.is_over.load(Ordering::SeqCst) {
            return;
        }
    }
}

/// What a node may have sent when its life ended, or its way to the database: dots without a durable outcome.
pub(super) struct Doubt {
    pub(super) node: usize,
    pub(super) from: IpAddr,
    /// All messages that had no durable outcome then, of whichever node: each has one recipient.
    pub(super) waiting: BTreeSet<String>,
    /// When this life began, and the next one.
    pub(super) began: Instant,
    pub(super) ended: Instant,
}

impl Doubt {
    /// Whether this was sent, by this node in this life, without a durable outcome.
    fn has(&self, token: &str, copies: &[Copy]) -> bool {
        let is_its = |copy: &Copy| copy.from == self.from && copy.at >= self.began && copy.at <= self.ended + LATE;
        self.waiting.contains(token) && copies.iter().any(is_its)
    }
}

/// A copy that arrived.
struct Copy {
    from: IpAddr,
    at: Instant,
}

/// What arrived, against what was sent.
pub(super) struct Counted {
    pub(super) acknowledged: usize,
    pub(super) refused: usize,
    pub(super) unanswered: usize,
    pub(super) arrived: usize,
    pub(super) lost: Vec<String>,
    /// Arrived at the other organisation.
    pub(super) misrouted: Vec<String>,
    /// Refused for good, though everybody exists.
    pub(super) denied: Vec<String>,
    /// Copies beyond the first.
    pub(super) twice: usize,
    /// Messages with more copies than lives that ended with a dot of theirs without a durable outcome.
    pub(super) unexplained: Vec<String>,
    /// Dots without a durable outcome, when a life ended.
    pub(super) dots: usize,
}

pub(super) fn count(sent: &Sent, two: &TwoSystems, doubts: &[Doubt]) -> Counted {
    let mut copies: HashMap<String, Vec<Copy>> = HashMap::new();
    let mut misrouted = Vec::new();
    for (sink, of_known) in [(&two.primary, true), (&two.secondary, false)] {
        for sunk in sink.all() {
            let token = token(&sunk);
            if is_known(&token) != of_known {
                misrouted.push(token.clone());
            }
            copies.entry(token).or_default().push(Copy { from: sunk.peer, at: sunk.at });
        }
    }
    let acknowledged = sent.acknowledged.lock();
    let in_doubt = |token: &str, copies: &[Copy]| doubts.iter().filter(|doubt| doubt.has(token, copies)).count();
    let unexplained = copies.iter().filter(|(token, copies)| copies.len() > 1 + in_doubt(token, copies));
    Counted {
        acknowledged: acknowledged.len(),
        refused: sent.refused(),
        unanswered: sent.unanswered.load(Ordering::SeqCst),
        arrived: copies.len(),
        lost: acknowledged.iter().filter(|token| !copies.contains_key(*token)).cloned().collect(),
        misrouted,
        denied: sent.denied.lock().clone(),
        twice: copies.values().map(|copies| copies.len() - 1).sum(),
        unexplained: unexplained.map(|(token, _)| token.clone()).collect(),
        dots: copies.iter().map(|(token, copies)| in_doubt(token, copies)).sum(),
    }
}

/// How often each arrived, and from where: for the words of a failure.
pub(super) fn copies_of(tokens: &[String], two: &TwoSystems) -> String {
    let all = two.primary.all().into_iter().chain(two.secondary.all());
    let these = all.filter(|sunk| tokens.contains(&token(sunk)));
    these.map(|sunk| format!("{} from {} {:?} ago\n", token(&sunk), sunk.peer, sunk.at.elapsed())).collect()
}
