//! Mail servers that keep their no back for a while (Exchange's tarpit, 5 s and more): whoever exists is found at once,
//! whoever does not is refused in the end, and nobody waits for another one's no. Most with a server that is a table, and a
//! paused clock; one with the program.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fingerpost::config::{AskedServer, CallAheadConfig};
use fingerpost::directory::call_ahead::MAX_PROBES;
use fingerpost::directory::call_ahead::prober::{Heard, Prober, Probing, Until};
use fingerpost::lookup::{Freshness, Kind};
use fingerpost::metrics::Metrics;
use fingerpost::smtp::address::Address;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use crate::asker::{LookupResult, result_of};
use crate::call_ahead::{CallAheadAsker, servers};
use support::scripted_smtp_server::ScriptedSmtpServer;
use support::senders::Raw;
use support::tables::BASE_TABLES;
use support::test_node::TestNode;

const FOUND: LookupResult = LookupResult::Found(Kind::Mailbox);

/// A server that has everybody whose name does not begin with `x` (nor with `fingerpost-nobody-`), says yes after 50 ms and
/// no after its tarpit.
pub struct Tarpit {
    holds: Mutex<Duration>,
    /// Whether it takes mail for everybody, at once.
    everybody: AtomicBool,
    asked: Mutex<HashMap<String, usize>>,
    /// How many questions are under way, and how many were at most.
    under_way: Mutex<(usize, usize)>,
}

struct UnderWay<'a>(&'a Tarpit);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.lock().unwrap().0 -= 1;
    }
}

impl Tarpit {
    pub fn new(holds: Duration) -> Arc<Self> {
        Arc::new(Self {
            holds: Mutex::new(holds),
            everybody: AtomicBool::new(false),
            asked: Mutex::default(),
            under_way: Mutex::default(),
        })
    }

    /// How often those were asked about whose local part begins so.
    fn asked(&self, beginning: &str) -> usize {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|(local, _)| local.starts_with(beginning)).map(|(_, times)| times).sum()
    }

    /// How many questions were under way at once, since it was asked last.
    pub fn most_under_way(&self) -> usize {
        self.under_way.lock().unwrap().1
    }

    fn guards(&self) -> usize {
        self.asked("fingerpost-nobody-")
    }
}

impl Prober for Tarpit {
    fn probe<'a>(&'a self, _: &'a AskedServer, address: &'a Address, until: Until) -> Probing<'a> {
        Box::pin(async move {
            let under_way = UnderWay(self);
            {
                let mut count = self.under_way.lock().unwrap();
                *count = (count.0 + 1, count.1.max(count.0 + 1));
            }
            let local = address.local().to_string();
            let refuses = !self.everybody.load(Ordering::Relaxed);
            let unknown = refuses && (local.starts_with('x') || local.starts_with("fingerpost-nobody-"));
            *self.asked.lock().unwrap().entry(local).or_default() += 1;
            let (holds, heard) = match unknown {
                true => (*self.holds.lock().unwrap(), Heard::Unknown),
                false => (Duration::from_millis(50), Heard::Accepted("250 ok".to_owned())),
            };
            let heard = timeout_at(until.answered, async { sleep(holds).await }).await.map(|()| heard);
            drop(under_way);
            heard.unwrap_or_else(|_| Heard::Withheld("no answer to RCPT in time".to_owned()))
        })
    }
}

pub fn directory(server: &Arc<Tarpit>) -> Arc<CallAheadAsker> {
    changed(server, |_| {})
}

fn changed(server: &Arc<Tarpit>, change: impl FnOnce(&mut CallAheadConfig)) -> Arc<CallAheadAsker> {
    let mut config = servers(&[]);
    change(&mut config);
    let prober: Arc<dyn Prober> = server.clone();
    Arc::new(CallAheadAsker::with(&config, &prober, Metrics::new()))
}

/// What is said of somebody there, and how long it took in tenths of a second.
async fn ask(asker: &CallAheadAsker, local: &str) -> (LookupResult, u128) {
    let start = Instant::now();
    let answer = asker.answer(&format!("{local}@contoso.com"), Freshness::Any).await;
    (result_of(&answer.lookup), start.elapsed().as_millis() / 100)
}

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test(start_paused = true)]
async fn who_exists_waits_for_the_first_guard_question_only_and_who_does_not_is_refused_at_the_second_try() {
    for (holds, unknown) in [
        (0, LookupResult::NotFound),
        (4, LookupResult::NotFound),
        (6, LookupResult::Unavailable),
        (15, LookupResult::Unavailable),
        (44, LookupResult::Unavailable),
    ] {
        let server = Tarpit::new(s(holds));
        let asker = directory(&server);
        let (said, waited) = ask(&asker, "alice").await;
        assert_eq!((said, waited), (FOUND, u128::from(holds) * 10), "tarpit of {holds} s");
        assert_eq!(ask(&asker, "alice").await, (FOUND, 0), "tarpit of {holds} s: the next one");
        assert_eq!((server.asked("alice"), server.guards()), (1, 1), "nobody is asked about twice");
        assert_eq!(ask(&asker, "bob").await, (FOUND, 0));

        let (said, waited) = ask(&asker, "xavier").await;
        assert_eq!(said, unknown, "tarpit of {holds} s");
        assert!(waited <= 51, "{waited}");
        sleep(s(holds)).await;
        assert_eq!(ask(&asker, "xavier").await, (LookupResult::NotFound, 0), "it was asked to the end");
        assert_eq!((server.asked("xavier"), server.guards(), asker.up()), (1, 1, 1));
    }
}

/// A server that says nothing to the guard question at all is not believed, and waited for no longer than that takes.
#[tokio::test(start_paused = true)]
async fn a_guard_question_without_an_answer_leaves_doubt() {
    let server = Tarpit::new(s(60));
    let asker = directory(&server);
    let (said, waited) = ask(&asker, "alice").await;
    assert_eq!(said, LookupResult::Unavailable);
    assert!((450..=502).contains(&waited), "{waited}");
}

/// What was known last: for a day, and no longer than until there is an answer.
#[tokio::test(start_paused = true)]
async fn the_last_known_manner_holds_while_the_guard_question_is_out() {
    let server = Tarpit::new(s(6));
    let asker = directory(&server);
    ask(&asker, "alice").await;
    // From now on it says neither yes nor no about strangers.
    *server.holds.lock().unwrap() = s(60);
    for (pause, hour, found) in [(1, 1, true), (11, 12, true), (11, 23, true), (2, 25, false)] {
        sleep(s(pause * 3600)).await;
        let (said, waited) = ask(&asker, &format!("a{hour}")).await;
        assert_eq!(said == FOUND, found, "after {hour} hours: {said:?}");
        assert!(!found || waited <= 11, "after {hour} hours: {waited}");
    }
    *server.holds.lock().unwrap() = s(6);
    sleep(s(60)).await;
    assert_eq!(ask(&asker, "bob").await.0, FOUND);
}

/// The same the other way round: a server that took mail for everybody is not believed before it refused a stranger.
#[tokio::test(start_paused = true)]
async fn one_that_accepted_everything_is_waited_for_as_little() {
    let server = Tarpit::new(s(0));
    server.everybody.store(true, Ordering::Relaxed);
    let asker = directory(&server);
    assert_eq!(ask(&asker, "alice").await.0, LookupResult::AcceptsEverything);
    server.everybody.store(false, Ordering::Relaxed);
    *server.holds.lock().unwrap() = s(20);
    sleep(s(61)).await;
    assert_eq!(ask(&asker, "alice").await, (LookupResult::AcceptsEverything, 10), "the guard question is out");
    sleep(s(20)).await;
    assert_eq!(ask(&asker, "bob").await, (FOUND, 0), "it refused a stranger");
}

#[tokio::test(start_paused = true)]
async fn a_late_no_is_waited_for_at_the_next_try_however_late_that_comes() {
    let server = Tarpit::new(s(15));
    let asker = directory(&server);
    assert_eq!(ask(&asker, "xavier").await, (LookupResult::Unavailable, 51));
    for pause in [300, 900, 4 * 3600] {
        sleep(s(pause)).await;
        assert_eq!(ask(&asker, "xavier").await, (LookupResult::NotFound, 150), "after {pause} s");
    }
    // Who is refused in time again is nothing special any more.
    *server.holds.lock().unwrap() = s(1);
    sleep(s(300)).await;
    assert_eq!(ask(&asker, "xavier").await, (LookupResult::NotFound, 10));
    *server.holds.lock().unwrap() = s(15);
    sleep(s(300)).await;
    assert_eq!(ask(&asker, "xavier").await, (LookupResult::Unavailable, 51));
}

#[tokio::test(start_paused = true)]
async fn the_guard_question_is_renewed_while_nobody_waits() {
    for (holds, found) in [(6, 600), (40, 600), (6, 60)] {
        let server = Tarpit::new(s(holds));
        let asker = changed(&server, |config| config.cache.found = s(found));
        ask(&asker, "alice").await;
        sleep(s(holds)).await;
        for hour in 1..=20 {
            sleep(s(3600)).await;
            assert_eq!(ask(&asker, &format!("a{hour}")).await, (FOUND, 0), "hour {hour}, tarpit of {holds} s");
        }
        let guards = server.guards();
        let most = 21 * 3600 / (found / 5 * 4);
        assert!(guards as u64 <= most, "{guards} in 20 hours, more than {most}");
        // A domain that gets no mail is asked about for a day more.
        sleep(s(25 * 3600)).await;
        let guards = server.guards();
        sleep(s(25 * 3600)).await;
        assert_eq!(server.guards(), guards);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_refuses_at_once_is_asked_about_nobody_only_when_mail_comes() {
    let server = Tarpit::new(Duration::ZERO);
    let asker = directory(&server);
    for (pause, guards) in [(0, 0), (470, 1), (20, 1), (3600, 2)] {
        sleep(s(pause)).await;
        assert_eq!(server.guards(), guards, "before the question after {pause} s");
        assert_eq!(ask(&asker, "alice").await.0, FOUND);
        sleep(s(1)).await;
    }
    assert_eq!(server.guards(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_fails_is_tried_again_until_it_succeeds() {
    let server = Tarpit::new(s(6));
    let asker = directory(&server);
    ask(&asker, "alice").await;
    sleep(s(10)).await;
    *server.holds.lock().unwrap() = s(60);
    sleep(s(500)).await;
    assert_eq!(server.guards(), 2);
    assert_eq!(ask(&asker, "bob").await, (FOUND, 0), "what was known holds");
    *server.holds.lock().unwrap() = s(6);
    sleep(s(120)).await;
    assert_eq!(ask(&asker, "carol").await, (FOUND, 0));
    assert_eq!(asker.up(), 1);
}

#[tokio::test(start_paused = true)]
async fn somebody_who_guesses_addresses_does_not_keep_the_others_out() {
    for holds in [6, 15, 40] {
        let server = Tarpit::new(s(holds));
        let asker = directory(&server);
        ask(&asker, "alice").await;
        sleep(s(holds)).await;
        let mut guesses = JoinSet::new();
        let guesser = Arc::clone(&asker);
        guesses.spawn(async move {
            let mut tasks = JoinSet::new();
            for number in 0..180 {
                let asker = Arc::clone(&guesser);
                tasks.spawn(async move { ask(&asker, &format!("x{number}")).await.0 });
                sleep(Duration::from_millis(333)).await;
            }
            tasks.join_all().await
        });
        sleep(s(5)).await;
        for number in 0..50 {
            let (said, waited) = ask(&asker, &format!("a{number}")).await;
            assert_eq!(said, FOUND, "tarpit of {holds} s, {number}");
            assert!(waited <= 15, "tarpit of {holds} s, {number}: {waited}");
            sleep(s(1)).await;
        }
        let guessed = guesses.join_all().await.concat();
        assert!(guessed.iter().all(|said| *said == LookupResult::Unavailable), "{guessed:?}");
        assert_eq!(asker.up(), 1, "it is well");
        // Half of the places are for who waits to the end.
        sleep(s(45)).await;
        let known = asker.count("not-found");
        assert!(known >= 4 * 60 / holds, "only {known} of 180 are known to be nobody, tarpit of {holds} s");
        assert!(server.under_way.lock().unwrap().1 <= MAX_PROBES + 1);
    }
}

/// A node for contoso.test, whose people only their mail server knows.
fn prepare_node(server: &ScriptedSmtpServer) -> TestNode {
    let node = TestNode::prepare();
    let (ip, port) = (server.address.ip(), server.address.port());
    node.write(
        "fingerpost.toml",
        &format!(
            "{BASE_TABLES}[[receive_connector]]\nname = \"internet\"\nbind = [\"{{smtp}}\"]\nremote_networks = [\"127.0.0.0/8\"]\n\n\
             [[accepted_domain]]\ndomain = \"contoso.test\"\ndeliver_to = \"exchange\"\n\n\
             [[directory]]\nname = \"people\"\nkind = \"call-ahead\"\nsend_connector = \"exchange\"\n\
             domains = [\"contoso.test\"]\n\n\
             [[send_connector]]\nname = \"exchange\"\norganization = \"primary\"\nsmart_hosts = [\"[{ip}]:{port}\"]\n\
             delivery = \"queue\"\n"
        ),
    );
    node
}

/// What RCPT is answered, and after how many tenths of a second.
fn rcpt(node: &TestNode, local: &str) -> (String, u128) {
    let mut raw = Raw::hello(node.smtp);
    raw.say("MAIL FROM:<joe@sender.test>");
    let start = std::time::Instant::now();
    let said = raw.say(&format!("RCPT TO:<{local}@contoso.test>")).1;
    (said, start.elapsed().as_millis() / 100)
}

#[test]
fn the_program_finds_whoever_exists_behind_a_tarpit_and_refuses_the_others_after_it() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let script = "rcpt to:<alice@ => 250 2.1.5 Ok\nrcpt to:<bob@ => 250 2.1.5 Ok\nrcpt to:<carol@ => 250 2.1.5 Ok\n\
                  rcpt to: => after 6000 550 5.1.10 RESOLVER.ADR.RecipientNotFound; not found";
    let hop = runtime.block_on(ScriptedSmtpServer::start(script, None));
    let mut node = prepare_node(&hop);
    node.start();
    let (said, waited) = rcpt(&node, "alice");
    assert!(said.starts_with("250") && (58..75).contains(&waited), "the guard question: {said} after {waited}");
    let (said, waited) = rcpt(&node, "bob");
    assert!(said.starts_with("250") && waited < 10, "{said} after {waited}");

    let (said, waited) = std::thread::scope(|scope| {
        let unknown = scope.spawn(|| rcpt(&node, "xavier"));
        support::wait_until("the question", s(5), || !hop.commands("RCPT TO:<xavier").is_empty());
        let (said, waited) = rcpt(&node, "carol");
        assert!(said.starts_with("250") && waited < 10, "beside a tarpitted one: {said} after {waited}");
        unknown.join().unwrap()
    });
    assert!(said.starts_with("550 5.1.1") && (58..75).contains(&waited), "{said} after {waited}");
    let (said, waited) = rcpt(&node, "xavier");
    assert!(said.starts_with("550 5.1.1") && waited < 10, "{said} after {waited}");
    assert_eq!(hop.commands("RCPT TO:<xavier").len(), 1);
    assert_eq!(hop.commands("RCPT TO:<fingerpost-nobody-").len(), 1);
    assert_eq!(node.metric("fingerpost_directory_up{directory=\"people\"}"), Some(1.0));
}
