//! Whatever is not a clean answer is `Unavailable`, and right again by itself.

use std::time::Duration;

use fingerpost::lookup::{Freshness, Kind};

use crate::asker::{Asker, LookupResult, openldap, result_of};
use crate::proxy::{Mode, Proxy};
use support::slapd::{BASE, READER, Slapd};

#[tokio::test]
async fn a_read_right_that_is_revoked_is_no_not_found() {
    let slapd = Slapd::start();
    slapd.add_person("alice", "mail: alice@contoso.com");
    let asker = Asker::new(&openldap(&slapd));
    assert_eq!(asker.ask_unknown().await, LookupResult::NotFound);
    slapd.configure("olcAccess", "{0}to attrs=userPassword by anonymous auth by * none");
    let cause = asker.cause("alice@contoso.com").await;
    assert!(cause.contains("32") || cause.contains("check base and rights"), "{cause}");
    slapd.configure("olcAccess", "{0}to dn.base=\"dc=contoso,dc=com\" by * read");
    let cause = asker.cause("nobody@contoso.com").await;
    assert!(cause.contains("check base and rights"), "{cause}");
    assert_eq!(asker.up(), 0);
    slapd.configure("olcAccess", "{0}to * by * read");
    assert_eq!(asker.ask("alice@contoso.com").await, LookupResult::Found(Kind::Mailbox));
    assert_eq!(asker.up(), 1);
}

#[tokio::test]
async fn a_wrong_base_is_no_not_found() {
    let slapd = Slapd::start();
    slapd.add(&format!("dn: ou=empty,{BASE}\nobjectClass: organizationalUnit\nou: empty\n"));
    for (base, words) in [
        ("dc=contoso,dc=net", "`dc=contoso,dc=net`"),
        ("ou=gone,dc=contoso,dc=com", "32"),
        ("nonsense", "34"),
        ("ou=empty,dc=contoso,dc=com", "check base and rights"),
    ] {
        for probe in [openldap(&slapd).probe, None] {
            let mut config = openldap(&slapd);
            config.base = vec![base.to_owned()];
            config.probe = probe.clone();
            let asker = Asker::new(&config);
            let cause = asker.cause("nobody@contoso.com").await;
            if probe.is_none() && base.starts_with("ou=empty") {
                assert!(cause.contains("no entry of the directory has any of"), "{cause}");
                continue;
            }
            assert!(cause.contains(words) || probe.is_none(), "{base}: {cause}");
            assert_eq!(asker.up(), 0, "{base}");
        }
    }
}

#[tokio::test]
async fn searches_that_take_long_are_seen_by_their_attribute() {
    let slapd = Slapd::start();
    let proxy = Proxy::start(slapd.address()).await;
    let asker = Asker::new(&fingerpost::config::LdapConfig { urls: vec![proxy.url()], ..openldap(&slapd) });
    assert_eq!(asker.ask("postmaster@contoso.com").await, LookupResult::Found(Kind::Mailbox));
    proxy.set(Mode::Later(120));
    let examined = asker.examine().await;
    let attributes: Vec<&str> = examined.took.iter().map(|(attribute, _)| attribute.as_str()).collect();
    assert_eq!(attributes, ["mail", "mailAlternateAddress", "mailLocalAddress"]);
    assert!(examined.took.iter().all(|(_, took)| *took >= Duration::from_millis(120)), "{examined:?}");
    assert_eq!(examined.clock, None, "slapd does not tell the time");
}

#[tokio::test]
async fn a_limit_that_is_exceeded_is_no_answer() {
    let slapd = Slapd::start();
    slapd.add_person("alice", "mail: alice@contoso.com");
    slapd.configure("olcLimits", &format!("{{0}}dn.exact=\"{READER}\" size=1"));
    let asker = Asker::new(&openldap(&slapd));
    let cause = asker.cause("alice@contoso.com").await;
    assert!(cause.contains("size limit"), "{cause}");
    assert_eq!(asker.ask("nobody@contoso.com").await, LookupResult::NotFound);
    assert_eq!(asker.up(), 1, "it says nothing of other questions");
}

#[tokio::test]
async fn cut_and_malformed_answers_are_no_answers() {
    let slapd = Slapd::start();
    slapd.add_person("alice", "mail: alice@contoso.com");
    let proxy = Proxy::start(slapd.address()).await;
    let mut config = openldap(&slapd);
    config.urls = vec![proxy.url()];
    config.timeout = Duration::from_secs(2);
    let asker = Asker::new(&config);
    assert_eq!(asker.ask_unknown().await, LookupResult::NotFound);
    for mode in [
        Mode::CutInTheMiddle,
        // Not BER; a message without content; one without an operation; a text for a message id; an entry that is none.
        Mode::Instead(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        Mode::Instead(b"\x30\x00"),
        Mode::Instead(b"\x30\x03\x02\x01\x02"),
        Mode::Instead(b"\x30\x06\x04\x01\x02\x64\x01\x00"),
        Mode::Instead(b"\x30\x05\x02\x01\x03\x64\x00"),
        Mode::Instead(b"\xff\xff\xff\xff\xff\xff\xff\xff"),
        Mode::Swallow,
    ] {
        proxy.set(mode);
        assert_eq!(asker.ask("alice@contoso.com").await, LookupResult::Unavailable, "{mode:?}");
        proxy.set(Mode::Pass);
        asker.until(&LookupResult::NotFound, Duration::from_secs(10)).await;
    }
    assert_eq!(asker.ask("alice@contoso.com").await, LookupResult::Found(Kind::Mailbox));
}

/// What would be relayed is asked again while the directory is in doubt; what is known goes on.
#[tokio::test]
async fn a_cached_not_found_is_not_served_while_the_directory_is_down() {
    for fault in ["stopped", "revoked", "frozen"] {
        let mut slapd = Slapd::start();
        slapd.add_person("alice", "mail: alice@contoso.com");
        let mut config = openldap(&slapd);
        config.timeout = Duration::from_secs(1);
        let asker = Asker::new(&config);
        let any = async |address: &str| result_of(&asker.answer(address, Freshness::Any).await.lookup);
        assert_eq!(any("alice@contoso.com").await, LookupResult::Found(Kind::Mailbox));
        assert_eq!(any("nobody@contoso.com").await, LookupResult::NotFound);
        assert_eq!(any("nobody@contoso.com").await, LookupResult::NotFound);
        assert_eq!(asker.count("cached"), 1, "it is served from the cache while the directory is well");

        match fault {
            "stopped" => slapd.stop(),
            "revoked" => slapd.configure("olcAccess", "{0}to attrs=userPassword by anonymous auth by * none"),
            _ => slapd.freeze(),
        }
        assert_eq!(asker.ask_unknown().await, LookupResult::Unavailable, "{fault}");
        assert_eq!(any("nobody@contoso.com").await, LookupResult::Unavailable, "{fault}");
        assert_eq!(any("alice@contoso.com").await, LookupResult::Found(Kind::Mailbox), "{fault}");

        match fault {
            "stopped" => slapd.restart(),
            "revoked" => slapd.configure("olcAccess", "{0}to * by * read"),
            _ => slapd.thaw(),
        }
        asker.until(&LookupResult::NotFound, Duration::from_secs(10)).await;
        let cached = asker.count("cached");
        assert_eq!(any("nobody@contoso.com").await, LookupResult::NotFound, "{fault}");
        assert_eq!(asker.count("cached"), cached + 1, "{fault}: it is served again");
    }
}
