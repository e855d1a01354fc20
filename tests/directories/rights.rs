//! Attributes that the account may not read, on Samba's Active Directory: what may not be seen looks as if it were not
//! there, and is no answer, in both modes; entries that get no mail outvote nobody; and the rights that the manual names are
//! enough.

use std::path::Path;
use std::time::Duration;

use fingerpost::config::{LdapConfig, LdapMode, Profile};
use fingerpost::directory::Accept;
use fingerpost::lookup::Kind;

use crate::asker::{Asker, LookupResult};
use crate::snapshot_active_directory::{config, mailbox};
use LookupResult::{Away, Found, NotFound, Unavailable};
use support::samba_ad::{BASE, DATABASE, SambaAd};

const LATER: Duration = Duration::from_secs(30);
const STAFF: &str = "OU=Staff,";

/// What docs/directories/active-directory.md names.
const ATTRIBUTES: [&str; 11] = [
    "proxyAddresses",
    "mail",
    "mailNickname",
    "legacyExchangeDN",
    "homeMDB",
    "msExchHomeServerName",
    "msExchRecipientTypeDetails",
    "msExchMailboxGuid",
    "targetAddress",
    "userAccountControl",
    "uSNChanged",
];

fn add(samba: &SambaAd, class: &str, name: &str, lines: &str) {
    let account = if class == "contact" { String::new() } else { format!("sAMAccountName: {name}\n") };
    let nick = format!("mailNickname: {name}\nmail: {name}@contoso.test\nproxyAddresses: SMTP:{name}@contoso.test");
    samba.modify(&format!(
        "dn: CN={name},{STAFF}{BASE}\nchangetype: add\nobjectClass: {class}\n{account}{nick}\n{lines}\n"
    ));
}

/// One of each kind, of now and of Exchange 2003, which writes no types.
fn people(samba: &SambaAd) {
    samba.modify(&format!("dn: {STAFF}{BASE}\nchangetype: add\nobjectClass: organizationalUnit\n"));
    let kind = |value: u64| format!("msExchRecipientTypeDetails: {value}");
    let away = |name: &str| format!("targetAddress: SMTP:{name}@other.example");
    let legacy = |name: &str| format!("legacyExchangeDN: /o=Contoso/ou=EU/cn=Recipients/cn={name}");
    let home = format!("homeMDB: {DATABASE}");
    let alias = "proxyAddresses: smtp:alias@contoso.test";
    add(samba, "user", "box", &format!("{}\n{home}\n{alias}\n{}", kind(1), legacy("box")));
    add(samba, "user", "remote", &format!("{}\n{}\n{}", kind(2_147_483_648), away("remote"), legacy("remote")));
    add(samba, "user", "mailuser", &format!("{}\n{}\n{}", kind(128), away("mailuser"), legacy("mailuser")));
    add(samba, "contact", "contact", &format!("{}\n{}", kind(64), away("contact")));
    add(samba, "group", "team", &kind(256));
    add(samba, "user", "oldbox", &home);
    add(samba, "contact", "oldcontact", &away("oldcontact"));
    add(samba, "group", "oldteam", "");
}

fn expected() -> Vec<(&'static str, LookupResult)> {
    let away = |kind: Kind, name: &str| Away(kind, format!("{name}@other.example"));
    vec![
        ("box", Found(Kind::Mailbox)),
        ("remote", away(Kind::MailUser, "remote")),
        ("mailuser", away(Kind::MailUser, "mailuser")),
        ("contact", away(Kind::Contact, "contact")),
        ("team", Found(Kind::Group)),
        ("oldbox", Found(Kind::Mailbox)),
        ("oldcontact", away(Kind::MailUser, "oldcontact")),
        ("oldteam", Found(Kind::Group)),
        ("alias", Found(Kind::Mailbox)),
        ("nobody", NotFound),
    ]
}

/// The directory in one of both modes; few of its entries are held back.
struct BothModes {
    lookup: Asker,
    snapshot: Asker,
    _folder: tempfile::TempDir,
}

impl BothModes {
    async fn of(config: LdapConfig) -> Self {
        let lookup = Asker::new(&LdapConfig { mode: LdapMode::Lookup, ..config.clone() });
        let folder = tempfile::tempdir().unwrap();
        let snapshot = Asker::keeping(&config, Some(folder.path()));
        snapshot.remembers("postmaster@contoso.test", Some(Found(Kind::Mailbox)), LATER).await;
        Self { lookup, snapshot, _folder: folder }
    }

    /// What both say now, the snapshot after a whole read: rights are no change of an entry.
    async fn say(&self, people: &[(&str, LookupResult)]) {
        self.snapshot.refresh(Accept::Yes).await.unwrap();
        self.snapshot.refresh(Accept::Yes).await.unwrap();
        for (name, expected) in people {
            let address = format!("{name}@contoso.test");
            assert_eq!(self.lookup.answer_any(&address).await, *expected, "lookup: {name}");
            assert_eq!(self.snapshot.answer_any(&address).await, *expected, "snapshot: {name}");
        }
    }

    /// What the gauges say, and `check --connect`.
    async fn count(&self) -> [i64; 3] {
        let gauge = |asker: &Asker| asker.metrics.directory_contradictions.with_label_values(&["ad"]).get();
        let examined = self.lookup.examine().await;
        assert!(examined.is_whole);
        [gauge(&self.lookup), gauge(&self.snapshot), i64::try_from(examined.odd.values().sum::<usize>()).unwrap()]
    }
}

fn without(people: Vec<(&'static str, LookupResult)>, these: &[&str]) -> Vec<(&'static str, LookupResult)> {
    let now = |(name, said)| if these.contains(&name) { (name, Unavailable) } else { (name, said) };
    people.into_iter().map(now).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_withdrawn_is_no_answer() {
    let samba = SambaAd::start();
    let password = samba.reader_password_file();
    people(&samba);
    let both = BothModes::of(config(vec![samba.url()], &[""], &password)).await;
    both.say(&expected()).await;
    assert_eq!(both.count().await, [0, 0, 0]);

    // Only a part of the domain.
    let staff: Vec<String> = expected().iter().take(8).map(|(name, _)| format!("CN={name},{STAFF}")).collect();
    let before = samba.hide_of(&staff, &["targetAddress"]);
    let away = ["remote", "mailuser", "contact", "oldcontact"];
    both.say(&without(expected(), &away)).await;
    assert_eq!(both.count().await, [4, 4, 4]);
    let cause = both.lookup.cause("remote@contoso.test").await;
    assert!(
        cause.contains("of type RemoteUserMailbox without targetAddress: may the bind account read it?"),
        "{cause}"
    );
    let examined = both.lookup.examine().await;
    assert_eq!(examined.odd["an entry of type MailContact without targetAddress: may the bind account read it?"], 1);

    // Whoever is found by `mail` may have other addresses, which nobody sees.
    samba.show(&before);
    samba.hide_of(&staff, &["proxyAddresses"]);
    let all: Vec<&str> =
        expected().iter().map(|(name, _)| *name).filter(|name| !["alias", "nobody"].contains(name)).collect();
    let seen: Vec<_> = without(expected(), &all).into_iter().filter(|(name, _)| *name != "alias").collect();
    both.say(&seen).await;
    assert_eq!(both.count().await, [8, 8, 8]);
    // Memory knows of them.
    assert_eq!(both.snapshot.answer_any("alias@contoso.test").await, Unavailable);

    // Without the type and what else tells who has a mailbox, `mailNickname` shows that there is something.
    samba.show(&before);
    samba.hide_of(&staff, &["msExchRecipientTypeDetails", "homeMDB", "targetAddress"]);
    let all: Vec<&str> = expected().iter().map(|(name, _)| *name).collect();
    let untold: Vec<&str> = all.iter().copied().filter(|name| !["team", "oldteam", "nobody"].contains(name)).collect();
    both.say(&without(expected(), &untold)).await;
    assert_eq!(both.count().await, [6, 6, 6]);

    samba.show(&before);
    both.say(&expected()).await;
    assert_eq!(both.count().await, [0, 0, 0]);
}

/// The probe says it where the right is missing everywhere: then nobody is unknown, and whom memory has is served on.
#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_withdrawn_everywhere_shows_in_the_probe() {
    let samba = SambaAd::start();
    let password = samba.reader_password_file();
    people(&samba);
    samba.modify(&format!(
        "dn: CN=postmaster,CN=Users,{BASE}\nchangetype: modify\nadd: mail\nmail: postmaster@contoso.test\n-\n\
         add: mailNickname\nmailNickname: postmaster\n"
    ));
    let both = BothModes::of(config(vec![samba.url()], &[""], &password)).await;
    both.say(&expected()).await;
    let users = ["postmaster,CN=Users,", "box,OU=Staff,", "remote,OU=Staff,"].map(|name| format!("CN={name}"));
    samba.hide_of(&users, &["proxyAddresses"]);
    for name in ["box", "alias", "remote", "nobody"] {
        assert_eq!(both.lookup.answer_any(&format!("{name}@contoso.test")).await, Unavailable, "{name}");
    }
    let cause = both.snapshot.refresh(Accept::No).await.unwrap_err();
    assert!(cause.contains("the probe postmaster@contoso.test") && cause.contains("proxyAddresses"), "{cause}");
    assert_eq!(both.snapshot.in_memory("alias@contoso.test"), Some(Found(Kind::Mailbox)));
    assert_eq!(both.snapshot.answer_any("nobody@contoso.test").await, Unavailable);
}

/// Where many are concerned memory goes on as before, and says what is wrong.
#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_withdrawn_from_many_turns_nobody_around() {
    let samba = SambaAd::start();
    let password = samba.reader_password_file();
    let people = (0..60).map(|n| {
        format!(
            "dn: CN=u{n},CN=Users,{BASE}\nchangetype: add\nobjectClass: user\nsAMAccountName: u{n}\n\
             proxyAddresses: SMTP:u{n}@contoso.test\nmailNickname: u{n}\nmsExchRecipientTypeDetails: 2147483648\n\
             targetAddress: SMTP:u{n}@other.example\n\n"
        )
    });
    samba.modify(&people.collect::<String>());
    let both = BothModes::of(config(vec![samba.url()], &[""], &password)).await;
    let away = |n: usize| Away(Kind::MailUser, format!("u{n}@other.example"));
    assert_eq!(both.snapshot.in_memory("u7@contoso.test"), Some(away(7)));
    samba.hide(&samba.schema_id("targetAddress"));
    let refreshed = both.snapshot.refresh(Accept::No).await.unwrap();
    assert_eq!(refreshed.held, 60);
    for n in 0..60 {
        let address = format!("u{n}@contoso.test");
        assert_eq!(both.snapshot.in_memory(&address), Some(away(n)));
        assert_eq!(both.lookup.answer_any(&address).await, Unavailable);
    }
    assert_eq!(both.count().await, [60, 60, 60], "what is held says why");
    // Whoever accepts it all the same has no answer instead of a wrong one.
    both.snapshot.refresh(Accept::Yes).await.unwrap();
    assert_eq!(both.snapshot.in_memory("u7@contoso.test"), None);
    assert_eq!(both.snapshot.answer_any("u7@contoso.test").await, Unavailable);
}

/// Without a probe one search an hour says whether any entry shows the attributes that an answer rests on.
#[tokio::test(flavor = "multi_thread")]
async fn who_shows_no_sign_of_mail_is_nobody_only_where_others_show_one() {
    let samba = SambaAd::start();
    let password = samba.reader_password_file();
    let plain = |name: &str| format!("proxyAddresses: SMTP:{name}@contoso.test");
    samba.add("user", "plain", &plain("plain"));
    let config = |password: &Path| LdapConfig { probe: None, ..config(vec![samba.url()], &["CN=Users,"], password) };
    let lookup = || Asker::new(&LdapConfig { mode: LdapMode::Lookup, ..config(&password) });
    let folder = tempfile::tempdir().unwrap();

    // `postmaster` has a homeMDB.
    let asker = lookup();
    assert_eq!(asker.answer_any("plain@contoso.test").await, Found(Kind::NoMailbox));
    assert_eq!(asker.answer_any("nobody@contoso.test").await, NotFound);
    let gauge = |asker: &Asker| asker.metrics.directory_contradictions.with_label_values(&["ad"]).get();
    assert_eq!(gauge(&asker), 1);
    let users = ["postmaster", "plain"].map(|name| format!("CN={name},CN=Users,"));
    let before = samba.hide_of(&users, &["homeMDB"]);
    let (asker, snapshot) = (lookup(), Asker::keeping(&config(&password), Some(folder.path())));
    assert_eq!(asker.answer_any("plain@contoso.test").await, Unavailable);
    assert!(asker.cause("plain@contoso.test").await.contains("may fingerpost@CONTOSO.TEST read them?"));
    assert_eq!(asker.answer_any("nobody@contoso.test").await, NotFound, "proxyAddresses are shown");
    snapshot.refresh(Accept::No).await.unwrap();
    assert_eq!(snapshot.in_memory("plain@contoso.test"), None);
    assert_eq!(snapshot.answer_any("plain@contoso.test").await, Unavailable);

    samba.show(&before);
    samba.hide_of(&users, &["proxyAddresses"]);
    let asker = lookup();
    assert_eq!(asker.answer_any("plain@contoso.test").await, Unavailable);
    assert_eq!(asker.answer_any("nobody@contoso.test").await, Unavailable);
}

/// The default of Windows lets everybody read all; where that was taken away, users show little.
#[tokio::test(flavor = "multi_thread")]
async fn the_rights_of_the_manual_are_enough() {
    let samba = SambaAd::start();
    let password = samba.reader_password_file();
    people(&samba);
    samba.harden();
    let config = config(vec![samba.url()], &[""], &password);
    let lookup = Asker::new(&LdapConfig { mode: LdapMode::Lookup, ..config.clone() });
    for name in ["box", "remote", "mailuser", "oldbox", "alias", "nobody"] {
        assert_eq!(lookup.answer_any(&format!("{name}@contoso.test")).await, Unavailable, "{name}");
    }
    samba.grant_in("", &ATTRIBUTES);
    let both = BothModes::of(LdapConfig { refuse_disabled: true, ..config }).await;
    let accounts = |samba: &SambaAd, control: u32| {
        let change = |name: &str| {
            format!(
                "dn: CN={name},{STAFF}{BASE}\nchangetype: modify\nreplace: userAccountControl\n\
                 userAccountControl: {control}\n\n"
            )
        };
        samba.modify(&["box", "remote", "mailuser"].map(change).concat());
    };
    // 544: enabled, with no password needed.
    accounts(&samba, 544);
    both.say(&expected()).await;
    assert_eq!(both.count().await, [0, 0, 0]);
    accounts(&samba, 546);
    both.say(&[("box", Found(Kind::NoMailbox)), ("oldbox", Found(Kind::Mailbox))]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_gets_no_mail_outvotes_nobody() {
    let samba = SambaAd::start();
    let password = samba.reader_password_file();
    // Administrators' accounts with the mail address of the person.
    let admins = (0..40).map(|n| {
        format!(
            "dn: CN=admin{n},CN=Users,{BASE}\nchangetype: add\nobjectClass: user\nsAMAccountName: admin{n}\n\
             mail: ann@contoso.test\n\n"
        )
    });
    samba.modify(&admins.collect::<String>());
    samba.add("user", "ann", &mailbox("ann@contoso.test"));
    // Leavers whose account is disabled keep their addresses.
    for name in ["left", "gone"] {
        let info = "proxyAddresses: smtp:info@contoso.test\nmsExchRecipientTypeDetails: 2097152";
        samba.add("user", name, &format!("{info}\nuserAccountControl: 546"));
    }
    let both = BothModes::of(config(vec![samba.url()], &[""], &password)).await;
    both.say(&[("ann", Found(Kind::Mailbox)), ("info", Found(Kind::NoMailbox))]).await;
    samba.add("user", "info", &mailbox("info@contoso.test"));
    samba.add("user", "groupwise", "proxyAddresses: SMTP:gw@contoso.test\ntargetAddress: GWISE:dom.po.user");
    both.say(&[("info", Found(Kind::Mailbox)), ("gw", Found(Kind::MailUser))]).await;
    assert!(both.lookup.entry("info@contoso.test").await.starts_with("CN=info,"));
}

/// A domain without Exchange, whose mailboxes are in Exchange Online or at Google.
#[tokio::test(flavor = "multi_thread")]
async fn a_synced_domain_without_exchange() {
    let samba = SambaAd::start();
    let password = samba.reader_password_file();
    samba.add(
        "user",
        "ann",
        "mail: ann@contoso.test\nproxyAddresses: SMTP:ann@contoso.test\nproxyAddresses: smtp:a@contoso.test",
    );
    samba.add("user", "google", "mail: google@contoso.test");
    samba.add("user", "admin", "mail: ann@contoso.test");
    samba.add("user", "shared", "mail: shared@contoso.test\nuserAccountControl: 546");
    samba.add("group", "team", "mail: team@contoso.test");
    samba.add("contact", "partner", "mail: partner@contoso.test\nproxyAddresses: SMTP:partner@contoso.test");
    let profile = Profile::ActiveDirectorySynced;
    let both = BothModes::of(LdapConfig { profile, ..config(vec![samba.url()], &[""], &password) }).await;
    both.say(&[
        ("ann", Found(Kind::Mailbox)),
        ("a", Found(Kind::Mailbox)),
        ("google", Found(Kind::Mailbox)),
        ("shared", Found(Kind::Mailbox)),
        ("team", Found(Kind::Group)),
        ("partner", Found(Kind::NoMailbox)),
        ("nobody", NotFound),
    ])
    .await;
    assert!(both.lookup.entry("ann@contoso.test").await.starts_with("CN=ann,"), "proxyAddresses go before mail");
}
