//! The profile `active-directory` on Samba's: who is found as what. One controller for all of it; starting it takes
//! seconds.

use std::collections::HashMap;
use std::time::Duration;

use fingerpost::config::{CacheConfig, HoldChanges, LdapConfig, LdapMode, Profile, SnapshotConfig};
use fingerpost::lookup::{Freshness, Kind, Lookup};
use fingerpost::smtp::address::Address;

use crate::asker::{Asker, LookupResult};
use LookupResult::{Ambiguous, Away, Found, NotFound};
use support::samba_ad::{ADMIN, BASE, DATABASE, SambaAd};

const REMOTE: u64 = 2_147_483_648;

pub fn config(samba: &SambaAd) -> LdapConfig {
    let (password_file, ca) = (Some(samba.password_file()), Some(samba.ca()));
    LdapConfig { urls: vec![samba.url()], password_file, ca, ..unreached() }
}

/// A directory that is not there.
pub fn unreached() -> LdapConfig {
    LdapConfig {
        urls: Vec::new(),
        profile: Profile::ActiveDirectory,
        base: vec![BASE.to_owned()],
        bind_dn: ADMIN.to_owned(),
        password_file: None,
        start_tls: false,
        ca: None,
        certificate: None,
        timeout: Duration::from_secs(5),
        probe: Some(Address::parse("postmaster@contoso.test").unwrap()),
        cache: CacheConfig { found: Duration::ZERO, not_found: Duration::ZERO, entries: 0 },
        refuse_disabled: false,
        mode: LdapMode::Lookup,
        hold_changes: HoldChanges { share_millionths: 20_000, at_least: 50, within: Duration::from_secs(3600) },
        mailbox_servers: HashMap::new(),
    }
}

/// LDIF lines of a user with that primary address, type and home.
fn lines(address: &str, kind: u64, more: &str) -> String {
    let more = if more.is_empty() { String::new() } else { format!("\n{more}") };
    format!("proxyAddresses: SMTP:{address}\nmail: {address}\nmsExchRecipientTypeDetails: {kind}{more}")
}

fn people(samba: &SambaAd) {
    let home = format!("homeMDB: {DATABASE}");
    let server = "msExchHomeServerName: /o=Contoso/ou=EU/cn=Configuration/cn=Servers/cn=EX-EU";
    let disabled = "userAccountControl: 514";
    let legacy = "legacyExchangeDN: /o=Contoso/ou=Exchange Administrative Group/cn=Recipients/cn=alice";
    let user = |name: &str, lines: &str| samba.add("user", name, lines);
    user(
        "alice",
        &lines(
            "Alice@contoso.test",
            1,
            &format!("proxyAddresses: smtp:alice.Second@CONTOSO.test\n{home}\n{server}\n{legacy}"),
        ),
    );
    user("rene", &lines("rene@contoso.test", 1, &format!("proxyAddresses: X500:/o=Old/cn=Recipients/cn=Rene\n{home}")));
    user("gone", &lines("gone@contoso.test", 1, &format!("{home}\n{disabled}")));
    user("linked", &lines("linked@contoso.test", 2, &format!("{home}\n{disabled}")));
    user("shared", &lines("shared@contoso.test", 4, &format!("{home}\n{disabled}")));
    user("mailuser", &lines("mailuser@contoso.test", 128, "targetAddress: SMTP:mailuser@other.example"));
    user(
        "remote",
        &lines("remote@contoso.test", REMOTE, &format!("{home}\ntargetAddress: SMTP:r@contoso.onmicrosoft.com")),
    );
    user("untyped", &format!("proxyAddresses: smtp:untyped@contoso.test\n{home}"));
    user("nomailbox", &lines("nomailbox@contoso.test", 65_536, ""));
    user("onlymail", "mail: onlymail@contoso.test");
    user("nick", &format!("mail: nick@contoso.test\nmailNickname: nick\n{home}"));
    user("upn", &format!("userPrincipalName: upn@contoso.test\n{home}"));
    user("twice1", &format!("proxyAddresses: smtp:twice@contoso.test\n{home}"));
    user("twice2", &format!("proxyAddresses: SMTP:Twice@contoso.test\n{home}"));
    samba.add("contact", "contact", &lines("contact@contoso.test", 64, "targetAddress: contact@other.example"));
    samba.add("group", "team", &lines("team@contoso.test", 256, "mailNickname: team"));
    samba.add("group", "old", "proxyAddresses: SMTP:old@contoso.test\nmailNickname: old");
}

#[tokio::test]
async fn recipients_of_a_real_active_directory() {
    let mut samba = SambaAd::start();
    people(&samba);
    let asker = Asker::new(&config(&samba));
    let away = |kind: Kind, target: &str| Away(kind, target.to_owned());
    for (address, expected) in [
        ("alice@contoso.test", Found(Kind::Mailbox)),
        ("ALICE.second@contoso.test", Found(Kind::Mailbox)),
        ("rene@contoso.test", Found(Kind::Mailbox)),
        (
            "IMCEAEX-_O=CONTOSO_OU=EXCHANGE+20ADMINISTRATIVE+20GROUP_CN=RECIPIENTS_CN=ALICE@contoso.test",
            Found(Kind::Mailbox),
        ),
        ("IMCEAEX-_o=Old_cn=Recipients_cn=rene@contoso.test", Found(Kind::Mailbox)),
        ("IMCEAEX-_o=Old_cn=Recipients_cn=nobody@contoso.test", NotFound),
        ("rené@contoso.test", NotFound),
        ("gone@contoso.test", Found(Kind::Mailbox)),
        ("linked@contoso.test", Found(Kind::Mailbox)),
        ("mailuser@contoso.test", away(Kind::MailUser, "mailuser@other.example")),
        ("remote@contoso.test", away(Kind::MailUser, "r@contoso.onmicrosoft.com")),
        ("untyped@contoso.test", Found(Kind::Mailbox)),
        ("nomailbox@contoso.test", Found(Kind::NoMailbox)),
        ("onlymail@contoso.test", NotFound),
        ("nick@contoso.test", LookupResult::Unavailable),
        ("upn@contoso.test", NotFound),
        ("twice@contoso.test", Ambiguous(2)),
        ("contact@contoso.test", away(Kind::Contact, "contact@other.example")),
        ("team@contoso.test", Found(Kind::Group)),
        ("old@contoso.test", Found(Kind::Group)),
        ("*@contoso.test", NotFound),
        ("\"alice)(cn=*\"@contoso.test", NotFound),
        ("nobody@contoso.test", NotFound),
    ] {
        assert_eq!(asker.ask(address).await, expected, "{address}");
    }
    let Lookup::Found(alice) = asker.answer("alice@contoso.test", Freshness::Live).await.lookup else { panic!() };
    assert_eq!(alice.mail_server.as_deref(), Some("ex-eu"));
    assert_eq!(&*alice.entry, "CN=alice,CN=Users,DC=contoso,DC=test");
    let contradictions = asker.metrics.directory_contradictions.with_label_values(&["ad"]).get();
    assert_eq!(contradictions, 2, "the stale homeMDB, and who has no proxyAddresses");

    crate::lookup_output::is_shown(&config(&samba), "alice@contoso.test");
    wrapped_names_from_memory(&samba).await;
    refusing_the_disabled(&samba).await;
    an_accented_neighbour(&samba, &asker).await;
    over_tls(&samba).await;
    faults(&samba).await;

    samba.stop();
    assert_eq!(asker.ask("alice@contoso.test").await, LookupResult::Unavailable);
    samba.restart();
    asker.shows("alice@contoso.test", Found(Kind::Mailbox), Duration::from_secs(10)).await;
}

async fn wrapped_names_from_memory(samba: &SambaAd) {
    let patience = Duration::from_secs(3600);
    let mode =
        LdapMode::Snapshot(SnapshotConfig { poll: Duration::from_secs(1), full_read: patience, max_stale: patience });
    let folder = tempfile::tempdir().unwrap();
    let asker = Asker::keeping(&LdapConfig { mode, ..config(samba) }, Some(folder.path()));
    let address = "IMCEAEX-_o=Old_cn=Recipients_cn=rene@contoso.test";
    asker.remembers(address, Some(Found(Kind::Mailbox)), Duration::from_secs(30)).await;
}

async fn refusing_the_disabled(samba: &SambaAd) {
    let mut config = config(samba);
    config.refuse_disabled = true;
    let asker = Asker::new(&config);
    for (address, expected) in [
        ("gone@contoso.test", Kind::NoMailbox),
        ("linked@contoso.test", Kind::Mailbox),
        ("shared@contoso.test", Kind::Mailbox),
    ] {
        assert_eq!(asker.ask(address).await, Found(expected), "{address}");
    }
}

/// Active Directory's matching ignores accents; both are found, each for itself.
async fn an_accented_neighbour(samba: &SambaAd, asker: &Asker) {
    samba.add("user", "rene2", &format!("proxyAddresses: SMTP:rené@contoso.test\nhomeMDB: {DATABASE}"));
    for (address, cn) in [("rene@contoso.test", "CN=rene,"), ("René@contoso.test", "CN=rene2,")] {
        let Lookup::Found(found) = asker.answer(address, Freshness::Live).await.lookup else { panic!("{address}") };
        assert!(found.entry.starts_with(cn), "{address}: {}", found.entry);
    }
}

async fn over_tls(samba: &SambaAd) {
    let mut config = config(samba);
    config.urls = vec![samba.tls_url()];
    assert_eq!(Asker::new(&config).ask("alice@contoso.test").await, Found(Kind::Mailbox));
    config.urls = vec![samba.url()];
    config.start_tls = true;
    assert_eq!(Asker::new(&config).ask("alice@contoso.test").await, Found(Kind::Mailbox));
}

async fn faults(samba: &SambaAd) {
    let mut other_base = config(samba);
    other_base.base = vec!["DC=emea,DC=contoso,DC=test".to_owned()];
    let cause = Asker::new(&other_base).cause("alice@contoso.test").await;
    assert!(cause.contains(" 32 ") || cause.contains(" 10 "), "{cause}");

    let mut no_probe = config(samba);
    no_probe.probe = Some(Address::parse("onlymail@contoso.test").unwrap());
    let asker = Asker::new(&no_probe);
    assert_eq!(asker.ask("alice@contoso.test").await, Found(Kind::Mailbox));
    assert!(asker.cause("nobody@contoso.test").await.contains("check base and rights"));
    assert_eq!(asker.up(), 0);

    let mut anonymous = config(samba);
    anonymous.bind_dn = String::new();
    let cause = Asker::new(&anonymous).cause("alice@contoso.test").await;
    assert!(cause.contains(" 1 "), "{cause}");
}
