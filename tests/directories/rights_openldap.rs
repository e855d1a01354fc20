//! Attributes that the account may not read, with profiles of other systems, on slapd; and its limits on how many entries a
//! search may find.

use std::sync::Arc;
use std::time::Duration;

use fingerpost::config::{CacheConfig, CustomProfile, LdapConfig, LdapMode, Profile, SnapshotConfig};
use fingerpost::directory::Accept;
use fingerpost::lookup::Kind;
use fingerpost::smtp::address::Address;
use tokio::time::Instant;

use crate::asker::{Asker, LookupResult, openldap};
use LookupResult::{Ambiguous, Away, Found, NotFound, Unavailable};
use support::slapd::{BASE, READER, Slapd};

const MAILBOX: LookupResult = Found(Kind::Mailbox);
const NO_MAILBOX: LookupResult = Found(Kind::NoMailbox);

fn person(slapd: &Slapd, class: &str, uid: &str, lines: &str) {
    slapd.add(&format!(
        "dn: uid={uid},{BASE}\nobjectClass: inetOrgPerson\nobjectClass: {class}\nuid: {uid}\ncn: {uid}\nsn: {uid}\n\
         mail: {uid}@contoso.com\n{lines}\n"
    ));
}

/// Nobody reads these attributes from now on; with none, everybody reads all.
fn hide(slapd: &Slapd, attributes: &str) {
    let rest = "to attrs=userPassword by anonymous auth\nolcAccess: {2}to * by * read";
    let first = if attributes.is_empty() {
        "to attrs=entry by * read".to_owned()
    } else {
        format!("to attrs={attributes} by * none")
    };
    slapd.configure("olcAccess", &format!("{{0}}{first}\nolcAccess: {{1}}{rest}"));
}

fn config(slapd: &Slapd, profile: Profile, probe: Option<&str>) -> LdapConfig {
    let cache = CacheConfig { found: Duration::ZERO, not_found: Duration::ZERO, entries: 0 };
    LdapConfig { profile, probe: probe.map(|probe| Address::parse(probe).unwrap()), cache, ..openldap(slapd) }
}

/// What is said in both modes by somebody who comes new, and how many entries are odd.
async fn say(config: &LdapConfig, odd: i64, table: &[(&str, LookupResult)]) {
    let (patience, folder) = (Duration::from_secs(3600), tempfile::tempdir().unwrap());
    let mode =
        LdapMode::Snapshot(SnapshotConfig { poll: Duration::from_secs(1), full_read: patience, max_stale: patience });
    let (lookup, snapshot) =
        (Asker::new(config), Asker::keeping(&LdapConfig { mode, ..config.clone() }, Some(folder.path())));
    let start = Instant::now();
    while let Err(cause) = snapshot.refresh(Accept::No).await {
        assert!(start.elapsed() < Duration::from_secs(10), "{cause}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for (uid, expected) in table {
        let address = format!("{uid}@contoso.com");
        assert_eq!(lookup.answer_any(&address).await, *expected, "lookup: {uid}");
        assert_eq!(snapshot.answer_any(&address).await, *expected, "snapshot: {uid}");
    }
    for asker in [&lookup, &snapshot] {
        assert_eq!(asker.metrics.directory_contradictions.with_label_values(&["ad"]).get(), odd);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_domino() {
    let slapd = Slapd::start_with(include_str!("schemas/domino.schema"));
    let home = "mailServer: CN=MAIL1,O=Contoso\nmailSystem: 1";
    person(&slapd, "dominoPerson", "box", home);
    person(&slapd, "dominoPerson", "away", "mailSystem: 5\nmailAddress: away@other.example");
    person(&slapd, "dominoPerson", "notes", "mailSystem: 3\nmailAddress: Notes User/Other@Other");
    person(&slapd, "dominoPerson", "none", "mailSystem: 100");
    let away = || Away(Kind::MailUser, "away@other.example".to_owned());
    let notes = || Found(Kind::MailUser);
    let is = |said: [LookupResult; 5]| {
        ["box", "away", "notes", "none", "postmaster"].into_iter().zip(said).collect::<Vec<_>>()
    };
    // `postmaster` has neither `mailSystem` nor `mailServer`.
    let probe = Some("box@contoso.com");
    say(&config(&slapd, Profile::Domino, probe), 1, &is([MAILBOX, away(), notes(), NO_MAILBOX, NO_MAILBOX])).await;
    hide(&slapd, "mailAddress");
    let seen = is([MAILBOX, Unavailable, Unavailable, NO_MAILBOX, NO_MAILBOX]);
    say(&config(&slapd, Profile::Domino, probe), 3, &seen).await;
    // Without what tells who has a mail file nobody is without one; a probe would be the first.
    hide(&slapd, "mailSystem,mailServer");
    let mut seen = is([Unavailable, away(), Unavailable, Unavailable, Unavailable]);
    seen.push(("nobody", NotFound));
    say(&config(&slapd, Profile::Domino, None), 4, &seen).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_zimbra() {
    let slapd = Slapd::start_with(include_str!("schemas/zimbra.schema"));
    person(&slapd, "zimbraAccount", "box", "zimbraMailStatus: enabled");
    person(&slapd, "zimbraAccount", "plain", "zimbraMailDeliveryAddress: plain@contoso.com");
    let zimbra = config(&slapd, Profile::Zimbra, None);
    say(&zimbra, 2, &[("box", MAILBOX), ("plain", NO_MAILBOX), ("postmaster", NO_MAILBOX), ("nobody", NotFound)]).await;
    hide(&slapd, "zimbraMailStatus");
    say(&zimbra, 3, &[("box", Unavailable), ("plain", Unavailable), ("postmaster", Unavailable)]).await;
    // Whom nobody may see at all is not known to be missing.
    hide(&slapd, "mail,zimbraMailDeliveryAddress,zimbraMailAlias,zimbraOldMailAddress");
    say(&zimbra, 0, &[("box", Unavailable), ("nobody", Unavailable)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_entries_with_an_address_that_does_not_count() {
    let slapd = Slapd::start();
    person(&slapd, "inetLocalMailRecipient", "ann", "mailLocalAddress: help@contoso.com");
    for number in 0..40 {
        person(&slapd, "inetLocalMailRecipient", &format!("admin{number}"), "mail: help@contoso.com");
    }
    let own = CustomProfile {
        addresses: vec!["maillocaladdress".to_owned()],
        fallback: vec!["mail".to_owned()],
        ..CustomProfile::default()
    };
    // OpenLDAP refuses who asks for more than a hard limit.
    for limit in ["unlimited", "100"] {
        slapd.configure("olcLimits", &format!("{{0}}dn.exact=\"{READER}\" size.soft={limit} size.hard={limit}"));
        let probe = Some("postmaster@contoso.com");
        let asker = Asker::new(&config(&slapd, Profile::Custom(Arc::new(own.clone())), probe));
        assert_eq!(asker.answer_any("help@contoso.com").await, MAILBOX, "{limit}");
        assert!(asker.entry("help@contoso.com").await.starts_with("uid=ann,"), "{limit}");
        let asker = Asker::new(&config(&slapd, Profile::Openldap, probe));
        assert_eq!(asker.answer_any("help@contoso.com").await, Ambiguous(41), "{limit}");
    }
    slapd.configure("olcLimits", &format!("{{0}}dn.exact=\"{READER}\" size.soft=20 size.hard=20"));
    let asker = Asker::new(&config(&slapd, Profile::Openldap, Some("postmaster@contoso.com")));
    assert!(asker.cause("help@contoso.com").await.contains("size limit exceeded"));
}
