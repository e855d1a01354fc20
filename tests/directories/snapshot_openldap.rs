//! A snapshot of slapd, by its stream of changes: it survives a restart, and what would turn too many users' mail around is
//! held. `journeys` has what is done to a user.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use fingerpost::config::{HoldChanges, LdapConfig, LdapMode, SnapshotConfig};
use fingerpost::directory::Accept;
use fingerpost::lookup::Kind;

use crate::asker::{Asker, LookupResult, openldap};
use crate::proxy::{Mode, Proxy};
use LookupResult::{Found, NotFound};
use support::slapd::{BASE, Slapd};

const MAILBOX: Option<LookupResult> = Some(Found(Kind::Mailbox));
const NOBODY: Option<LookupResult> = Some(NotFound);
/// A change is used within so long (a stream).
const SOON: Duration = Duration::from_secs(20);
/// Connecting, reading, and breaking off take longer.
const LATER: Duration = Duration::from_secs(30);

pub fn config(slapd: &Slapd) -> LdapConfig {
    LdapConfig {
        mode: LdapMode::Snapshot(SnapshotConfig {
            poll: Duration::from_secs(1),
            full_read: Duration::from_secs(3600),
            max_stale: Duration::from_secs(3600),
        }),
        hold_changes: HoldChanges { share_millionths: 20_000, at_least: 5, within: Duration::from_secs(3600) },
        timeout: Duration::from_secs(3),
        ..openldap(slapd)
    }
}

fn modify(slapd: &Slapd, dn: &str, change: &str) {
    slapd.modify(&format!("dn: {dn},{BASE}\nchangetype: {change}\n"));
}

async fn ready(slapd: &Slapd, folder: &Path) -> Asker {
    let asker = Asker::keeping(&config(slapd), Some(folder));
    asker.remembers("postmaster@contoso.com", MAILBOX, LATER).await;
    asker.remembers("nobody@contoso.com", NOBODY, LATER).await;
    asker
}

/// So many users below `ou=crowd`.
fn crowd(slapd: &Slapd, count: usize) {
    let mut ldif = format!("dn: ou=crowd,{BASE}\nobjectClass: organizationalUnit\nou: crowd\n\n");
    for number in 0..count {
        write!(
            ldif,
            "dn: uid=crowd{number},ou=crowd,{BASE}\nobjectClass: inetOrgPerson\n\
             objectClass: inetLocalMailRecipient\nuid: crowd{number}\ncn: {number}\nsn: {number}\n\
             mail: crowd{number}@contoso.com\n\n"
        )
        .unwrap();
    }
    slapd.add(&ldif);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_knows_the_recipients_though_the_directory_is_away() {
    let mut slapd = Slapd::start();
    let folder = tempfile::tempdir().unwrap();
    slapd.add_person("ann", "mail: ann@contoso.com");
    let asker = ready(&slapd, folder.path()).await;
    slapd.add_person("bob", "mail: bob@contoso.com");
    asker.remembers("bob@contoso.com", MAILBOX, SOON).await;
    drop(asker);
    slapd.stop();

    let asker = Asker::keeping(&config(&slapd), Some(folder.path()));
    for known in ["ann@contoso.com", "bob@contoso.com"] {
        assert_eq!(asker.in_memory(known), MAILBOX, "{known}");
    }
    assert_eq!(asker.in_memory("nobody@contoso.com"), None);
    assert_eq!(asker.answer_any("nobody@contoso.com").await, LookupResult::Unavailable);

    slapd.restart();
    modify(&slapd, "uid=ann", "delete");
    asker.remembers("ann@contoso.com", NOBODY, LATER).await;
    assert_eq!(asker.in_memory("bob@contoso.com"), MAILBOX);
}

/// While everything is told a question waits behind what was sent before, for longer than a server may take that is silent.
#[tokio::test]
async fn a_long_read_is_no_silence() {
    const COUNT: usize = 3_000;
    let slapd = Slapd::start();
    crowd(&slapd, COUNT);
    let proxy = Proxy::start(slapd.address()).await;
    proxy.set(Mode::Later(20));
    let folder = tempfile::tempdir().unwrap();
    let slow = LdapConfig { urls: vec![proxy.url()], ..config(&slapd) };
    let asker = Asker::keeping(&slow, Some(folder.path()));
    // An idle connection is tested every half minute.
    for part in 1..=4 {
        while asker.report().reading.is_some_and(|entries| entries < part * COUNT / 10) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(25)).await;
        tokio::time::resume();
    }
    assert!(asker.report().reading.is_some(), "it is still being read: {:?}", asker.report());
    asker.remembers(&format!("crowd{}@contoso.com", COUNT - 1), MAILBOX, LATER).await;
    assert_eq!((proxy.connections(), asker.report().problem), (1, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_turns_too_many_around_is_held_until_it_is_accepted_or_put_right() {
    let slapd = Slapd::start();
    let folder = tempfile::tempdir().unwrap();
    crowd(&slapd, 20);
    let asker = ready(&slapd, folder.path()).await;
    let crowd_is =
        |expected: Option<LookupResult>| (0..20).all(|n| asker.in_memory(&format!("crowd{n}@contoso.com")) == expected);

    // One by one, an attribute: once there are more than five nobody stays turned.
    let route = |n: usize| format!("modify\nadd: mailRoutingAddress\nmailRoutingAddress: crowd{n}@fabrikam.com");
    for number in 0..20 {
        modify(&slapd, &format!("uid=crowd{number},ou=crowd"), &route(number));
    }
    slapd.add_person("eve", "mail: eve@contoso.com");
    asker.remembers("eve@contoso.com", MAILBOX, SOON).await;
    let turned = (0..20).filter(|n| asker.in_memory(&format!("crowd{n}@contoso.com")) != MAILBOX).count();
    assert_eq!((turned, asker.held()), (0, 20));
    assert_eq!(asker.metrics.directory_changes_held.with_label_values(&["ad"]).get(), asker.held() as i64);

    // Put right, nothing is held.
    for number in 0..20 {
        modify(&slapd, &format!("uid=crowd{number},ou=crowd"), "modify\ndelete: mailRoutingAddress");
    }
    // An acceptance is of what has come.
    slapd.add_person("dan", "mail: dan@contoso.com");
    asker.remembers("dan@contoso.com", MAILBOX, SOON).await;
    let all = asker.refresh(Accept::Yes).await.unwrap();
    assert_eq!(all.held, 0);
    assert!(crowd_is(MAILBOX));

    // All at once, deleted: held, over a restart as well; then accepted.
    let delete: String = (0..20).map(|n| format!("dn: uid=crowd{n},ou=crowd,{BASE}\nchangetype: delete\n\n")).collect();
    slapd.modify(&delete);
    slapd.add_person("fay", "mail: fay@contoso.com");
    asker.remembers("fay@contoso.com", MAILBOX, SOON).await;
    assert!(asker.held() > 0);
    let left = |asker: &Asker| (0..20).filter(|n| asker.in_memory(&format!("crowd{n}@contoso.com")) == MAILBOX).count();
    assert_eq!((left(&asker), asker.held()), (20, 20));
    drop(asker);
    let asker = ready(&slapd, folder.path()).await;
    assert_eq!(left(&asker), 20);
    assert!(asker.held() > 0, "{:?}", asker.report());
    let refreshed = asker.refresh(Accept::No).await.unwrap();
    assert!(refreshed.held > 0);
    let refreshed = asker.refresh(Accept::Yes).await.unwrap();
    assert_eq!((refreshed.held, left(&asker)), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_rights_and_a_wrong_base_turn_nothing_around() {
    let slapd = Slapd::start();
    let folder = tempfile::tempdir().unwrap();
    crowd(&slapd, 20);
    let asker = ready(&slapd, folder.path()).await;
    slapd.configure("olcAccess", "{0}to attrs=userPassword by anonymous auth by * none");
    asker.remembers("nobody@contoso.com", None, LATER).await;
    assert_eq!(asker.in_memory("crowd7@contoso.com"), MAILBOX);
    assert_eq!(asker.answer_any("nobody@contoso.com").await, LookupResult::Unavailable);
    assert!(asker.report().problem.is_some());
    slapd.configure("olcAccess", "{0}to * by * read");
    asker.remembers("nobody@contoso.com", NOBODY, LATER).await;
    drop(asker);

    // A base with the probe and without the crowd.
    slapd.add(&format!(
        "dn: ou=small,{BASE}\nobjectClass: organizationalUnit\nou: small\n\n\
         dn: uid=other,ou=small,{BASE}\nobjectClass: inetOrgPerson\nuid: other\ncn: o\nsn: o\nmail: other@contoso.com\n"
    ));
    for (base, probe) in
        [("ou=small", "other@contoso.com"), ("ou=none", "other@contoso.com"), ("ou=small", "x@contoso.com")]
    {
        let wrong = LdapConfig {
            base: vec![format!("{base},{BASE}")],
            probe: Some(fingerpost::smtp::address::Address::parse(probe).unwrap()),
            ..config(&slapd)
        };
        let asker = Asker::keeping(&wrong, Some(folder.path()));
        let start = tokio::time::Instant::now();
        while asker.held() == 0 && asker.report().problem.is_none() {
            assert!(start.elapsed() < LATER, "{base} {probe}: {:?}", asker.report());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(asker.in_memory("crowd7@contoso.com"), MAILBOX, "{base} {probe}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_moves_from_one_base_to_another_stays() {
    let slapd = Slapd::start();
    for ou in ["one", "other"] {
        slapd.add(&format!("dn: ou={ou},{BASE}\nobjectClass: organizationalUnit\nou: {ou}\n"));
    }
    let person = |uid: &str| {
        format!(
            "dn: uid={uid},ou=one,{BASE}\nobjectClass: inetOrgPerson\nuid: {uid}\ncn: {uid}\nsn: {uid}\n\
             mail: {uid}@contoso.com\n\n"
        )
    };
    slapd.add(&["postmaster", "ann", "marker"].map(person).concat());
    let folder = tempfile::tempdir().unwrap();
    let base = ["one", "other"].map(|ou| format!("ou={ou},{BASE}")).to_vec();
    let asker = Asker::keeping(&LdapConfig { base, ..config(&slapd) }, Some(folder.path()));
    asker.remembers("nobody@contoso.com", NOBODY, LATER).await;
    let move_ann = |from: &str, to: &str| {
        modify(
            &slapd,
            &format!("uid=ann,ou={from}"),
            &format!("modrdn\nnewrdn: uid=ann\ndeleteoldrdn: 1\nnewsuperior: ou={to},{BASE}"),
        );
    };
    for number in 0..20 {
        let (from, to) = if number % 2 == 0 { ("one", "other") } else { ("other", "one") };
        move_ann(from, to);
        // What comes behind it in both streams says that it is in.
        for ou in ["one", "other"] {
            let marker = format!("marker{number}{ou}");
            slapd.add(&person(&marker).replace("ou=one", &format!("ou={ou}")));
            asker.remembers(&format!("{marker}@contoso.com"), MAILBOX, SOON).await;
        }
        assert_eq!(asker.in_memory("ann@contoso.com"), MAILBOX, "move {number}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_stream_everything_is_read_at_its_time_and_not_for_each_connection() {
    use std::os::unix::fs::MetadataExt as _;
    let mut slapd = Slapd::start();
    slapd.stop_streaming();
    let folder = tempfile::tempdir().unwrap();
    let asker = Asker::keeping(&config(&slapd), Some(folder.path()));
    asker.remembers("postmaster@contoso.com", MAILBOX, LATER).await;
    assert_eq!(asker.in_memory("nobody@contoso.com"), None, "nobody follows it");
    let file = || std::fs::metadata(folder.path().join("ad.snapshot")).unwrap().ino();
    let first = file();
    for _ in 0..2 {
        slapd.stop();
        slapd.restart();
        asker.until(&NotFound, LATER).await;
        // Whoever wants it to be read at once is told what came of it.
        slapd.add_person("ann", "mail: ann@contoso.com");
        assert_eq!(asker.answer_any("ann@contoso.com").await, Found(Kind::Mailbox));
        asker.remembers("ann@contoso.com", MAILBOX, SOON).await;
        assert_eq!(file(), first);
        modify(&slapd, "uid=ann", "delete");
        assert_eq!(asker.ask_unknown().await, NotFound);
    }
    let refreshed = asker.refresh(Accept::No).await.unwrap();
    assert_eq!((refreshed.recipients, refreshed.turned), (1, 1));
    assert_ne!(file(), first);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_stream_does_not_tell_is_read_anew_once_the_directory_was_asked() {
    let slapd = Slapd::start();
    for ou in ["ou=one", "ou=other", "ou=team,ou=one"] {
        let name = ou.split([',', '=']).nth(1).unwrap();
        slapd.add(&format!("dn: {ou},{BASE}\nobjectClass: organizationalUnit\nou: {name}\n"));
    }
    let person = |uid: &str, ou: &str| {
        slapd.add(&format!(
            "dn: uid={uid},{ou},{BASE}\nobjectClass: inetOrgPerson\nuid: {uid}\ncn: {uid}\nsn: {uid}\n\
             mail: {uid}@contoso.com\n"
        ));
    };
    person("postmaster", "ou=one");
    person("ann", "ou=team,ou=one");
    let folder = tempfile::tempdir().unwrap();
    let config = LdapConfig { base: vec![format!("ou=one,{BASE}")], ..config(&slapd) };
    let asker = Asker::keeping(&config, Some(folder.path()));
    asker.remembers("nobody@contoso.com", NOBODY, LATER).await;
    // slapd tells that the unit has gone, and nothing of those in it.
    let moved = format!("modrdn\nnewrdn: ou=team\ndeleteoldrdn: 1\nnewsuperior: ou=other,{BASE}");
    modify(&slapd, "ou=team,ou=one", &moved);
    person("bob", "ou=one");
    asker.remembers("bob@contoso.com", MAILBOX, SOON).await;
    assert_eq!(asker.in_memory("ann@contoso.com"), MAILBOX);
    assert_eq!(asker.ask("ann@contoso.com").await, NotFound);
    asker.remembers("ann@contoso.com", NOBODY, LATER).await;
}
