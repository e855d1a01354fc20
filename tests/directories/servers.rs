//! Servers as they are: names with several addresses, restarts, passwords that are no longer right, standby servers.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fingerpost::config::{DirectoryKind, LdapConfig, LdapMode, SnapshotConfig};
use fingerpost::directory::{Accept, Directories, Needs, build};
use fingerpost::lookup::{Freshness, Kind, Lookup, Question};
use fingerpost::metrics::Metrics;

use crate::active_directory::config as active_directory;
use crate::asker::{Asker, LookupResult, named, openldap, password, prober};
use support::samba_ad::{self, SambaAd};
use support::slapd::{ADMIN, BASE, PASSWORD, READER, Slapd};
use support::test_node::TestNode;
use support::wait_until;

/// A node with this directory beside what it cannot do without. `{url}`s and the rest are the caller's.
fn prepare_node(directory: &str) -> TestNode {
    let node = TestNode::prepare();
    node.write(
        "fingerpost.toml",
        &format!(
            "[server]\nhostname = \"mx.contoso.com\"\nstate_dir = \"{{folder}}/state\"\n\n\
             [admin]\nmetrics_bind = \"{{metrics}}\"\nbind = \"{{admin}}\"\n\n\
             [[receive_connector]]\nname = \"internet\"\nbind = [\"{{smtp}}\"]\nremote_networks = [\"127.0.0.0/8\"]\n\n\
             [[accepted_domain]]\ndomain = \"contoso.com\"\ntype = \"internal-relay\"\ndeliver_to = \"primary\"\n\n\
             [[send_connector]]\nname = \"primary\"\norganization = \"primary\"\nsmart_hosts = [\"[127.0.0.1]:9\"]\n\n\
             [[send_connector]]\nname = \"secondary\"\norganization = \"secondary\"\n\
             smart_hosts = [\"[127.0.0.1]:9\"]\ndelivery = \"cut-through\"\n\
             address_spaces = [{{ domain = \"contoso.com\" }}]\n\n\
             [spool]\nmin_free = \"16MiB\"\n\n{directory}"
        ),
    );
    node
}

/// A directory table for slapd.
fn table(slapd: &Slapd, urls: &[String], more: &str) -> String {
    let password = slapd.password_file();
    format!(
        "[[directory]]\nname = \"ad\"\nurls = {urls:?}\nprofile = \"openldap\"\nbase = [\"{BASE}\"]\n\
         bind_dn = \"{READER}\"\npassword_file = {password:?}\nprobe = \"postmaster@contoso.com\"\n\
         mode = \"lookup\"\n{more}\n"
    )
}

/// What `check --connect` says of directories, where names are looked up in that file instead of the system's.
fn check_with_hosts(node: &TestNode, hosts: &str) -> String {
    node.write("hosts", hosts);
    let script = format!(
        "mount --bind {} /etc/hosts && exec {} check --connect --config {}",
        node.path("hosts").display(),
        support::program(),
        node.path("fingerpost.toml").display()
    );
    let output = Command::new("unshare").args(["-m", "sh", "-c", &script]).output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    said.lines().filter(|line| line.contains("directory")).map(|line| format!("{line}\n")).collect()
}

/// Passes what comes at 127.0.0.2 on to 127.0.0.1, and keeps the same port of 127.0.0.1 for somebody who is dead: he takes
/// connections and says nothing.
fn beside_a_dead_one(to: SocketAddr) -> (u16, TcpListener) {
    let (passing, dead) = loop {
        let dead = TcpListener::bind("127.0.0.1:0").unwrap();
        if let Ok(passing) = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 2), dead.local_addr().unwrap().port())) {
            break (passing, dead);
        }
    };
    std::thread::spawn(move || {
        for client in passing.incoming() {
            let (Ok(mut client), Ok(mut server)) = (client, std::net::TcpStream::connect(to)) else { return };
            let (mut from_client, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from_client, &mut to_server);
                let _ = to_server.shutdown(std::net::Shutdown::Both);
            });
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut server, &mut client);
                let _ = client.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    (dead.local_addr().unwrap().port(), dead)
}

#[test]
fn a_name_whose_first_address_is_dead_is_reached_at_the_second() {
    let slapd = Slapd::start();
    for (scheme, to) in [("ldaps", slapd.tls_address()), ("ldap", slapd.address())] {
        let (port, _dead) = beside_a_dead_one(to);
        let url = format!("{scheme}://localhost:{port}");
        let more = format!("timeout = \"3s\"\ntls = {{ ca = {:?} }}\n", slapd.ca());
        let node = prepare_node(&table(&slapd, &[url], &more));
        // The system says 127.0.0.1 first: it is nearest to where we come from (RFC 6724 6, rule 9).
        let said = check_with_hosts(&node, "127.0.0.1 localhost\n127.0.0.2 localhost\n");
        assert!(said.contains("ok      directory ad: finds postmaster@contoso.com"), "{scheme}: {said}");
    }
}

/// With polls that are rarer than a test lets time pass at once.
const SNAPSHOT: LdapMode = LdapMode::Snapshot(SnapshotConfig {
    poll: Duration::from_secs(30),
    full_read: Duration::from_secs(3600),
    max_stale: Duration::from_secs(86_400),
});

/// Three look-ups while slapd is restarted: each waits for it instead of being turned away.
#[tokio::test(flavor = "multi_thread")]
async fn questions_wait_for_a_server_that_is_restarted() {
    for (mode, stops_first) in
        [(LdapMode::Lookup, false), (LdapMode::Lookup, true), (SNAPSHOT, false), (SNAPSHOT, true)]
    {
        let mut slapd = Slapd::start();
        let folder = tempfile::tempdir().unwrap();
        let asker = Arc::new(Asker::keeping(&LdapConfig { mode, ..openldap(&slapd) }, Some(folder.path())));
        assert_eq!(asker.ask_unknown().await, LookupResult::NotFound);
        // The first notices that the connection is gone; the next ones come while nobody listens.
        if stops_first {
            slapd.stop();
        }
        let first = asking(&asker);
        slapd.stop();
        tokio::time::sleep(Duration::from_millis(200)).await;
        let (second, third) = (asking(&asker), asking(&asker));
        tokio::time::sleep(Duration::from_millis(300)).await;
        slapd.restart();
        for asked in [first, second, third] {
            assert_eq!(asked.await.unwrap(), LookupResult::NotFound, "{mode:?}, stopped first: {stops_first}");
        }
        assert_eq!((asker.up(), asker.count("unavailable")), (1, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_wait_for_a_controller_that_is_restarted() {
    let mut samba = SambaAd::start();
    for mode in [LdapMode::Lookup, SNAPSHOT] {
        let folder = tempfile::tempdir().unwrap();
        let config = LdapConfig { mode, timeout: Duration::from_secs(20), ..active_directory(&samba) };
        let asker = Arc::new(Asker::keeping(&config, Some(folder.path())));
        assert_eq!(asker.ask_unknown().await, LookupResult::NotFound);
        samba.stop();
        let asked: Vec<_> = (0..3).map(|_| asking(&asker)).collect();
        tokio::time::sleep(Duration::from_millis(500)).await;
        tokio::task::block_in_place(|| samba.restart());
        for asked in asked {
            assert_eq!(asked.await.unwrap(), LookupResult::NotFound, "{mode:?}");
        }
        assert_eq!((asker.up(), asker.count("unavailable")), (1, 0));
    }
}

/// A question for an address that nobody has.
fn asking(asker: &Arc<Asker>) -> tokio::task::JoinHandle<LookupResult> {
    let asker = Arc::clone(asker);
    tokio::spawn(async move { asker.ask_unknown().await })
}

/// Nobody waits for a server that stays away: for as long as a question may take, then the answer is known.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stays_away_is_waited_for_once() {
    let mut slapd = Slapd::start();
    let mut config = openldap(&slapd);
    config.timeout = Duration::from_secs(2);
    let asker = Asker::new(&config);
    assert_eq!(asker.ask_unknown().await, LookupResult::NotFound);
    slapd.stop();
    let begun = Instant::now();
    assert_eq!(asker.ask_unknown().await, LookupResult::Unavailable);
    let waited = begun.elapsed();
    assert!((Duration::from_millis(1500)..Duration::from_secs(4)).contains(&waited), "{waited:?}");
    assert_eq!(asker.up(), 0);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let begun = Instant::now();
    for _ in 0..20 {
        let cause = asker.cause(&format!("x{}@contoso.com", begun.elapsed().as_nanos())).await;
        assert!(cause.contains("refused"), "{cause}");
    }
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

/// Passes everything on to the server, and counts the binds as it does.
struct Counting {
    address: SocketAddr,
    binds: Arc<AtomicUsize>,
}

impl Counting {
    fn start(to: SocketAddr) -> Self {
        Self::slow(to, Duration::ZERO)
    }

    /// Answers come so much later.
    fn slow(to: SocketAddr, delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, binds) = (listener.local_addr().unwrap(), Arc::<AtomicUsize>::default());
        let counted = Arc::clone(&binds);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(mut client), Ok(mut server)) = (client, std::net::TcpStream::connect(to)) else { return };
                let (mut from_client, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let counted = Arc::clone(&counted);
                std::thread::spawn(move || {
                    let mut octets = [0; 4096];
                    while let Ok(length @ 1..) = from_client.read(&mut octets) {
                        // BindRequest (RFC 4511 4.2) in a message with a short id.
                        if octets[0] == 0x30
                            && octets[..length.min(10)].windows(4).any(|it| it[0] == 2 && it[3] == 0x60)
                        {
                            counted.fetch_add(1, Ordering::Relaxed);
                        }
                        if to_server.write_all(&octets[..length]).is_err() {
                            break;
                        }
                    }
                    let _ = to_server.shutdown(std::net::Shutdown::Both);
                });
                std::thread::spawn(move || {
                    let mut octets = [0; 4096];
                    while let Ok(length @ 1..) = server.read(&mut octets) {
                        std::thread::sleep(delay);
                        if client.write_all(&octets[..length]).is_err() {
                            break;
                        }
                    }
                    let _ = client.shutdown(std::net::Shutdown::Both);
                });
            }
        });
        Self { address, binds }
    }

    fn url(&self) -> String {
        format!("ldap://{}", self.address)
    }

    fn binds(&self) -> usize {
        self.binds.load(Ordering::Relaxed)
    }
}

/// Lets so much time pass at once; what is due then is done. What is asked before that has its answer: it would count as
/// unanswered.
async fn pass(time: Duration) {
    tokio::time::sleep(Duration::from_millis(500)).await;
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
    tokio::time::sleep(Duration::from_millis(1500)).await;
}

#[tokio::test]
async fn a_rejected_password_is_tried_once_a_server_and_thrice_a_directory() {
    let slapd = Slapd::start();
    let servers: Vec<Counting> = (0..4).map(|_| Counting::start(slapd.address())).collect();
    let binds = || servers.iter().map(Counting::binds).collect::<Vec<_>>();
    let mut config = openldap(&slapd);
    config.urls = servers.iter().map(Counting::url).collect();
    config.password_file = Some(password(&slapd, "wrong"));
    let folder = tempfile::tempdir().unwrap();
    let asker = Asker::keeping(&config, Some(folder.path()));
    let cause = asker.cause("postmaster@contoso.com").await;
    assert!(cause.contains("49") && cause.contains("for 30 minutes, unless password_file changes"), "{cause}");
    assert!(cause.contains("fingerpost directory refresh ad") && !cause.contains("wrong"), "{cause}");
    for minutes in [1, 5, 10, 13] {
        pass(Duration::from_mins(minutes)).await;
        assert_eq!(asker.ask_unknown().await, LookupResult::Unavailable);
        assert_eq!(binds(), [1, 1, 1, 0], "after {minutes} more minutes");
    }
    pass(Duration::from_mins(2)).await;
    assert_eq!(binds(), [2, 2, 2, 0], "after half an hour");

    // Another one, once it is in the file; it is wrong, too.
    password(&slapd, "wrong as well");
    for _ in 0..100 {
        if binds() == [3, 3, 3, 0] {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(binds(), [3, 3, 3, 0]);
    tokio::time::sleep(Duration::from_secs(1)).await; // the last one is answered, too
    // An operator says that it is right; it is not.
    let refused = asker.refresh(Accept::No).await.unwrap_err();
    assert!(refused.contains("49"), "{refused}");
    assert_eq!(binds(), [4, 4, 4, 0]);
    password(&slapd, PASSWORD);
    asker.until(&LookupResult::NotFound, Duration::from_secs(3)).await;
    assert_eq!((binds(), asker.up()), (vec![5, 4, 4, 0], 1));
}

/// Servers may take seconds to say that a password is wrong, as eDirectory does.
#[tokio::test]
async fn a_password_that_is_rejected_late_is_rejected() {
    let slapd = Slapd::start();
    let server = Counting::slow(slapd.address(), Duration::from_secs(3));
    let mut config = openldap(&slapd);
    config.timeout = Duration::from_secs(3);
    config.urls = vec![server.url()];
    config.password_file = Some(password(&slapd, "wrong"));
    let folder = tempfile::tempdir().unwrap();
    let asker = Asker::keeping(&config, Some(folder.path()));
    // The breaker is open at first, and its cause is the silence.
    let begun = Instant::now();
    let mut cause = String::new();
    while !cause.contains("for 30 minutes") && begun.elapsed() < Duration::from_secs(40) {
        tokio::time::sleep(Duration::from_millis(500)).await;
        cause = asker.cause(&format!("x{}@contoso.com", begun.elapsed().as_millis())).await;
    }
    assert!(cause.contains("49") && cause.contains("for 30 minutes"), "{cause}");
    let binds = server.binds();
    assert!((1..=3).contains(&binds), "{binds} binds");
    pass(Duration::from_mins(20)).await;
    assert_eq!(server.binds(), binds, "none for half an hour");
}

/// A server that is frozen at the bind, for longer than binds are sent.
#[tokio::test]
async fn a_server_that_was_frozen_is_used_as_soon_as_it_answers() {
    let slapd = Slapd::start();
    let server = Counting::start(slapd.address());
    slapd.freeze();
    let mut config = openldap(&slapd);
    config.timeout = Duration::from_secs(3);
    config.urls = vec![server.url()];
    let asker = Asker::new(&config);
    tokio::time::sleep(Duration::from_secs(12)).await;
    let cause = asker.cause("postmaster@contoso.com").await;
    assert!(cause.contains("no answer to the bind"), "{cause}");
    assert!(server.binds() <= 3, "{}", server.binds());
    slapd.thaw();
    asker.until(&LookupResult::NotFound, Duration::from_secs(9)).await;
    assert_eq!(asker.up(), 1);
}

#[tokio::test]
async fn an_account_that_is_right_again_is_used_when_an_operator_says_so() {
    let slapd = Slapd::start();
    let mut config = openldap(&slapd);
    config.password_file = Some(password(&slapd, "new"));
    let folder = tempfile::tempdir().unwrap();
    let asker = Asker::keeping(&config, Some(folder.path()));
    assert_eq!(asker.ask_unknown().await, LookupResult::Unavailable);
    slapd.modify(&format!("dn: {READER}\nchangetype: modify\nreplace: userPassword\nuserPassword: new\n"));
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(asker.ask_unknown().await, LookupResult::Unavailable, "nobody knows");
    asker.refresh(Accept::No).await.unwrap();
    assert_eq!(asker.ask_unknown().await, LookupResult::NotFound);
}

/// The password is changed in the directory and not in the file: the connection that is bound goes on.
#[tokio::test]
async fn a_connection_that_is_bound_stays_in_use() {
    for mode in [LdapMode::Lookup, SNAPSHOT] {
        let (slapd, standby) = (Slapd::start(), Slapd::start());
        let (first, second) = (Counting::start(slapd.address()), Counting::start(standby.address()));
        let config = LdapConfig { urls: vec![first.url(), second.url()], mode, ..openldap(&slapd) };
        let folder = tempfile::tempdir().unwrap();
        let asker = Asker::keeping(&config, Some(folder.path()));
        assert_eq!(asker.ask_unknown().await, LookupResult::NotFound);
        asker.shows("postmaster@contoso.com", LookupResult::Found(Kind::Mailbox), Duration::from_secs(20)).await;
        for server in [&slapd, &standby] {
            server.modify(&format!("dn: {READER}\nchangetype: modify\nreplace: userPassword\nuserPassword: new\n"));
        }
        for _ in 0..4 {
            pass(Duration::from_mins(10)).await;
            assert_eq!(asker.ask_unknown().await, LookupResult::NotFound, "{mode:?}");
        }
        assert_eq!((first.binds(), asker.up()), (1, 1), "{mode:?}");
        assert!(second.binds() <= 2, "{mode:?}: {} binds in 40 minutes at a standby server", second.binds());
        assert_eq!((asker.server_up(&first.url()), asker.server_up(&second.url())), (1, 0), "{mode:?}");
    }
}

#[tokio::test]
async fn standby_servers_are_tried_every_hour_and_dead_ones_sooner() {
    let (slapd, mut standby) = (Slapd::start(), Slapd::start());
    let mut config = openldap(&slapd);
    config.urls = vec![slapd.url(), standby.url()];
    let asker = Asker::new(&config);
    assert_eq!(asker.ask_unknown().await, LookupResult::NotFound);
    assert_eq!(asker.server_up(&slapd.url()), 1);
    pass(Duration::from_secs(61)).await;
    assert_eq!(asker.server_up(&standby.url()), 1);
    standby.stop();
    pass(Duration::from_mins(30)).await;
    assert_eq!(asker.server_up(&standby.url()), 1, "it is not asked yet");
    pass(Duration::from_mins(31)).await;
    assert_eq!((asker.server_up(&standby.url()), asker.server_up(&slapd.url()), asker.up()), (0, 1, 1));
    standby.restart();
    pass(Duration::from_mins(6)).await;
    assert_eq!(asker.server_up(&standby.url()), 1);
}

/// A controller says why in a number; whoever tries for an hour with a wrong password does not lock the account.
#[tokio::test]
async fn a_controller_says_why_it_lets_nobody_in_and_locks_nobody_out() {
    let samba = SambaAd::start();
    samba.lock_accounts_after(3);
    let mut config = active_directory(&samba);
    config.bind_dn = samba_ad::READER.to_owned();
    let wrong = samba.folder().join("wrong-password");
    std::fs::write(&wrong, "Passw0rd-wrong").unwrap();
    config.password_file = Some(wrong.clone());
    let asker = Asker::new(&config);
    let cause = asker.cause("postmaster@contoso.test").await;
    assert!(cause.contains("49 (the password is wrong, or bind_dn"), "{cause}");
    for _ in 0..6 {
        pass(Duration::from_mins(9)).await;
        assert_eq!(asker.ask_unknown().await, LookupResult::Unavailable);
    }
    std::fs::write(&wrong, samba_ad::READER_PASSWORD).unwrap();
    for _ in 0..40 {
        if asker.up() == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(asker.ask("postmaster@contoso.test").await, LookupResult::Found(Kind::Mailbox), "it is not locked");

    samba.disable("fingerpost");
    let cause = Asker::new(&config).cause("postmaster@contoso.test").await;
    assert!(cause.contains("49 (the account is disabled; enable it)"), "{cause}");
    assert_eq!(asker.ask_unknown().await, LookupResult::NotFound, "who is bound goes on");
}

/// What an operator sees of a standby server that is dead, and of a rejected password.
#[test]
fn check_and_status_name_the_server_that_is_no_use() {
    let (slapd, mut standby) = (Slapd::start(), Slapd::start());
    standby.stop();
    let mut node = prepare_node(&table(&slapd, &[slapd.url(), standby.url()], "timeout = \"2s\"\n"));
    let printed = |node: &TestNode, arguments: &[&str]| {
        let output = node.run(arguments);
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    let said = printed(&node, &["check", "--connect"]);
    assert!(said.contains(&format!("ok      directory ad, server {}: answers", slapd.url())), "{said}");
    let dead =
        format!("warning directory ad, server {}: does not answer as it should: Connection refused", standby.url());
    assert!(said.contains(&dead), "{said}");

    node.start();
    let series = |url: &str| format!("fingerpost_directory_server_up{{directory=\"ad\",url=\"{url}\"}}");
    wait_until("it is connected to", Duration::from_secs(10), || node.metric(&series(&slapd.url())) == Some(1.0));
    assert_eq!(node.metric(&series(&standby.url())), Some(1.0), "what nobody has tried is not down");
    let before = printed(&node, &["status"]);
    assert!(!before.contains("ad: "), "{before}");
    slapd.modify(&format!("dn: {READER}\nchangetype: modify\nreplace: userPassword\nuserPassword: other\n"));
    let mut slapd = slapd;
    slapd.restart();
    let mut status = String::new();
    wait_until("the password is rejected", Duration::from_secs(10), || {
        status = printed(&node, &["status"]);
        status.contains("answered 49")
    });
    assert!(
        status.contains(": the bind is answered 49 (invalid credentials; check bind_dn and password_file)"),
        "{status}"
    );
    assert!(status.contains("not tried again for 30 minutes, unless password_file changes"), "{status}");
    let refreshed = printed(&node, &["directory", "refresh", "ad"]);
    assert!(refreshed.contains("was not read: ") && refreshed.contains("answered 49"), "{refreshed}");
    slapd.modify(&format!("dn: {READER}\nchangetype: modify\nreplace: userPassword\nuserPassword: {PASSWORD}\n"));
    let refreshed = printed(&node, &["directory", "refresh", "ad"]);
    assert!(refreshed.starts_with("ad: 0 recipients"), "{refreshed}");
    wait_until("the other one is told of", Duration::from_secs(10), || {
        printed(&node, &["status"]).contains(&format!("ad: server {}: Connection refused", standby.url()))
    });
}

/// A reload makes a new directory; the password that was rejected is the same.
#[tokio::test]
async fn a_rejected_password_is_remembered_over_a_reload() {
    let slapd = Slapd::start();
    let server = Counting::start(slapd.address());
    let mut config = openldap(&slapd);
    config.urls = vec![server.url()];
    config.password_file = Some(password(&slapd, "wrong"));
    let (metrics, folder) = (Metrics::new(), tempfile::tempdir().unwrap());
    let prober = prober(&metrics);
    let needs = Needs { prober: &prober, folder: Some(folder.path()), mail: None, metrics: &metrics };
    let address = fingerpost::smtp::address::Address::parse("postmaster@contoso.com").unwrap();
    let question = Question { directory: "ad".into(), address, freshness: Freshness::Live };
    let mut previous: Option<Directories> = None;
    for (seconds, bind_dn, binds) in [(5, READER, 1), (6, READER, 1), (7, ADMIN, 2), (8, ADMIN, 2), (9, READER, 3)] {
        (config.timeout, config.bind_dn) = (Duration::from_secs(seconds), bind_dn.to_owned());
        let named = [named("ad", &DirectoryKind::Ldap(Box::new(config.clone())))];
        let built = build(&named, previous.as_ref(), &needs).unwrap();
        if let Some(previous) = &previous {
            previous.give_way_to(&built);
        }
        let answer = built.ask(&question).await;
        assert!(matches!(&answer.lookup, Lookup::Unavailable(why) if why.contains("49")), "{answer:?}");
        assert_eq!(server.binds(), binds, "{bind_dn} after {seconds}");
        previous = Some(built);
    }
}
