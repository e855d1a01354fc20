//! What the tests ask with, and how they tell answers apart.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fingerpost::config::{CacheConfig, DirectoryConfig, DirectoryKind, HoldChanges, LdapConfig, LdapMode, Profile};
use fingerpost::delivery::attempt::Outbound;
use fingerpost::directory::call_ahead::prober::Prober;
use fingerpost::directory::ldap::{Examination, LdapDirectory};
use fingerpost::directory::{Accept, Directory, Refreshed, SnapshotReport};
use fingerpost::lookup::{Answer, Behalf, Freshness, Kind, Lookup, Question, Standing};
use fingerpost::metrics::Metrics;
use fingerpost::routing::table::{DirectoryRules, DomainSet, PlusAddressing, Proof};
use fingerpost::smtp::address::Address;
use tokio::time::Instant;

use support::slapd::{BASE, READER, Slapd};

/// A directory under test.
pub struct Asker {
    directory: LdapDirectory,
    pub metrics: Metrics,
    /// Makes addresses that no cache knows.
    asked: AtomicUsize,
}

/// A lookup in a form that a table can hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LookupResult {
    Found(Kind),
    /// A target and whether it is a contact's or a mail user's.
    Away(Kind, String),
    NotFound,
    Ambiguous(usize),
    AcceptsEverything,
    Held,
    Unavailable,
}

impl Asker {
    pub fn new(config: &LdapConfig) -> Self {
        Self::keeping(config, None)
    }

    /// One that keeps its snapshot in that folder.
    pub fn keeping(config: &LdapConfig, folder: Option<&Path>) -> Self {
        let metrics = Metrics::new();
        let directory = LdapDirectory::open(&"ad".into(), config, folder, &metrics).unwrap();
        Self { directory, metrics, asked: AtomicUsize::new(0) }
    }

    /// What memory has; `None`: the directory would be asked.
    pub fn in_memory(&self, address: &str) -> Option<LookupResult> {
        let address = Address::parse(address).unwrap();
        let question = Question { directory: "ad".into(), address, freshness: Freshness::Any };
        self.directory.known(&question).map(|answer| result_of(&answer.lookup))
    }

    /// Waits until memory says that.
    pub async fn remembers(&self, address: &str, expected: Option<LookupResult>, within: Duration) {
        let start = Instant::now();
        loop {
            let said = self.in_memory(address);
            if said == expected {
                return;
            }
            assert!(start.elapsed() < within, "{address}: still {said:?} after {within:?}, not {expected:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until that is the answer: from memory, where the directory is kept there.
    pub async fn shows(&self, address: &str, expected: LookupResult, within: Duration) {
        if self.is_snapshot() {
            return self.remembers(address, Some(expected), within).await;
        }
        let start = Instant::now();
        loop {
            let said = self.answer_any(address).await;
            if said == expected {
                return;
            }
            assert!(start.elapsed() < within, "{address}: still {said:?} after {within:?}, not {expected:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What is answered where memory will do.
    pub async fn answer_any(&self, address: &str) -> LookupResult {
        result_of(&self.answer(address, Freshness::Any).await.lookup)
    }

    /// As `resolve` asks: a turn first.
    pub async fn ask_as(&self, (behalf, standing): (&Behalf, Standing), address: &str) -> LookupResult {
        let address = Address::parse(address).unwrap();
        let question = Question { directory: "ad".into(), address, freshness: Freshness::Any };
        match self.directory.shares().unwrap().turn(behalf, standing).await {
            Ok(turn) => result_of(&self.directory.ask_in_turn(&question, Some(turn)).await.lookup),
            Err(_) => LookupResult::Unavailable,
        }
    }

    /// What `check --connect` looks at.
    pub async fn examine(&self) -> Examination {
        let nobody = Address::parse("nobody-at-all@contoso.com").unwrap();
        self.directory.examine(&nobody).await.unwrap()
    }

    /// Whether all recipients are in memory.
    pub fn is_snapshot(&self) -> bool {
        self.directory.report().is_some()
    }

    /// How many changes are held.
    pub fn held(&self) -> usize {
        self.directory.report().unwrap().held
    }

    /// What `fingerpost status` says is wrong.
    pub fn problems(&self) -> Vec<String> {
        self.directory.problems()
    }

    /// How the snapshot is.
    pub fn report(&self) -> SnapshotReport {
        self.directory.report().unwrap()
    }

    /// Reads it as a whole; again where the connection was lost meanwhile, as an operator does.
    pub async fn refresh(&self, accept: Accept) -> Result<Refreshed, String> {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            match self.directory.refresh(accept.clone()).await.unwrap() {
                Err(cause) if cause.starts_with("it broke off") && Instant::now() < until => {}
                refreshed => return refreshed,
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub async fn answer(&self, address: &str, freshness: Freshness) -> Answer {
        let address = Address::parse(address).unwrap();
        self.directory.ask(&Question { directory: "ad".into(), address, freshness }).await
    }

    /// Asks the directory itself, unless it was asked in the last 5 s.
    pub async fn ask(&self, address: &str) -> LookupResult {
        result_of(&self.answer(address, Freshness::Live).await.lookup)
    }

    /// The name of the entry that owns the address.
    pub async fn entry(&self, address: &str) -> String {
        match self.answer(address, Freshness::Live).await.lookup {
            Lookup::Found(found) => found.entry.to_string(),
            other => panic!("{address}: {other:?}"),
        }
    }

    /// Why the answer is `Unavailable`.
    pub async fn cause(&self, address: &str) -> String {
        match self.answer(address, Freshness::Live).await.lookup {
            Lookup::Unavailable(cause) => cause.to_string(),
            other => panic!("{address}: {other:?}"),
        }
    }

    /// Asks for an address that nobody has and no cache knows.
    pub async fn ask_unknown(&self) -> LookupResult {
        let number = self.asked.fetch_add(1, Ordering::Relaxed);
        self.ask(&format!("nobody{number}@contoso.com")).await
    }

    /// Asks for unknown addresses until the answer is that.
    pub async fn until(&self, expected: &LookupResult, within: Duration) {
        let start = Instant::now();
        loop {
            let said = self.ask_unknown().await;
            if said == *expected {
                return;
            }
            assert!(start.elapsed() < within, "still {said:?} after {within:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub fn up(&self) -> i64 {
        self.metrics.directory_up.with_label_values(&["ad"]).get()
    }

    /// Whether that server was well when it was last tried.
    pub fn server_up(&self, url: &str) -> i64 {
        self.metrics.directory_server_up.with_label_values(&["ad", url]).get()
    }

    pub fn count(&self, result: &str) -> u64 {
        self.metrics.directory_lookups.with_label_values(&["ad", result]).get()
    }
}

pub fn result_of(lookup: &Lookup) -> LookupResult {
    match lookup {
        Lookup::Found(found) => match &found.target {
            Some(target) => LookupResult::Away(found.kind, target.to_string()),
            None => LookupResult::Found(found.kind),
        },
        Lookup::NotFound => LookupResult::NotFound,
        Lookup::Ambiguous(claims) => LookupResult::Ambiguous(claims.len()),
        Lookup::AcceptsEverything(_) => LookupResult::AcceptsEverything,
        Lookup::Held(_) => LookupResult::Held,
        Lookup::Unavailable(_) => LookupResult::Unavailable,
    }
}

/// A configuration for slapd with the defaults of the operator's file.
pub fn openldap(slapd: &Slapd) -> LdapConfig {
    LdapConfig {
        urls: vec![slapd.url()],
        profile: Profile::Openldap,
        base: vec![BASE.to_owned()],
        bind_dn: READER.to_owned(),
        password_file: Some(slapd.password_file()),
        start_tls: false,
        ca: None,
        certificate: None,
        timeout: Duration::from_secs(5),
        probe: Some(Address::parse("postmaster@contoso.com").unwrap()),
        cache: CacheConfig { found: Duration::from_secs(600), not_found: Duration::from_secs(60), entries: 100_000 },
        refuse_disabled: false,
        mode: LdapMode::Lookup,
        hold_changes: HoldChanges { share_millionths: 20_000, at_least: 50, within: Duration::from_secs(3600) },
        mailbox_servers: HashMap::new(),
    }
}

/// A file with that password.
pub fn password(slapd: &Slapd, text: &str) -> PathBuf {
    let path = slapd.folder().join("other-password");
    std::fs::write(&path, text).unwrap();
    path
}

/// Who speaks with mail servers.
pub fn prober(metrics: &Metrics) -> Arc<dyn Prober> {
    Arc::new(Outbound::new(metrics.clone()))
}

/// A directory of a configuration, for all domains.
pub fn named(name: &str, kind: &DirectoryKind) -> Arc<DirectoryConfig> {
    let rules = DirectoryRules {
        name: name.into(),
        domains: DomainSet::All,
        deliver_to: None,
        mailbox_servers: HashMap::new(),
        plus_addressing: PlusAddressing::Off,
        proof: Proof::Entry,
    };
    Arc::new(DirectoryConfig { name: name.into(), rules, kind: kind.clone() })
}
