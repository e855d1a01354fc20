//! What a directory's recipients in memory cost, from 1,000 to 1,000,000 of them, two addresses each: the memory at the
//! peak of a refresh, a look-up, a decision, and loading the saved snapshot. Prints the table of `docs/performance.md`.
//!
//! `cargo bench --bench recipients`

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark that cannot go on ends")]

use std::collections::HashMap;
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fingerpost::config::check::load_text;
use fingerpost::config::{CacheConfig, HoldChanges, LdapConfig, LdapMode, Profile, SnapshotConfig};
use fingerpost::directory::known::{Claim, Id, Known, Meaning, Strength};
use fingerpost::directory::mail::{Mail, NoMail};
use fingerpost::directory::snapshot::position::Position;
use fingerpost::directory::snapshot::{Room, Snapshot};
use fingerpost::directory::{AnswerFuture, Directories, Directory};
use fingerpost::lookup::{Answer, Fresh, Kind, Lookup};
use fingerpost::lookup::{Freshness, Question};
use fingerpost::metrics::Metrics;
use fingerpost::resolve::{About, Resolver};
use fingerpost::smtp::address::Address;
use fingerpost::smtp::envelope::Origin;
use fingerpost::time::UnixTime;

/// As the program has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const QUESTIONS: usize = 200_000;
const CONFIGURATION: &str = r#"
[server]
hostname = "mx.contoso.com"
[[receive_connector]]
name = "internet"
[[accepted_domain]]
domain = "contoso.com"
deliver_to = "exchange"
[[directory]]
name = "ad"
urls = ["ldap://dc1.contoso.com"]
base = ["DC=contoso,DC=com"]
probe = "u0@contoso.com"
[[send_connector]]
name = "exchange"
smart_hosts = ["[10.0.0.5]"]
"#;

/// A directory that is nothing but its snapshot.
struct InMemory(Snapshot);

impl Directory for InMemory {
    fn known(&self, question: &Question) -> Option<Answer> {
        let lookup = self.0.answer(question.address.key(), UnixTime::now())?;
        Some(Answer { lookup, fresh: Fresh::Cached })
    }

    fn ask<'a>(&'a self, _: &'a Question) -> AnswerFuture<'a> {
        Box::pin(async { Answer { lookup: Lookup::Unavailable("nobody is there".into()), fresh: Fresh::Live } })
    }
}

fn main() {
    // One process for each size: what an allocator keeps of one table must not hide the next one's.
    if let Some(count) = std::env::args().skip(1).find_map(|argument| argument.parse().ok()) {
        return row(count);
    }
    println!("| recipients | peak of a refresh, MiB | look-up, ns: p50 | p99 | decision, ns: p50 | p99 | load, s |");
    println!("|---|---|---|---|---|---|---|");
    for count in [1_000_usize, 10_000, 100_000, 1_000_000] {
        let status = Command::new(std::env::current_exe().unwrap()).arg(count.to_string()).status().unwrap();
        assert!(status.success());
    }
}

fn row(count: usize) {
    let folder = tempfile::tempdir().unwrap();
    let snapshot = open(folder.path());
    let before = memory("VmRSS:");
    refresh(&snapshot, count);
    reset_peak();
    refresh(&snapshot, count);
    let peak = memory("VmHWM:").saturating_sub(before) as f64 / 1024.0;
    drop(snapshot);

    let begun = Instant::now();
    let snapshot = open(folder.path());
    let load = begun.elapsed().as_secs_f64();
    assert_eq!(snapshot.report().recipients, Some(count));

    let addresses: Vec<Address> = (0..QUESTIONS).map(|n| address(scattered(n, count))).collect();
    let found = |address: &Address| match snapshot.answer(address.key(), UnixTime::now()) {
        Some(Lookup::Found(recipient)) => drop(black_box(recipient)),
        other => panic!("{address}: {other:?}"),
    };
    let (look_up, look_up_slow) = times(&addresses, found);

    let config = load_text(CONFIGURATION, Path::new("/etc/fingerpost/fingerpost.toml")).expect("it loads");
    let directories = Directories::new([("ad".into(), Arc::new(InMemory(snapshot)) as Arc<dyn Directory>)]);
    let resolver = Resolver::new(config.routing.clone(), Arc::new(directories));
    let (origin, now) = (Origin::report(), UnixTime::now());
    let decided = |address: &Address| {
        let about = About {
            origin: &origin,
            address,
            freshness: Freshness::Any,
            now,
            behalf: &fingerpost::lookup::Behalf::Ours,
            standing: fingerpost::lookup::Standing::Known,
        };
        assert_eq!(black_box(resolver.at_once(&about)).expect("memory has it").label(), "resolved");
    };
    let (decision, decision_slow) = times(&addresses, decided);
    println!("| {count} | {peak:.0} | {look_up} | {look_up_slow} | {decision} | {decision_slow} | {load:.2} |");
}

/// The median and the 99th percentile of one call, nanoseconds, without what reading the clock takes.
fn times(addresses: &[Address], call: impl Fn(&Address)) -> (u128, u128) {
    let mut clock: Vec<Duration> = addresses.iter().map(|_| Instant::now().elapsed()).collect();
    let one = |address: &Address| {
        let begun = Instant::now();
        call(address);
        begun.elapsed()
    };
    addresses.iter().take(10_000).for_each(|address| {
        one(address);
    });
    let mut took: Vec<Duration> = addresses.iter().map(one).collect();
    clock.sort_unstable();
    took.sort_unstable();
    let at = |share: usize| took[took.len() * share / 100].saturating_sub(clock[clock.len() / 2]).as_nanos();
    (at(50), at(99))
}

fn open(folder: &Path) -> Snapshot {
    let kept = SnapshotConfig {
        poll: Duration::from_secs(10),
        full_read: Duration::from_secs(3600),
        max_stale: Duration::from_secs(86_400),
    };
    let config = LdapConfig {
        urls: Vec::new(),
        profile: Profile::ActiveDirectory,
        base: Vec::new(),
        bind_dn: String::new(),
        password_file: None,
        start_tls: false,
        ca: None,
        certificate: None,
        timeout: Duration::from_secs(5),
        probe: None,
        cache: CacheConfig { found: Duration::ZERO, not_found: Duration::ZERO, entries: 0 },
        refuse_disabled: false,
        mode: LdapMode::Snapshot(kept),
        hold_changes: HoldChanges { share_millionths: 20_000, at_least: 50, within: Duration::from_secs(3600) },
        mailbox_servers: HashMap::new(),
    };
    let mail: Arc<dyn Mail> = Arc::new(NoMail);
    Snapshot::open(&"ad".into(), &config, kept, &Room { folder, metrics: &Metrics::new(), mail: &mail })
}

/// A whole read, in pages of a thousand, as the directory gives them.
fn refresh(snapshot: &Snapshot, count: usize) {
    let mut writer = snapshot.begin().unwrap();
    for first in (0..count).step_by(1_000) {
        writer.put((first..count.min(first + 1_000)).map(known).collect()).unwrap();
    }
    snapshot.read(writer, Position::Unknown, None).unwrap();
}

/// Of 1,000 organisational units and 20 mail servers, as a large organisation has them.
fn known(number: usize) -> Known {
    let claim = |key: String| Claim { key, strength: Strength::Certain };
    let name = format!("First{number} Lastname{number}");
    Known {
        id: Id::of(&number.to_le_bytes()),
        dn: format!("CN={name},OU=Department {},OU=Staff,DC=contoso,DC=com", number % 1_000),
        claims: vec![
            claim(format!("first{number}.lastname{number}@contoso.com")),
            claim(format!("u{number}@contoso.com")),
        ],
        meaning: Ok(Meaning {
            kind: Kind::Mailbox,
            target: None,
            mail_server: Some(format!("ex{}", number % 20)),
            rule: "msExchRecipientTypeDetails = 1 (UserMailbox)".to_owned(),
            at_odds: None,
        }),
    }
}

fn address(number: usize) -> Address {
    Address::parse(&format!("First{number}.Lastname{number}@Contoso.com")).unwrap()
}

/// Numbers all over the range, so that caches do not help.
fn scattered(number: usize, count: usize) -> usize {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % count
}

fn memory(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// proc(5): 5 sets the peak to what is in use now.
fn reset_peak() {
    fs::write("/proc/self/clear_refs", "5").unwrap();
}
