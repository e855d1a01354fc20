//! Reloads with real files: editors, Kubernetes, broken files, vanishing domains. The clock is real (2 s of quiet), so
//! each test waits for a condition with a deadline.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use fingerpost::config::Config;
use fingerpost::directory::Directories;
use fingerpost::in_force::{Current, InForce};
use fingerpost::keys::LoopKeys;
use fingerpost::metrics::Metrics;
use fingerpost::reload::{Build, Consent, Reloaded, Reloader, start};
use fingerpost::resolve::Resolver;
use fingerpost::smtp::domain::Domain;
use fingerpost::time::UnixTime;

const BASE: &str = r#"
[server]
hostname  = "mx.contoso.com"
state_dir = "state"
include   = ["domains.d/*.toml"]

[[receive_connector]]
name = "internet"

[[directory]]
name = "users"
kind = "file"
path = "users.csv"

[[send_connector]]
name        = "exchange"
smart_hosts = ["[10.0.0.5]"]
"#;

/// A running configuration in a folder of its own.
struct RunningConfig {
    folder: tempfile::TempDir,
    current: Arc<Current>,
    reloader: Arc<Reloader>,
    metrics: Metrics,
}

fn base(domains: &[&str]) -> String {
    let domain = |domain: &&str| format!("\n[[accepted_domain]]\ndomain = \"{domain}\"\ndeliver_to = \"exchange\"\n");
    BASE.to_owned() + &domains.iter().map(domain).collect::<String>()
}

fn in_force(config: Config) -> InForce {
    let config = Arc::new(config);
    let resolver = Resolver::new(config.routing.clone(), Arc::new(Directories::default()));
    InForce { config, resolver, keys: Arc::new(LoopKeys::new([0; 32], [])) }
}

impl RunningConfig {
    fn new(domains: &[&str]) -> Self {
        Self::building(domains, Box::new(|config, _| Ok(in_force(config))))
    }

    fn building(domains: &[&str], build: Build) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("fp.toml"), base(domains)).unwrap();
        Self::at(folder, build)
    }

    fn at(folder: tempfile::TempDir, build: Build) -> Self {
        let path = folder.path().join("fp.toml");
        let config = start(&path, UnixTime::now()).unwrap();
        let current = Arc::new(Current::from_pointee(in_force(config)));
        let metrics = Metrics::new();
        let reloader = Reloader::new(path, current.clone(), build, metrics.clone());
        Self { folder, current, reloader, metrics }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).unwrap();
    }

    fn accepts(&self, domain: &str) -> bool {
        self.current.load().config.routing.accepted.find(&Domain::parse(domain).unwrap()).is_some()
    }

    fn removed(&self, domain: &str) -> bool {
        self.current.load().config.routing.accepted.removed_at(&Domain::parse(domain).unwrap()).is_some()
    }

    fn counted(&self, result: &str) -> u64 {
        self.metrics.config_reloads.with_label_values(&[result]).get()
    }

    async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !condition(self) {
            assert!(Instant::now() < deadline, "waited in vain until {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn domain_file(domain: &str) -> String {
    format!("[[accepted_domain]]\ndomain = \"{domain}\"\ndeliver_to = \"exchange\"\n")
}

#[tokio::test]
async fn a_reload_goes_on_and_is_recorded_when_the_one_who_asked_is_gone() {
    let running = RunningConfig::new(&["contoso.com"]);
    running.write("fp.toml", &base(&["contoso.com", "fabrikam.com"]));
    {
        let mut asked = std::pin::pin!(running.reloader.reload(Consent::NotGiven));
        let polled = std::future::poll_fn(|context| Poll::Ready(asked.as_mut().poll(context))).await;
        assert!(polled.is_pending(), "begun, and given up at its first wait");
    }
    running.until("it is recorded", |running| running.counted("applied") == 1).await;
    assert!(running.accepts("fabrikam.com"));
    assert!(matches!(running.reloader.last(), Some((_, Reloaded::Applied { .. }))));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_replaced_or_added_are_taken() {
    let running = RunningConfig::new(&["a.example"]);
    let watch = running.reloader.watch();
    running.write("fp.toml.new", &base(&["a.example", "b.example"]));
    fs::rename(running.path("fp.toml.new"), running.path("fp.toml")).unwrap();
    running.until("a replaced file is taken", |running| running.accepts("b.example")).await;
    // The folder did not exist when the server started.
    fs::create_dir(running.path("domains.d")).unwrap();
    running.write("domains.d/c.toml", &domain_file("c.example"));
    running.until("an included file is taken", |running| running.accepts("c.example")).await;
    fs::remove_file(running.path("domains.d/c.toml")).unwrap();
    running.until("a removed file is taken", |running| !running.accepts("c.example")).await;
    assert!(running.removed("c.example"), "row 0 has to know it");
    fs::rename(running.path("domains.d"), running.path("old.d")).unwrap();
    fs::create_dir(running.path("domains.d")).unwrap();
    running.write("domains.d/d.toml", &domain_file("d.example"));
    running.until("a replaced folder is taken", |running| running.accepts("d.example")).await;
    assert_eq!((running.counted("refused"), running.counted("held")), (0, 0));
    watch.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn kubernetes_swaps_a_link() {
    let folder = tempfile::tempdir().unwrap();
    let version = |name: &str, domains: &[&str]| {
        fs::create_dir(folder.path().join(name)).unwrap();
        fs::write(folder.path().join(name).join("fp.toml"), base(domains)).unwrap();
    };
    version("..v1", &["a.example"]);
    version("..v2", &["a.example", "b.example"]);
    let link = |target: &str, name: &str| std::os::unix::fs::symlink(target, folder.path().join(name)).unwrap();
    link("..v1", "..data");
    link("..data/fp.toml", "fp.toml");
    link("..v2", "..data.new");
    let running = RunningConfig::at(folder, Box::new(|config, _| Ok(in_force(config))));
    let watch = running.reloader.watch();
    fs::rename(running.path("..data.new"), running.path("..data")).unwrap();
    running.until("the swapped link is taken", |running| running.accepts("b.example")).await;
    watch.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_and_missing_files_change_nothing() {
    let running = RunningConfig::new(&["a.example", "b.example"]);
    let watch = running.reloader.watch();
    running.write("fp.toml", "[server");
    running.until("the broken file is refused", |running| running.counted("refused") == 1).await;
    assert!(running.accepts("a.example") && running.accepts("b.example"));
    assert!(matches!(running.reloader.last(), Some((_, Reloaded::Refused(problems))) if problems[0].line == 1));
    running.write("fp.toml", &base(&["a.example", "b.example"]));
    running.until("the mended file is noticed", |running| running.counted("unchanged") == 1).await;
    // Removed for a moment, then changed: had the gap been taken, the counters would show it.
    fs::remove_file(running.path("fp.toml")).unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    running.write("fp.toml", &base(&["a.example", "b.example", "c.example"]));
    running.until("the file that came back is taken", |running| running.counted("applied") == 1).await;
    assert!(running.accepts("c.example"));
    assert_eq!((running.counted("refused"), running.counted("unchanged"), running.counted("held")), (1, 1, 0));
    watch.abort();
}

#[tokio::test]
async fn domains_do_not_vanish_unasked() {
    let running = RunningConfig::new(&["a.example", "b.example", "c.example"]);
    running.write("fp.toml", &base(&["a.example"]));
    let held = Reloaded::Held { vanishing: vec!["b.example".into(), "c.example".into()] };
    assert_eq!(running.reloader.reload(Consent::NotGiven).await, held);
    assert!(running.accepts("c.example") && !running.removed("c.example"));
    let applied = running.reloader.reload(Consent::Given).await;
    assert!(matches!(&applied, Reloaded::Applied { changes } if changes.len() == 2), "{applied:?}");
    assert!(!running.accepts("c.example") && running.removed("c.example"));
    assert_eq!(running.reloader.reload(Consent::NotGiven).await, Reloaded::Unchanged);
    assert!(running.removed("c.example"), "an hour has not passed");
    // What ceased to be accepted before a restart or during it still gets its hour; what came back does not.
    running.write("fp.toml", &base(&["b.example"]));
    let RunningConfig { folder, .. } = running;
    let running = RunningConfig::at(folder, Box::new(|config, _| Ok(in_force(config))));
    assert!(running.removed("a.example") && running.removed("c.example") && !running.removed("b.example"));
}

#[tokio::test]
async fn what_cannot_be_built_is_refused() {
    let broken = Arc::new(AtomicBool::new(true));
    let theirs = broken.clone();
    let build = move |config, _: &InForce| match theirs.load(Ordering::Relaxed) {
        true => Err(vec!["directory `users`: users.csv: no such file".to_owned()]),
        false => Ok(in_force(config)),
    };
    let running = RunningConfig::building(&["a.example"], Box::new(build));
    let hash = running.current.load().config.hash.clone();
    running.write("fp.toml", &base(&["a.example", "b.example"]));
    let refused = running.reloader.reload(Consent::NotGiven).await;
    assert!(matches!(&refused, Reloaded::Refused(problems) if problems[0].message.contains("users.csv")));
    assert!(!running.accepts("b.example"));
    broken.store(false, Ordering::Relaxed);
    let mut applied = running.reloader.applied();
    assert!(matches!(running.reloader.reload(Consent::NotGiven).await, Reloaded::Applied { .. }));
    assert!(applied.has_changed().unwrap() && *applied.borrow_and_update() == 1);
    // The old hash has no series any more.
    assert!(running.metrics.config_info.remove_label_values(&[&hash]).is_err());
    let now = running.current.load().config.hash.clone();
    assert_eq!(running.metrics.config_info.with_label_values(&[&now]).get(), 1);
    running.write("fp.toml", &base(&["a.example"]).replace("\"state\"", "\"elsewhere\""));
    assert!(matches!(running.reloader.reload(Consent::Given).await, Reloaded::Refused(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_is_taken_whole_while_others_are_loaded() {
    let running = Arc::new(RunningConfig::new(&["a.example", "x.example"]));
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..4).map(|_| tokio::spawn(read_until(running.clone(), done.clone()))).collect();
    for round in 0..40 {
        let extra = if round % 2 == 0 { "b.example" } else { "x.example" };
        replace(&running.path("fp.toml"), &base(&["a.example", extra]));
        let (first, second) =
            tokio::join!(running.reloader.reload(Consent::NotGiven), running.reloader.reload(Consent::NotGiven));
        let outcomes = [first, second].map(|outcome| outcome.label());
        assert!(outcomes.contains(&"applied") && outcomes.contains(&"unchanged"), "{outcomes:?}");
        assert!(running.accepts(extra));
    }
    done.store(true, Ordering::Relaxed);
    let mut reads = 0;
    for reader in readers {
        reads += reader.await.unwrap();
    }
    assert!(reads > 0);
    assert_eq!(running.counted("applied"), 40);
}

fn replace(path: &Path, content: &str) {
    let new = path.with_extension("new");
    fs::write(&new, content).unwrap();
    fs::rename(new, path).unwrap();
}

/// Every configuration that is read accepts exactly one of the two, and its table is its own.
async fn read_until(running: Arc<RunningConfig>, done: Arc<AtomicBool>) -> u64 {
    let mut reads = 0;
    while !done.load(Ordering::Relaxed) {
        let in_force = running.current.load_full();
        let accepts = |name: &str| in_force.config.routing.accepted.find(&Domain::parse(name).unwrap()).is_some();
        assert!(accepts("a.example") && accepts("b.example") != accepts("x.example"));
        assert!(Arc::ptr_eq(&in_force.config.routing, in_force.resolver.table()));
        reads += 1;
        tokio::task::yield_now().await;
    }
    reads
}
