//! TLS, bind, several servers, reload.

use std::sync::Arc;
use std::time::Duration;

use fingerpost::config::DirectoryKind;
use fingerpost::directory::ldap::LdapDirectory;
use fingerpost::directory::{Directories, Needs, build};
use fingerpost::lookup::Kind;
use fingerpost::metrics::Metrics;

use crate::asker::{Asker, LookupResult, named, openldap, password, prober};
use support::certificates::Authority;
use support::slapd::Slapd;

#[tokio::test]
async fn tls_is_checked() {
    let slapd = Slapd::start();
    let other = slapd.folder().join("other");
    std::fs::create_dir(&other).unwrap();
    let other = Authority::new(&other).file();
    let plain = openldap(&slapd);
    let mut config = plain.clone();
    config.ca = Some(slapd.ca());
    for (url, start_tls) in [(slapd.tls_url(), false), (slapd.url().replace("127.0.0.1", "localhost"), true)] {
        config.urls = vec![url.clone()];
        config.start_tls = start_tls;
        assert_eq!(
            Asker::new(&config).ask("postmaster@contoso.com").await,
            LookupResult::Found(Kind::Mailbox),
            "{url}"
        );
        let mut wrong = config.clone();
        wrong.ca = Some(other.clone());
        let cause = Asker::new(&wrong).cause("postmaster@contoso.com").await;
        assert!(cause.contains("certificate"), "{cause}");
        wrong.ca = None;
        let cause = Asker::new(&wrong).cause("postmaster@contoso.com").await;
        assert!(cause.contains("certificate"), "{cause}");
    }
    config.urls = vec![slapd.tls_url().replace("localhost", "127.0.0.1")];
    let cause = Asker::new(&config).cause("postmaster@contoso.com").await;
    assert!(cause.contains("not valid for name"), "{cause}");

    config.ca = Some("/nowhere/ca.pem".into());
    let problems = LdapDirectory::open(&"ad".into(), &config, None, &Metrics::new()).err().unwrap();
    assert!(problems[0].contains("/nowhere/ca.pem"), "{problems:?}");
}

#[tokio::test]
async fn a_wrong_password_is_no_answer_until_it_is_right() {
    let slapd = Slapd::start();
    let mut config = openldap(&slapd);
    config.password_file = Some(password(&slapd, "wrong"));
    let asker = Asker::new(&config);
    let cause = asker.cause("postmaster@contoso.com").await;
    assert!(cause.contains("49") && !cause.contains("wrong"), "{cause}");
    assert_eq!(asker.up(), 0);
    password(&slapd, support::slapd::PASSWORD);
    asker.until(&LookupResult::NotFound, Duration::from_secs(10)).await;
    assert_eq!(asker.up(), 1);
}

#[tokio::test]
async fn an_empty_password_is_refused_before_any_bind() {
    let slapd = Slapd::start();
    let mut config = openldap(&slapd);
    config.password_file = Some(password(&slapd, "\n"));
    let cause = Asker::new(&config).cause("postmaster@contoso.com").await;
    assert!(cause.contains("is empty"), "{cause}");
    config.password_file = None;
    let cause = Asker::new(&config).cause("postmaster@contoso.com").await;
    assert!(cause.contains("write password_file"), "{cause}");
    config.bind_dn = String::new();
    assert_eq!(
        Asker::new(&config).ask("postmaster@contoso.com").await,
        LookupResult::Found(Kind::Mailbox),
        "anonymous"
    );
}

#[tokio::test]
async fn it_is_right_again_by_itself_after_a_restart() {
    let mut slapd = Slapd::start();
    let asker = Asker::new(&openldap(&slapd));
    assert_eq!(asker.ask_unknown().await, LookupResult::NotFound);
    slapd.stop();
    asker.until(&LookupResult::Unavailable, Duration::from_secs(1)).await;
    assert_eq!(asker.up(), 0);
    slapd.restart();
    asker.until(&LookupResult::NotFound, Duration::from_secs(8)).await;
    assert_eq!(asker.up(), 1);
}

#[tokio::test]
async fn the_next_server_is_tried_and_the_first_one_again_later() {
    let (first, second) = (Slapd::start(), Slapd::start());
    first.add_person("first", "mail: first@contoso.com");
    second.add_person("second", "mail: second@contoso.com");
    let mut config = openldap(&first);
    config.urls = vec![first.url(), second.url()];
    config.timeout = Duration::from_secs(6);
    let asker = Asker::new(&config);
    assert_eq!(asker.ask("first@contoso.com").await, LookupResult::Found(Kind::Mailbox));

    first.freeze();
    let start = std::time::Instant::now();
    assert_eq!(asker.ask("second@contoso.com").await, LookupResult::Found(Kind::Mailbox));
    assert!(start.elapsed() < Duration::from_secs(4), "a third of the time-out, then the second server");
    assert_eq!(asker.ask("nobody@contoso.com").await, LookupResult::NotFound);
    assert_eq!(asker.up(), 1);

    first.thaw();
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    for number in 0.. {
        assert!(std::time::Instant::now() < deadline, "the first server is not used again");
        first.add_person(&format!("p{number}"), &format!("mail: p{number}@contoso.com"));
        if asker.ask(&format!("p{number}@contoso.com")).await == LookupResult::Found(Kind::Mailbox) {
            break;
        }
    }
}

#[tokio::test]
async fn an_unchanged_directory_is_taken_over() {
    let slapd = Slapd::start();
    let kind = DirectoryKind::Ldap(Box::new(openldap(&slapd)));
    let metrics = Metrics::new();
    let prober = prober(&metrics);
    let needs = Needs { prober: &prober, folder: None, mail: None, metrics: &metrics };
    let first = build(&[named("a", &kind), named("b", &kind)], None, &needs).unwrap();
    let mut changed = openldap(&slapd);
    changed.timeout = Duration::from_secs(9);
    let changed = DirectoryKind::Ldap(Box::new(changed));
    let second = build(&[named("a", &kind), named("b", &changed)], Some(&first), &needs).unwrap();
    let same =
        |name: &str, one: &Directories, two: &Directories| Arc::ptr_eq(one.get(name).unwrap(), two.get(name).unwrap());
    assert!(same("a", &first, &second));
    assert!(!same("b", &first, &second));
}
