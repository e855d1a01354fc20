//! Accidents in a directory of 2,000 entries with Exchange's attributes, as they happen to the running program: `slapd`, which
//! streams what changes, and Samba's Active Directory, which is looked at every second. With 100,000, fifty times as many of
//! everything (docs/directories/snapshots.md has the table): `make accidents`.
//!
//! Who is where is asked for each address, by the API and by RCPT; every address is that of somebody who exists, so that
//! none is ever answered 550.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fingerpost::directory::HeldList;

use support::senders::{Letter, Raw};
use support::two_systems::{TwoSystems, message};
use support::wait_until;

mod happen;
mod lab;
mod on_samba;
mod on_slapd;

/// Entries; times `u`.
const ALL: usize = 1_000;
/// The program is not optimized, and the machine may have much to do.
const LATER: Duration = Duration::from_secs(300);
/// Recipients of one message.
const CROWD: usize = 100;

/// So many addresses by where their mail goes, or by what RCPT says.
type Count = BTreeMap<String, usize>;

/// A directory as the program follows it, between both organisations.
struct FollowedDirectory {
    systems: TwoSystems,
    /// What its directory is called.
    name: &'static str,
}

/// The addresses of somebody: one in a shared domain, where mail for who is not found goes to the other side, and one in a
/// domain where it is refused.
fn addresses_of(number: usize) -> [String; 2] {
    [format!("u{number}@contoso.test"), format!("alias{number}@contoso.example")]
}

fn addresses(numbers: impl IntoIterator<Item = usize>) -> Vec<String> {
    numbers.into_iter().flat_map(addresses_of).collect()
}

/// So many of each.
fn counted<const N: usize>(expected: [(&str, usize); N]) -> Count {
    expected.into_iter().filter(|(_, count)| *count > 0).map(|(name, count)| (name.to_owned(), count)).collect()
}

const DOMAINS: &str = "[[accepted_domain]]\ndomain = \"contoso.test\"\ntype = \"internal-relay\"\ndeliver_to = \"primary\"\n\n\
     [[accepted_domain]]\ndomain = \"contoso.example\"\ntype = \"authoritative\"\ndeliver_to = \"primary\"\n";

/// Where mail for mailboxes here goes, where it is relayed or goes by a target, and where a target is.
const HERE: &str = "primary";
const RELAYED: &str = "secondary, relayed";
const AWAY: &str = "secondary, by its target";

impl FollowedDirectory {
    /// The program with this directory, once it has read it.
    fn start(name: &'static str, directory: &str) -> Self {
        let mut systems = TwoSystems::prepare(directory);
        systems.node.write("domains.d/domains.toml", DOMAINS);
        systems.node.start();
        let followed = Self { systems, name };
        followed.wait_for_read();
        followed
    }

    fn wait_for_read(&self) {
        wait_until("all is read", LATER, || self.command(&["stats"]).contains("confirmed"));
    }

    /// What a command of `fingerpost directory` prints.
    fn command(&self, arguments: &[&str]) -> String {
        let arguments: Vec<&str> = ["directory"].iter().chain(arguments).copied().collect();
        let output = self.systems.node.run(&arguments);
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    }

    /// How many recipients are concerned by what is held, by the gauge.
    fn held(&self) -> usize {
        let series = format!("fingerpost_directory_changes_held{{directory=\"{}\"}}", self.name);
        self.systems.node.metric(&series).unwrap() as usize
    }

    fn wait_for_held(&self, expected: usize) {
        let (mut last, begun) = (usize::MAX, Instant::now());
        while last != expected {
            assert!(begun.elapsed() < LATER, "{last} are held, not {expected}");
            std::thread::sleep(Duration::from_millis(20));
            last = self.held();
        }
    }

    /// How many recipients there are of a kind.
    fn kind(&self, kind: &str) -> usize {
        let series = format!("fingerpost_directory_recipients{{directory=\"{}\",kind=\"{kind}\"}}", self.name);
        self.systems.node.metric(&series).unwrap() as usize
    }

    /// How many entries lack what their like have.
    fn odd(&self) -> usize {
        let series = format!("fingerpost_directory_contradictions{{directory=\"{}\"}}", self.name);
        self.systems.node.metric(&series).unwrap() as usize
    }

    /// Where mail for these goes, by what the program itself would do with it now.
    fn ways(&self, addresses: &[String]) -> Count {
        lab::ways(&self.systems.node, addresses)
    }

    /// What RCPT says to a stranger.
    fn replies(&self, addresses: &[String]) -> BTreeMap<u16, usize> {
        lab::replies(self.systems.node.smtp, addresses)
    }

    /// All addresses of these go there, and RCPT takes them.
    fn all_go(&self, numbers: impl IntoIterator<Item = usize>, way: &str) {
        let addresses = addresses(numbers);
        assert_eq!(self.ways(&addresses), counted([(way, addresses.len())]));
        assert_eq!(self.replies(&addresses), BTreeMap::from([(250, addresses.len())]));
    }

    fn list(&self) -> HeldList {
        serde_json::from_str(&self.command(&["held", self.name, "--format", "json"])).unwrap()
    }

    /// Those whom the list names, waiting and in force; Exchange's own names of them are left out.
    fn named(&self) -> (BTreeSet<String>, BTreeSet<String>) {
        let rows = self.list().addresses.into_iter().filter(|row| row.address.contains('@'));
        let (stayed, waits): (Vec<_>, Vec<_>) = rows.partition(|row| row.in_force);
        let addresses =
            |rows: Vec<fingerpost::directory::HeldAddress>| rows.into_iter().map(|row| row.address).collect();
        (addresses(waits), addresses(stayed))
    }

    /// The list names exactly these as waiting, and those as in force.
    fn names(&self, waits: impl IntoIterator<Item = usize>, stayed: impl IntoIterator<Item = usize>) {
        let expected = [addresses(waits), addresses(stayed)].map(|all| all.into_iter().collect::<BTreeSet<String>>());
        let (waits, stayed) = self.named();
        let missing = |one: &BTreeSet<String>, other: &BTreeSet<String>| {
            one.difference(other).take(3).cloned().collect::<Vec<_>>()
        };
        for (now, then, what) in [(&waits, &expected[0], "wait"), (&stayed, &expected[1], "stayed")] {
            let (more, fewer) = (missing(now, then), missing(then, now));
            assert_eq!((now.len(), more, fewer), (then.len(), Vec::new(), Vec::new()), "{what}");
        }
    }

    /// A file with one address of each.
    fn only(&self, numbers: impl IntoIterator<Item = usize>) -> String {
        let list: String = numbers.into_iter().map(|number| addresses_of(number)[1].clone() + "\n").collect();
        self.systems.node.write("only.csv", &list);
        self.systems.node.path("only.csv").to_str().unwrap().to_owned()
    }

    /// Takes what is held of these.
    fn accept_only(&self, numbers: impl IntoIterator<Item = usize>) {
        self.command(&["refresh", self.name, "--accept", "--only", &self.only(numbers)]);
    }

    /// Announces changes of so many: what puts right what was accepted counts like any other change.
    fn expect(&self, count: usize) {
        let expect = ["directory", "expect", self.name, "--count", &count.to_string(), "--for", "2h"];
        assert!(self.systems.node.run(&expect).status.success());
    }

    /// Reads everything anew; a machine that has too much to do may need another try.
    fn refresh(&self) {
        let mut said = String::new();
        wait_until("it is read", LATER, || {
            said = self.command(&["refresh", self.name]);
            said.contains(" recipients, mail for ")
        });
    }

    /// Takes whatever is held, so that nothing of before counts.
    fn accept_all(&self) {
        self.command(&["refresh", self.name, "--accept"]);
        assert_eq!(self.held(), 0);
    }

    /// Has mail accepted for each of these.
    fn mail_for(&self, addresses: &[String]) {
        let arrived = || {
            [&self.systems.primary, &self.systems.secondary]
                .iter()
                .flat_map(|sink| sink.all())
                .map(|it| it.to.len())
                .sum::<usize>()
        };
        let before = arrived();
        let mut raw = Raw::hello(self.systems.node.smtp);
        for (number, some) in addresses.chunks(CROWD).enumerate() {
            let to: Vec<&str> = some.iter().map(String::as_str).collect();
            let bytes = message(&format!("{before}-{number}"), 100);
            let (said, last) = raw.transact(&Letter { from: "s@sender.test", to: &to, bytes: &bytes }, "");
            assert!(
                said.iter().all(|(code, _)| *code == 250) && last.as_ref().is_some_and(|(code, _)| *code == 250),
                "{last:?}"
            );
        }
        wait_until("all arrives", LATER, || arrived() == before + addresses.len());
        let queue = || self.systems.node.run(&["queue", "list"]);
        wait_until("nothing is queued", LATER, || String::from_utf8_lossy(&queue().stdout).contains("empty"));
    }
}

/// Looks at a number again and again while something happens, and keeps the least that it saw.
struct Watch {
    ends: Arc<AtomicBool>,
    watching: std::thread::JoinHandle<usize>,
}

impl Watch {
    fn mailboxes(followed: &FollowedDirectory) -> Self {
        let ends = Arc::<AtomicBool>::default();
        let (metrics, until) = (followed.systems.node.metrics, Arc::clone(&ends));
        let series = format!("fingerpost_directory_recipients{{directory=\"{}\",kind=\"mailbox\"}} ", followed.name);
        let watching = std::thread::spawn(move || {
            let mut least = usize::MAX;
            while !until.load(Ordering::Relaxed) {
                least = least.min(lab::gauge(metrics, &series).unwrap_or(usize::MAX));
                std::thread::sleep(Duration::from_millis(5));
            }
            least
        });
        Self { ends, watching }
    }

    /// The least that was seen.
    fn least(self) -> usize {
        self.ends.store(true, Ordering::Relaxed);
        self.watching.join().unwrap()
    }
}

/// A line for the table.
fn measured(what: &str, begun: Instant, words: &str) {
    eprintln!("{what}: {words}; {:.1} s", begun.elapsed().as_secs_f64());
}
