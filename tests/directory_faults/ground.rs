//! A node between two sinks, under load, and what must hold of it while its directory has a fault and afterwards.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::load::{ALL, Load, Names, Whom, ask, ask_pipelined};
use crate::support::pair::{Pair, token};
use crate::support::sink::Sink;
use crate::support::wait_until;

/// Longer than a directory's `timeout` of 5 s, and shorter than anybody is to wait.
const FIRST: Duration = Duration::from_secs(6);

/// Ten recipients in one go.
const TEN: Duration = Duration::from_secs(10);

/// Once it is known that nobody answers.
const AT_ONCE: Duration = Duration::from_secs(1);

/// The test question comes every 5 s.
const RECOVERY: Duration = Duration::from_secs(9);

/// So many messages are tried during each fault, and after it.
const ENOUGH: usize = 100;

/// What is left of a directory during a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// What the node has in its cache.
    Cache,
    /// All recipients that it read before.
    Snapshot,
    /// Nothing: the fault came with a new configuration, which begins with an empty cache.
    Nothing,
    /// Those whom it finds; only its not-founds are in doubt.
    Found,
}

/// A fault, from its beginning to just before its end.
pub struct Fault {
    name: &'static str,
    left: Left,
    begun: Instant,
    noticed: Instant,
    until: Instant,
}

/// The node, its organisations and the load.
pub struct Ground {
    /// The node, and the sinks that stand for its organisations.
    pub pair: Pair,
    names: Arc<Names>,
    load: Option<Load>,
}

impl Left {
    /// The reply to RCPT.
    fn answer(self, whom: Whom) -> u16 {
        match (whom, self) {
            (Whom::CachedKnown, Self::Cache | Self::Found | Self::Snapshot)
            | (Whom::Known, Self::Found | Self::Snapshot) => 250,
            (Whom::CachedKnown, Self::Nothing)
            | (Whom::Known, Self::Cache | Self::Nothing)
            | (Whom::CachedUnknown | Whom::Unknown, _) => 451,
        }
    }
}

impl Ground {
    /// Starts a node with that directory (named `people`), fills its cache, and begins to send.
    pub fn start(directory: &str) -> Self {
        let mut pair = Pair::prepare(directory);
        pair.node.start();
        let mut ground = Self { pair, names: Arc::default(), load: None };
        ground.is_right("at the start");
        ground.load = Some(Load::start(ground.server(), &ground.names));
        ground
    }

    /// Call when a fault has just begun: unknown recipients, and known ones that are not in the cache, get 451, soon;
    /// nobody gets a 5xx.
    pub fn suffers(&self, name: &'static str, left: Left) -> Fault {
        let begun = Instant::now();
        let server = self.server();
        if left == Left::Snapshot {
            // Whether the directory can still be followed is asked every `poll`.
            wait_until(&format!("{name}: it is noticed"), TEN, || {
                ask(server, &self.names.of(Whom::Unknown)).0.0 == 451
            });
        }
        let sorts: Vec<Whom> = (0..10).map(|n| if n % 2 == 0 { Whom::Unknown } else { Whom::Known }).collect();
        let addresses: Vec<String> = sorts.iter().map(|whom| self.names.of(*whom)).collect();
        let replies = ask_pipelined(server, &addresses);
        for (whom, (said, _)) in sorts.iter().zip(&replies) {
            assert_eq!(said.0, left.answer(*whom), "{name}: {whom:?}: {}", said.1);
            assert!(said.0 == 250 || said.1.starts_with("451 4.4.3"), "{name}: {}", said.1);
        }
        let (first, last) = (replies[0].1, replies[9].1);
        assert!(first < FIRST, "{name}: the first 451 took {first:?}");
        assert!(last < TEN, "{name}: ten recipients took {last:?}");
        let noticed = Instant::now();
        let rest = (TEN * 2).saturating_sub(begun.elapsed());
        wait_until(&format!("{name}: nobody waits any more"), rest, || self.up() == 0.0);

        for whom in ALL {
            let (said, took) = ask(server, &self.names.of(whom));
            assert_eq!(said.0, left.answer(whom), "{name}: {whom:?}: {}", said.1);
            assert!(took < AT_ONCE, "{name}: {whom:?} took {took:?}");
        }
        let unknown = self.names.unknown_at("fabrikam.test");
        for (address, code) in [("nobody@fabrikam.test", 451), (&*unknown, 451), ("postmaster@contoso.test", 250)] {
            let (said, took) = ask(server, address);
            assert_eq!(said.0, code, "{name}: {address}: {}", said.1);
            assert!(took < AT_ONCE, "{name}: {address} took {took:?}");
        }
        self.until_enough_was_tried(name, noticed);
        println!("{name}: the first 451 after {first:?}, ten recipients after {last:?}");
        Fault { name, left, begun, noticed, until: Instant::now() }
    }

    /// Call when the fault has just ended: everything is right again by itself, and nothing went wrong meanwhile.
    pub fn recovers(&self, fault: &Fault) {
        let ended = Instant::now();
        self.is_right(fault.name);
        println!("{}: right again after {:?}", fault.name, ended.elapsed());
        let mut tried = 0;
        for tried_one in self.load.as_ref().unwrap().tries() {
            let fresh = matches!(tried_one.whom, Whom::Known | Whom::Unknown);
            // What was asked for before may be answered from the cache until the fault is noticed.
            let since = if fresh && fault.left != Left::Snapshot { fault.begun } else { fault.noticed };
            if tried_one.sent >= since && tried_one.answered <= fault.until {
                assert_eq!(tried_one.said.0, fault.left.answer(tried_one.whom), "{}: {tried_one:?}", fault.name);
                tried += 1;
            }
        }
        assert!(tried >= ENOUGH, "{}: only {tried} messages were tried during the fault", fault.name);
        self.until_enough_was_tried(fault.name, Instant::now());
    }

    /// Ends the load: every message that was acknowledged is where it belongs, once, and nothing else is anywhere.
    pub fn adds_up(mut self) {
        let tries = self.load.take().unwrap().end();
        let (mut primary, mut secondary) = (HashMap::new(), HashMap::new());
        for tried in &tries {
            assert!(matches!(tried.said.0, 250 | 451), "{tried:?}");
            assert!(tried.kept != Some(false), "not acknowledged: {tried:?}");
            assert!(tried.answered - tried.sent < FIRST, "it took too long: {tried:?}");
            if tried.kept == Some(true) {
                let side = match tried.whom {
                    Whom::CachedKnown | Whom::Known => &mut primary,
                    Whom::CachedUnknown | Whom::Unknown => &mut secondary,
                };
                side.insert(tried.token.clone(), 1);
            }
        }
        let expected = primary.len() + secondary.len();
        let arrived = || self.pair.primary.all().len() + self.pair.secondary.all().len();
        wait_until("everything acknowledged arrives", Duration::from_secs(20), || arrived() >= expected);
        assert_eq!(copies(&self.pair.primary, "known"), primary, "at the primary");
        assert_eq!(copies(&self.pair.secondary, "nobody"), secondary, "at the secondary");
        let deferred = tries.iter().filter(|tried| tried.kept.is_none()).count();
        println!("{} to the primary, {} to the secondary, {deferred} deferred", primary.len(), secondary.len());
    }

    /// Waits until recipients of all sorts are answered as a healthy directory has it.
    fn is_right(&self, name: &str) {
        let server = self.server();
        let right = || {
            ask(server, &self.names.of(Whom::Unknown)).0.0 == 250
                && ask(server, &self.names.of(Whom::Known)).0.0 == 250
                && ask(server, &self.names.unknown_at("fabrikam.test")).0.0 == 550
        };
        wait_until(&format!("{name}: right again by itself"), RECOVERY, right);
        assert_eq!(self.up(), 1.0, "{name}: directory_up");
        assert_eq!(ask(server, "nobody@contoso.test").0.0, 250);
        assert_eq!(ask(server, "nobody@fabrikam.test").0.0, 550);
        for number in 0..10 {
            assert_eq!(ask(server, &format!("known{number}@contoso.test")).0.0, 250);
        }
    }

    fn until_enough_was_tried(&self, name: &str, since: Instant) {
        let load = self.load.as_ref().unwrap();
        wait_until(&format!("{name}: load"), Duration::from_secs(30), || {
            let tries = load.tries();
            let of = |whom| tries.iter().filter(|tried| tried.whom == whom && tried.sent >= since).count();
            ALL.iter().all(|whom| of(*whom) * ALL.len() > ENOUGH)
        });
    }

    fn server(&self) -> SocketAddr {
        self.pair.node.smtp
    }

    fn up(&self) -> f64 {
        self.pair.node.metric("fingerpost_directory_up{directory=\"people\"}").unwrap_or(-1.0)
    }
}

/// How often each message arrived; all its recipients' names must begin with `name`.
fn copies(sink: &Sink, name: &str) -> HashMap<String, usize> {
    let mut copies = HashMap::new();
    for sunk in sink.all() {
        assert!(sunk.to.iter().all(|to| to.starts_with(name)), "misrouted: {:?}", sunk.to);
        *copies.entry(token(&sunk)).or_insert(0) += sunk.to.len();
    }
    copies
}
