//! A snapshot of Samba's Active Directory, by its numbering of changes: another controller begins anew, what would turn too
//! many around is held, and numbers that may not be read are noticed. `journeys` has what is done to a user.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use fingerpost::config::{CacheConfig, HoldChanges, LdapConfig, LdapMode, Profile, SnapshotConfig};
use fingerpost::directory::Accept;
use fingerpost::lookup::Kind;
use fingerpost::smtp::address::Address;

use crate::asker::{Asker, LookupResult};
use LookupResult::{Found, NotFound};
use support::samba_ad::{BASE, DATABASE, READER, SambaAd};

const MAILBOX: Option<LookupResult> = Some(Found(Kind::Mailbox));
const NOBODY: Option<LookupResult> = Some(NotFound);
/// One interval, and a while for a machine that has much to do.
const SOON: Duration = Duration::from_secs(20);
const LATER: Duration = Duration::from_secs(30);

pub fn config(urls: Vec<String>, base: &[&str], password: &Path) -> LdapConfig {
    LdapConfig {
        urls,
        profile: Profile::ActiveDirectory,
        base: base.iter().map(|base| format!("{base}{BASE}")).collect(),
        bind_dn: READER.to_owned(),
        password_file: Some(password.to_owned()),
        start_tls: false,
        ca: None,
        certificate: None,
        timeout: Duration::from_secs(3),
        probe: Some(Address::parse("postmaster@contoso.test").unwrap()),
        cache: CacheConfig { found: Duration::ZERO, not_found: Duration::ZERO, entries: 0 },
        refuse_disabled: false,
        mode: LdapMode::Snapshot(SnapshotConfig {
            poll: Duration::from_secs(1),
            full_read: Duration::from_secs(3600),
            max_stale: Duration::from_secs(3600),
        }),
        hold_changes: HoldChanges { share_millionths: 20_000, at_least: 50, within: Duration::from_secs(3600) },
        mailbox_servers: HashMap::new(),
    }
}

pub fn mailbox(address: &str) -> String {
    format!("proxyAddresses: SMTP:{address}\nmsExchRecipientTypeDetails: 1\nhomeMDB: {DATABASE}")
}

async fn ready(config: &LdapConfig, folder: &Path) -> Asker {
    let asker = Asker::keeping(config, Some(folder));
    asker.remembers("postmaster@contoso.test", MAILBOX, LATER).await;
    asker.remembers("nobody@contoso.test", NOBODY, LATER).await;
    asker
}

#[tokio::test(flavor = "multi_thread")]
async fn another_controller_begins_with_a_whole_read() {
    let mut first = SambaAd::start();
    let password = first.reader_password_file();
    first.add("user", "ann", &mailbox("ann@contoso.test"));
    let second = first.copied();
    let folder = tempfile::tempdir().unwrap();
    let asker = ready(&config(vec![first.url(), second.url()], &[""], &password), folder.path()).await;
    assert_eq!(asker.in_memory("ann@contoso.test"), MAILBOX);

    // What only one of them knows shows which is followed.
    first.add("user", "only-first", &mailbox("only-first@contoso.test"));
    second.add("user", "only-second", &mailbox("only-second@contoso.test"));
    asker.remembers("only-first@contoso.test", MAILBOX, SOON).await;
    assert_eq!(asker.in_memory("only-second@contoso.test"), NOBODY);
    first.stop();
    asker.remembers("only-second@contoso.test", MAILBOX, LATER).await;
    asker.remembers("only-first@contoso.test", NOBODY, LATER).await;
    second.add("user", "later", &mailbox("later@contoso.test"));
    asker.remembers("later@contoso.test", MAILBOX, SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_ou_and_a_wiped_attribute_are_held() {
    let samba = SambaAd::start();
    let password = samba.reader_password_file();
    let mut ldif = format!("dn: OU=Staff,{BASE}\nchangetype: add\nobjectClass: organizationalUnit\n\n");
    for number in 0..120 {
        let person = mailbox(&format!("u{number}@contoso.test"));
        ldif.push_str(&format!(
            "dn: CN=u{number},OU=Staff,{BASE}\nchangetype: add\nobjectClass: user\nsAMAccountName: u{number}\n{person}\n\n"
        ));
    }
    samba.modify(&ldif);
    let folder = tempfile::tempdir().unwrap();
    let asker = ready(&config(vec![samba.url()], &[""], &password), folder.path()).await;
    let left = |asker: &Asker| (0..120).filter(|n| asker.in_memory(&format!("u{n}@contoso.test")) == MAILBOX).count();
    assert_eq!(left(&asker), 120);
    let all = |change: &str| {
        let change = |n: usize| format!("dn: CN=u{n},OU=Staff,{BASE}\nchangetype: {change}\n\n");
        samba.modify(&(0..120).map(change).collect::<String>());
    };

    // A script wipes what makes them mailboxes; at most `at_least` go through before the interval ends.
    all("modify\ndelete: homeMDB\n-\nreplace: msExchRecipientTypeDetails\nmsExchRecipientTypeDetails: 65536");
    samba.add("user", "new", &mailbox("new@contoso.test"));
    asker.remembers("new@contoso.test", MAILBOX, SOON).await;
    assert!(left(&asker) >= 70 && asker.held() > 0, "{} {:?}", left(&asker), asker.report());
    all(&format!(
        "modify\nadd: homeMDB\nhomeMDB: {DATABASE}\n-\nreplace: msExchRecipientTypeDetails\nmsExchRecipientTypeDetails: 1"
    ));
    let refreshed = asker.refresh(Accept::Yes).await.unwrap();
    assert_eq!((refreshed.held, left(&asker)), (0, 120));

    // Deleted by mistake: it shows at a whole read, and is held.
    all("delete");
    let refreshed = asker.refresh(Accept::No).await.unwrap();
    assert_eq!((refreshed.held, left(&asker)), (120, 120));
    let refreshed = asker.refresh(Accept::Yes).await.unwrap();
    assert_eq!((refreshed.turned, left(&asker)), (120, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_that_may_not_be_read_are_noticed() {
    // [MS-ADA3] 2.232: the schemaIDGUID of uSNChanged.
    const USN_CHANGED: &str = "bf967a6f-0de6-11d0-a285-00aa003049e2";
    let samba = SambaAd::start();
    let password = samba.reader_password_file();
    samba.hide(USN_CHANGED);
    let folder = tempfile::tempdir().unwrap();
    let asker = Asker::keeping(&config(vec![samba.url()], &["CN=Users,"], &password), Some(folder.path()));
    asker.remembers("postmaster@contoso.test", MAILBOX, LATER).await;
    // Nobody follows it: the directory itself is asked about whom memory does not have.
    samba.add("user", "ann", &mailbox("ann@contoso.test"));
    assert_eq!(asker.answer_any("ann@contoso.test").await, Found(Kind::Mailbox));
    assert_eq!(asker.in_memory("nobody@contoso.test"), None);
    assert_eq!(asker.answer_any("nobody@contoso.test").await, NotFound);
    // What was asked about is known from then on.
    asker.remembers("ann@contoso.test", MAILBOX, SOON).await;
}
