//! Mail servers that are asked, as scripts: what is believed, what is remembered, how often they are asked and how long
//! anybody waits for them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fingerpost::config::{AskedServer, CacheConfig, CallAheadConfig, SmtpOut, Speaks};
use fingerpost::directory::Directory;
use fingerpost::directory::call_ahead::prober::Prober;
use fingerpost::directory::call_ahead::{CallAheadDirectory, MAX_PROBES};
use fingerpost::lookup::{Answer, Fresh, Freshness, Kind, Lookup, Question};
use fingerpost::metrics::Metrics;
use fingerpost::smtp::address::Address;
use fingerpost::smtp::domain::Domain;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::asker::{LookupResult, prober, result_of};
use support::letter::{connector, smart_host, smtp_out};
use support::scripted_smtp_server::ScriptedSmtpServer;

/// It has alice and nobody else.
const ALICE: &str = "rcpt to:<alice@ => 250 2.1.5 Ok\nrcpt to: => 550 5.1.1 no such user";

/// A directory under test; dropping it ends nothing.
pub struct CallAheadAsker {
    pub directory: CallAheadDirectory,
    pub metrics: Metrics,
}

impl CallAheadAsker {
    pub fn new(config: &CallAheadConfig) -> Self {
        let metrics = Metrics::new();
        let prober = prober(&metrics);
        Self::with(config, &prober, metrics)
    }

    /// With somebody else who speaks with the server.
    pub fn with(config: &CallAheadConfig, prober: &Arc<dyn Prober>, metrics: Metrics) -> Self {
        let directory = CallAheadDirectory::open(&"gw".into(), config, prober, &metrics).unwrap();
        Self { directory, metrics }
    }

    pub async fn answer(&self, address: &str, freshness: Freshness) -> Answer {
        let address = Address::parse(address).unwrap();
        self.directory.ask(&Question { directory: "gw".into(), address, freshness }).await
    }

    pub async fn ask(&self, address: &str) -> LookupResult {
        result_of(&self.answer(address, Freshness::Any).await.lookup)
    }

    /// Why nothing is known.
    pub async fn cause(&self, address: &str) -> String {
        match self.answer(address, Freshness::Any).await.lookup {
            Lookup::Unavailable(cause) => cause.to_string(),
            other => panic!("{address}: {other:?}"),
        }
    }

    /// Asks about that address until the answer is that.
    pub async fn until(&self, address: &str, expected: &LookupResult, within: Duration) {
        let start = Instant::now();
        while self.ask(address).await != *expected {
            assert!(start.elapsed() < within, "not {expected:?} within {within:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn up(&self) -> i64 {
        self.metrics.directory_up.with_label_values(&["gw"]).get()
    }

    pub fn accepts_everything(&self) -> i64 {
        self.metrics.directory_accepts_everything.with_label_values(&["gw"]).get()
    }

    pub fn count(&self, result: &str) -> u64 {
        self.metrics.directory_lookups.with_label_values(&["gw", result]).get()
    }
}

fn through(smtp: SmtpOut) -> CallAheadConfig {
    let connector = connector(smtp);
    CallAheadConfig {
        send_connector: Arc::clone(&connector.name),
        server: Some(AskedServer { connector: Arc::new(connector), ehlo: Domain::parse("mx.contoso.com").unwrap() }),
        timeout: Duration::from_secs(5),
        cache: CacheConfig { found: Duration::from_secs(600), not_found: Duration::from_secs(60), entries: 1000 },
        probes_per_second: 1000,
    }
}

/// A configuration for these smart hosts with the defaults of the operator's file, and no rate limit to speak of.
pub fn servers(smart_hosts: &[SocketAddr]) -> CallAheadConfig {
    through(smtp_out(smart_hosts.iter().copied().map(smart_host).collect()))
}

async fn advance(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

/// How often an address was asked about.
fn probes(hop: &ScriptedSmtpServer, local: &str) -> usize {
    hop.commands(&format!("RCPT TO:<{local}")).len()
}

async fn until_probed(hop: &ScriptedSmtpServer, local: &str, times: usize) {
    let start = Instant::now();
    while probes(hop, local) < times {
        assert!(start.elapsed() < Duration::from_secs(5), "{local} is not asked about {times} times");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(probes(hop, local), times);
}

#[tokio::test]
async fn who_is_accepted_is_there_and_nothing_is_sent() {
    for pipelining in ["", "ehlo => 250 next.hop\n"] {
        let script = "rcpt to:<full@ => 452 4.2.2 full\nrcpt to:<grey@ => 451 4.7.1 greylisted\n\
                      rcpt to:<spam@ => 554 5.7.1 blocked\nrcpt to:<relay@ => 550 5.7.1 relaying denied\n";
        let hop = ScriptedSmtpServer::start(&format!("{pipelining}{script}{ALICE}"), None).await;
        let asker = CallAheadAsker::new(&servers(&[hop.address]));
        let answer = asker.answer("alice@contoso.com", Freshness::Live).await;
        let Lookup::Found(alice) = &answer.lookup else { panic!("{answer:?}") };
        assert_eq!((alice.kind, answer.fresh), (Kind::Mailbox, Fresh::Live));
        assert_eq!((&*alice.entry, &*alice.rule), ("out: 250 2.1.5 Ok", "RCPT TO accepted"));
        assert_eq!(asker.ask("bob@contoso.com").await, LookupResult::NotFound);
        assert_eq!(asker.cause("full@contoso.com").await, "out: 452 4.2.2 full");
        assert_eq!(asker.cause("grey@contoso.com").await, "out: 451 4.7.1 greylisted");
        assert_eq!(asker.cause("spam@contoso.com").await, "out: 554 5.7.1 blocked");
        assert_eq!(asker.up(), 1, "that was about recipients");
        assert_eq!(asker.cause("relay@contoso.com").await, "out: 550 5.7.1 relaying denied");
        assert_eq!(asker.up(), 0, "and that about us");
        let [seen] = &hop.seen()[..] else { panic!("one connection carries all") };
        assert!(seen.lines.iter().all(|line| !line.starts_with("DATA") && !line.starts_with("QUIT")), "{seen:?}");
        let count = |start: &str| seen.lines.iter().filter(|line| line.starts_with(start)).count();
        // Six addresses and one that nobody has.
        assert_eq!((count("MAIL FROM:<>"), count("RCPT"), count("RSET")), (7, 7, 7), "{seen:?}");
        assert_eq!(probes(&hop, "fingerpost-nobody-"), 1);
    }
}

#[tokio::test]
async fn lmtp_stores_are_asked_as_well() {
    let hop = ScriptedSmtpServer::start(ALICE, None).await;
    let smtp = SmtpOut { speaks: Speaks::Lmtp, ..smtp_out(vec![smart_host(hop.address)]) };
    let asker = CallAheadAsker::new(&through(smtp));
    assert_eq!(asker.ask("alice@contoso.com").await, LookupResult::Found(Kind::Mailbox));
    assert_eq!(asker.ask("bob@contoso.com").await, LookupResult::NotFound);
    assert_eq!(hop.commands("LHLO").len(), 1);
}

#[tokio::test]
async fn many_who_ask_are_one_question() {
    let hop = ScriptedSmtpServer::start(&format!("rcpt to:<alice@ => wait\n{ALICE}"), None).await;
    let asker = Arc::new(CallAheadAsker::new(&servers(&[hop.address])));
    let mut tasks = JoinSet::new();
    for _ in 0..20 {
        let asker = Arc::clone(&asker);
        tasks.spawn(async move { asker.ask("alice@contoso.com").await });
    }
    until_probed(&hop, "alice@", 1).await;
    hop.follow(ALICE);
    assert!(tasks.join_all().await.iter().all(|said| *said == LookupResult::Found(Kind::Mailbox)));
    assert_eq!((probes(&hop, "alice@"), probes(&hop, "fingerpost-nobody-")), (1, 1));
    assert_eq!((asker.count("found"), asker.count("cached")), (1, 0));
}

#[tokio::test]
async fn answers_are_remembered_live_for_a_while_and_asked_again_before_they_end() {
    let hop = ScriptedSmtpServer::start(ALICE, None).await;
    let asker = CallAheadAsker::new(&servers(&[hop.address]));
    let (alice, bob) = ("alice@contoso.com", "bob@contoso.com");
    assert_eq!(asker.ask(alice).await, LookupResult::Found(Kind::Mailbox));
    assert_eq!(asker.ask(bob).await, LookupResult::NotFound);
    for address in [alice, bob] {
        assert_eq!(asker.answer(address, Freshness::Live).await.fresh, Fresh::Live);
    }
    assert_eq!((probes(&hop, "alice@"), probes(&hop, "bob@")), (1, 1));

    advance(Duration::from_secs(50)).await;
    assert_eq!(asker.answer(alice, Freshness::Live).await.fresh, Fresh::Live);
    assert_eq!(probes(&hop, "alice@"), 1, "younger than not_found");
    assert_eq!(asker.answer(bob, Freshness::Live).await.lookup, Lookup::NotFound);
    until_probed(&hop, "bob@", 2).await; // in the last fifth of its minute

    advance(Duration::from_secs(15)).await;
    assert_eq!(asker.answer(alice, Freshness::Any).await.fresh, Fresh::Cached);
    assert_eq!(probes(&hop, "alice@"), 1);
    assert_eq!(asker.answer(alice, Freshness::Live).await.fresh, Fresh::Live);
    assert_eq!(probes(&hop, "alice@"), 2, "no longer live");

    advance(Duration::from_secs(485)).await;
    hop.follow(&format!("rcpt to:<alice@ => wait\n{ALICE}"));
    for _ in 0..5 {
        assert_eq!(asker.answer(alice, Freshness::Any).await.fresh, Fresh::Cached, "served meanwhile");
    }
    until_probed(&hop, "alice@", 3).await;
    hop.follow(ALICE);
    let found = || asker.count("found") == 3;
    let start = Instant::now();
    while !found() {
        assert!(start.elapsed() < Duration::from_secs(5), "it is not refreshed");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(asker.answer(alice, Freshness::Live).await.fresh, Fresh::Live);
    assert_eq!(probes(&hop, "alice@"), 3);
}

#[tokio::test]
async fn who_accepts_everybody_is_not_believed_until_he_stops() {
    let hop = ScriptedSmtpServer::start("", None).await;
    let asker = CallAheadAsker::new(&servers(&[hop.address]));
    let answer = asker.answer("alice@contoso.com", Freshness::Any).await;
    let Lookup::AcceptsEverything(why) = &answer.lookup else { panic!("{answer:?}") };
    assert!(why.starts_with("out accepts every address of contoso.com"), "{why}");
    assert_eq!((asker.up(), asker.accepts_everything()), (1, 1));
    assert_eq!(asker.ask("bob@contoso.com").await, LookupResult::AcceptsEverything);
    assert_eq!(hop.commands("RCPT").len(), 2, "nobody else is asked about");
    assert_eq!(asker.count("accepts-everything"), 1);

    hop.follow(ALICE);
    assert_eq!(asker.ask("alice@contoso.com").await, LookupResult::AcceptsEverything);
    advance(Duration::from_secs(61)).await;
    assert_eq!(asker.ask("alice@contoso.com").await, LookupResult::Found(Kind::Mailbox));
    assert_eq!(asker.ask("bob@contoso.com").await, LookupResult::NotFound);
    assert_eq!(asker.accepts_everything(), 0);

    // What was believed before is not, once it accepts everybody again.
    hop.follow("");
    advance(Duration::from_secs(601)).await;
    assert_eq!(asker.ask("carol@contoso.com").await, LookupResult::AcceptsEverything);
    assert_eq!(asker.ask("alice@contoso.com").await, LookupResult::AcceptsEverything);
    assert_eq!(asker.accepts_everything(), 1);
}

#[tokio::test]
async fn each_domain_is_judged_by_itself() {
    let hop = ScriptedSmtpServer::start("rcpt to:<fingerpost-nobody- => 550 5.1.1 no such user", None).await;
    let asker = CallAheadAsker::new(&servers(&[hop.address]));
    assert_eq!(asker.ask("alice@contoso.com").await, LookupResult::Found(Kind::Mailbox));
    hop.follow("");
    assert_eq!(asker.ask("alice@fabrikam.com").await, LookupResult::AcceptsEverything);
    assert_eq!(asker.ask("bob@contoso.com").await, LookupResult::Found(Kind::Mailbox), "its strangers were refused");
    assert_eq!(asker.accepts_everything(), 1);
}

#[tokio::test]
async fn a_yes_is_nothing_while_strangers_are_neither_accepted_nor_refused() {
    let hop = ScriptedSmtpServer::start("rcpt to:<fingerpost-nobody- => 450 4.2.0 greylisted", None).await;
    let asker = CallAheadAsker::new(&servers(&[hop.address]));
    let cause = asker.cause("alice@contoso.com").await;
    assert!(cause.contains("ever says no: out: 450 4.2.0 greylisted"), "{cause}");
    assert_eq!(asker.accepts_everything(), 0);
}

#[tokio::test]
async fn nobody_waits_longer_for_a_silent_server_and_others_do_not_wait_at_all() {
    let (hop, other) = (ScriptedSmtpServer::start(ALICE, None).await, ScriptedSmtpServer::start(ALICE, None).await);
    let mut config = servers(&[hop.address]);
    config.timeout = Duration::from_secs(1);
    let (asker, beside) = (CallAheadAsker::new(&config), CallAheadAsker::new(&servers(&[other.address])));
    assert_eq!(asker.ask("alice@contoso.com").await, LookupResult::Found(Kind::Mailbox));
    assert_eq!(asker.ask("bob@contoso.com").await, LookupResult::NotFound);
    hop.follow("mail => wait\nehlo => wait");
    for number in 0..3 {
        let start = Instant::now();
        let silent = async { asker.cause(&format!("r{number}@contoso.com")).await };
        let well = async {
            assert_eq!(beside.ask(&format!("s{number}@contoso.com")).await, LookupResult::NotFound);
            start.elapsed()
        };
        let (cause, quick) = tokio::join!(silent, well);
        assert!(cause.contains("no answer in time"), "{cause}");
        assert!(start.elapsed() < Duration::from_millis(1500), "{:?}", start.elapsed());
        assert!(quick < Duration::from_millis(500), "{quick:?}");
    }
    let start = Instant::now();
    let cause = asker.cause("late@contoso.com").await;
    assert!(cause.contains("3 times in a row") && start.elapsed() < Duration::from_millis(200), "{cause}");
    assert_eq!(asker.ask("alice@contoso.com").await, LookupResult::Found(Kind::Mailbox), "who is known goes on");
    assert_eq!(asker.ask("bob@contoso.com").await, LookupResult::Unavailable, "who is not may have come meanwhile");
    assert_eq!(asker.up(), 0);

    hop.follow(ALICE);
    advance(Duration::from_secs(6)).await;
    assert_eq!(asker.ask("late@contoso.com").await, LookupResult::NotFound);
    assert_eq!(asker.up(), 1);
}

#[tokio::test]
async fn questions_under_way_are_bounded() {
    let hop = ScriptedSmtpServer::start("rcpt => wait", None).await;
    let mut config = servers(&[hop.address]);
    // Sooner than anybody gives way.
    config.timeout = Duration::from_millis(800);
    let asker = Arc::new(CallAheadAsker::new(&config));
    let mut tasks = JoinSet::new();
    let start = Instant::now();
    for number in 0..40 {
        let asker = Arc::clone(&asker);
        tasks.spawn(async move { asker.cause(&format!("r{number}@contoso.com")).await });
    }
    let causes = tasks.join_all().await;
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    let waited = causes.iter().filter(|cause| cause.contains("12 questions were under way")).count();
    assert_eq!(waited, 40 - MAX_PROBES, "{causes:?}");
    assert_eq!(hop.seen().len(), MAX_PROBES);
}

#[tokio::test]
async fn questions_come_no_faster_than_is_wanted() {
    let hop = ScriptedSmtpServer::start(ALICE, None).await;
    let mut config = servers(&[hop.address]);
    (config.timeout, config.probes_per_second) = (Duration::from_millis(900), 4);
    let asker = Arc::new(CallAheadAsker::new(&config));
    let mut tasks = JoinSet::new();
    for number in 0..10 {
        let asker = Arc::clone(&asker);
        tasks.spawn(async move { asker.answer(&format!("r{number}@contoso.com"), Freshness::Any).await.lookup });
    }
    let lookups = tasks.join_all().await;
    let late = lookups.iter().filter(
        |lookup| matches!(lookup, Lookup::Unavailable(cause) if cause.contains("more than 4 questions a second")),
    );
    assert_eq!(late.count(), 6, "{lookups:?}");
    assert_eq!(hop.commands("RCPT").len(), 4);
    assert_eq!(asker.up(), 1, "the server answers");
}

#[tokio::test]
async fn the_next_smart_host_is_asked() {
    let hop = ScriptedSmtpServer::start(ALICE, None).await;
    let silent = ScriptedSmtpServer::start("ehlo => wait", None).await;
    let mut config = servers(&[silent.address, hop.address]);
    config.timeout = Duration::from_secs(1);
    assert_eq!(CallAheadAsker::new(&config).ask("bob@contoso.com").await, LookupResult::NotFound);
    silent.follow("greeting => 554 5.3.2 no");
    assert_eq!(CallAheadAsker::new(&config).ask("bob@contoso.com").await, LookupResult::NotFound);
    assert_eq!(probes(&hop, "bob@"), 2);
}

#[tokio::test]
async fn a_smart_host_that_keeps_its_no_back_is_waited_for_beside_the_others() {
    let tarpit = ScriptedSmtpServer::start("rcpt to: => after 1500 550 5.1.1 no such user", None).await;
    let down = ScriptedSmtpServer::start("greeting => 554 5.3.2 no", None).await;
    let mut config = servers(&[tarpit.address, down.address]);
    config.timeout = Duration::from_secs(1);
    let asker = CallAheadAsker::new(&config);
    assert!(asker.cause("bob@contoso.com").await.contains("no answer in time"));
    asker.until("bob@contoso.com", &LookupResult::NotFound, Duration::from_secs(3)).await;
    assert_eq!(probes(&tarpit, "bob@"), 1);

    // One that never answers RCPT does not keep the others from it.
    let hung = ScriptedSmtpServer::start("rcpt => wait", None).await;
    let well = ScriptedSmtpServer::start(ALICE, None).await;
    let mut config = servers(&[hung.address, well.address]);
    config.timeout = Duration::from_secs(2);
    let asker = CallAheadAsker::new(&config);
    assert_eq!(asker.ask("bob@contoso.com").await, LookupResult::NotFound);
    assert_eq!((probes(&hung, "bob@"), asker.up()), (1, 1));
}

#[tokio::test]
async fn a_connection_that_died_meanwhile_is_made_anew() {
    let hop = ScriptedSmtpServer::start(&format!("first: rset => drop\n{ALICE}"), None).await;
    let asker = CallAheadAsker::new(&servers(&[hop.address]));
    assert_eq!(asker.ask("bob@contoso.com").await, LookupResult::NotFound);
    assert_eq!(asker.ask("carol@contoso.com").await, LookupResult::NotFound);
    assert_eq!(hop.seen().len(), 2);
}

#[test]
fn without_its_connector_it_does_not_open() {
    let mut config = servers(&[]);
    config.server = None;
    let metrics = Metrics::new();
    let problems = CallAheadDirectory::open(&"gw".into(), &config, &prober(&metrics), &metrics).err().unwrap();
    assert!(problems[0].contains("no send connector is called `out`"), "{problems:?}");
}
