//! A node between two sinks, under load, and what must hold of it while its directory has a fault and afterwards.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::directory_faults::load::{ALL, Beside, Load, Names, Whom, ask, ask_pipelined};
use support::sink::Sink;
use support::two_systems::{TwoSystems, token};
use support::wait_until;

/// Longer than a directory's `timeout` of 5 s, and shorter than anybody is to wait.
const FIRST: Duration = Duration::from_secs(6);

/// Ten recipients in one go.
const TEN: Duration = Duration::from_secs(10);

/// Once it is known that nobody answers.
const AT_ONCE: Duration = Duration::from_secs(1);

/// The test question comes every 5 s.
const RECOVERY: Duration = Duration::from_secs(9);

/// A domain that another directory knows, and what a reply about its recipients may take whatever the fault: it is not
/// a measure of speed, and far from what a wait for a directory would be.
const OTHER_DOMAIN: &str = "litware.test";
const PROMPT: Duration = Duration::from_millis(200);

/// So many messages are tried during each fault, and after it.
const ENOUGH: usize = 100;

/// What is left of a directory during a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remaining {
    /// What the node has in its cache.
    Cache,
    /// All recipients that it read before.
    Snapshot,
    /// Nothing: the fault came with a new configuration, which begins with an empty cache.
    Nothing,
    /// Those whom it finds; only its not-founds are in doubt.
    Found,
    /// The same as [`Cache`](Self::Cache) or [`Snapshot`](Self::Snapshot) where each search exceeds a limit, which says
    /// nothing of the directory: what it said before that is believed as long as ever.
    Limited {
        /// Whether there is a snapshot.
        snapshot: bool,
    },
}

/// A fault, from its beginning to just before its end.
pub struct Fault {
    name: &'static str,
    left: Remaining,
    begun: Instant,
    noticed: Instant,
    until: Instant,
}

/// The node, its organisations and the load.
pub struct FaultTest {
    /// The node, and the sinks that stand for its organisations.
    pub systems: TwoSystems,
    names: Arc<Names>,
    load: Option<Load>,
    beside: Option<Beside>,
    /// What replies about the other domain took before any fault.
    before: Duration,
}

impl Remaining {
    /// What the reply to RCPT may be.
    fn answers(self, whom: Whom) -> &'static [u16] {
        match (whom, self) {
            (Whom::CachedKnown, Self::Cache | Self::Found | Self::Snapshot | Self::Limited { .. })
            | (Whom::Known, Self::Found | Self::Snapshot | Self::Limited { snapshot: true }) => &[250],
            (Whom::CachedUnknown, Self::Limited { .. }) => &[250, 451],
            (Whom::CachedKnown, Self::Nothing)
            | (Whom::Known, Self::Cache | Self::Nothing | Self::Limited { snapshot: false })
            | (Whom::CachedUnknown | Whom::Unknown, _) => &[451],
        }
    }
}

impl FaultTest {
    /// Starts a node with that directory (named `people`), fills its cache, and begins to send.
    pub fn start(directory: &str) -> Self {
        let mut systems = TwoSystems::prepare(&format!(
            "{directory}domains = [\"contoso.test\", \"fabrikam.test\"]\n\n\
             [[directory]]\nname = \"others\"\nkind = \"file\"\npath = \"others.csv\"\ndomains = [\"{OTHER_DOMAIN}\"]\n"
        ));
        systems.node.write("others.csv", &format!("address\nhere@{OTHER_DOMAIN}\n"));
        let domain = format!(
            "[[accepted_domain]]\ndomain = \"{OTHER_DOMAIN}\"\ntype = \"authoritative\"\ndeliver_to = \"primary\"\n"
        );
        systems.node.write("domains.d/others.toml", &domain);
        systems.node.start();
        let (load, beside, before) = (None, None, Duration::ZERO);
        let mut test = Self { systems, names: Arc::default(), load, beside, before };
        test.is_right("at the start");
        test.load = Some(Load::start(test.server(), &test.names));
        let (begun, beside) = (Instant::now(), Beside::start(test.server(), OTHER_DOMAIN));
        test.until_enough_was_tried("at the start", begun);
        test.before = beside.took(begun, Instant::now()).0;
        test.beside = Some(beside);
        test
    }

    /// Lets the node take over another configuration.
    pub fn load(&self, text: &str) {
        self.systems.node.write("fingerpost.toml", text);
        let reload = self.systems.node.run(&["reload"]);
        assert!(reload.status.success(), "{reload:?}");
    }

    /// Call when a fault has just begun: unknown recipients, and known ones that are not in the cache, get 451, soon;
    /// nobody gets a 5xx.
    pub fn suffers(&self, name: &'static str, left: Remaining) -> Fault {
        let begun = Instant::now();
        let server = self.server();
        if matches!(left, Remaining::Snapshot | Remaining::Limited { snapshot: true }) {
            // Whether the directory can still be followed is asked every `poll`, of a second. What was on its way when the
            // fault began may show once more that it can.
            let mut since = None;
            wait_until(&format!("{name}: it is noticed"), TEN, || {
                let asked = Instant::now();
                let noticed = ask(server, &self.names.of(Whom::Unknown)).0.0 == 451;
                since = noticed.then(|| since.unwrap_or(asked));
                since.is_some_and(|since| since.elapsed() > Duration::from_millis(1500))
            });
        }
        let sorts: Vec<Whom> = (0..10).map(|n| if n % 2 == 0 { Whom::Unknown } else { Whom::Known }).collect();
        let addresses: Vec<String> = sorts.iter().map(|whom| self.names.of(*whom)).collect();
        let replies = ask_pipelined(server, &addresses);
        for (whom, (said, _)) in sorts.iter().zip(&replies) {
            assert!(left.answers(*whom).contains(&said.0), "{name}: {whom:?}: {}", said.1);
            assert!(said.0 == 250 || said.1.starts_with("451 4.4.3"), "{name}: {}", said.1);
        }
        let (first, last) = (replies[0].1, replies[9].1);
        assert!(first < FIRST, "{name}: the first 451 took {first:?}");
        assert!(last < TEN, "{name}: ten recipients took {last:?}");
        let noticed = Instant::now();
        let rest = (TEN * 2).saturating_sub(begun.elapsed());
        wait_until(&format!("{name}: nobody waits any more"), rest, || {
            ask(server, &self.names.of(Whom::Unknown)).1 < AT_ONCE
        });

        for whom in ALL {
            let (said, took) = ask(server, &self.names.of(whom));
            assert!(left.answers(whom).contains(&said.0), "{name}: {whom:?}: {}", said.1);
            assert!(took < AT_ONCE, "{name}: {whom:?} took {took:?}");
        }
        let unknown = self.names.unknown_at("fabrikam.test");
        let [cached, fresh] = [Whom::CachedUnknown, Whom::Unknown].map(|whom| left.answers(whom));
        // In an authoritative domain nobody is relayed.
        let cached = if cached.contains(&250) { &[550, 451] } else { cached };
        for (address, codes) in
            [("nobody@fabrikam.test", cached), (&*unknown, fresh), ("postmaster@contoso.test", &[250])]
        {
            let (said, took) = ask(server, address);
            assert!(codes.contains(&said.0), "{name}: {address}: {}", said.1);
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
            let since = if fresh && !matches!(fault.left, Remaining::Snapshot | Remaining::Limited { .. }) {
                fault.begun
            } else {
                fault.noticed
            };
            if tried_one.sent >= since && tried_one.answered <= fault.until {
                let answers = fault.left.answers(tried_one.whom);
                assert!(answers.contains(&tried_one.said.0), "{}: {tried_one:?}", fault.name);
                tried += 1;
            }
        }
        let (median, long) = self.beside.as_ref().unwrap().took(fault.begun, fault.until);
        println!("{}: {OTHER_DOMAIN} was answered in {median:?}, before any fault in {:?}", fault.name, self.before);
        assert!(long < PROMPT, "{}: others waited {long:?}", fault.name);
        assert!(tried >= ENOUGH, "{}: only {tried} messages were tried during the fault", fault.name);
        self.until_enough_was_tried(fault.name, Instant::now());
    }

    /// Ends the load: every message that was acknowledged is where it belongs, once, and nothing else is anywhere.
    pub fn adds_up(mut self) {
        self.beside.take().unwrap().end();
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
        let arrived = || self.systems.primary.all().len() + self.systems.secondary.all().len();
        wait_until("everything acknowledged arrives", Duration::from_secs(20), || arrived() >= expected);
        assert_eq!(copies(&self.systems.primary, "known"), primary, "at the primary");
        assert_eq!(copies(&self.systems.secondary, "nobody"), secondary, "at the secondary");
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
        self.systems.node.smtp
    }

    fn up(&self) -> f64 {
        self.systems.node.metric("fingerpost_directory_up{directory=\"people\"}").unwrap_or(-1.0)
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
