//! What is done to a user is followed within the promised time, in both modes; and the same once the directory was restarted,
//! once we were while it was away, and on a second server after a failover.

use std::path::Path;
use std::time::Duration;

use fingerpost::config::{CacheConfig, HoldChanges, LdapConfig, LdapMode};
use fingerpost::directory::Accept;
use fingerpost::lookup::Kind;

use crate::asker::{Asker, LookupResult};
use crate::{snapshot_active_directory, snapshot_openldap};
use LookupResult::{Away, Found, NotFound};
use support::samba_ad::{self, SambaAd};
use support::slapd::{self, Slapd};

/// A stream of changes, one interval of a numbering, an answer in the cache: a second each, and a while for a machine that has
/// much to do.
const SOON: Duration = Duration::from_secs(20);
const LATER: Duration = Duration::from_secs(30);

/// How a directory is used.
#[derive(Clone, Copy)]
enum DirectoryMode {
    /// `mode = "snapshot"`.
    InMemory,
    /// `mode = "lookup"`.
    Asked,
}

/// A directory under test.
trait Server {
    /// The domain of its users.
    const DOMAIN: &'static str;
    /// Creates a user, renames it, and so on to its end; each is followed in time.
    async fn live(&self, asker: &Asker, name: &str);
    fn stop(&mut self);
    fn restart(&mut self);
}

/// All of it. Only the first server runs at the beginning.
async fn journeys<S: Server>(config: &LdapConfig, mut first: S, mut second: S) {
    let folder = tempfile::tempdir().unwrap();
    let asker = begin::<S>(config, folder.path()).await;
    first.live(&asker, "ann").await;

    first.stop();
    until_it_is_missed::<S>(&asker).await;
    first.restart();
    until_it_is_back::<S>(&asker).await;
    first.live(&asker, "bea").await;

    first.stop();
    until_it_is_missed::<S>(&asker).await;
    drop(asker);
    let asker = Asker::keeping(config, Some(folder.path()));
    until_it_is_missed::<S>(&asker).await;
    let known = if config.is_snapshot() { Found(Kind::Mailbox) } else { LookupResult::Unavailable };
    assert_eq!(asker.answer_any(&format!("postmaster@{}", S::DOMAIN)).await, known);
    first.restart();
    until_it_is_back::<S>(&asker).await;
    first.live(&asker, "cid").await;

    second.restart();
    first.stop();
    until_it_is_back::<S>(&asker).await;
    second.live(&asker, "dot").await;
}

async fn begin<S: Server>(config: &LdapConfig, folder: &Path) -> Asker {
    let asker = Asker::keeping(config, Some(folder));
    until_it_is_back::<S>(&asker).await;
    asker
}

async fn until_it_is_back<S: Server>(asker: &Asker) {
    asker.shows(&format!("postmaster@{}", S::DOMAIN), Found(Kind::Mailbox), LATER).await;
    asker.shows(&format!("nobody@{}", S::DOMAIN), NotFound, LATER).await;
}

/// Nobody is told that there is no such user.
async fn until_it_is_missed<S: Server>(asker: &Asker) {
    asker.until(&LookupResult::Unavailable, LATER).await;
    assert_eq!(asker.answer_any(&format!("nobody@{}", S::DOMAIN)).await, LookupResult::Unavailable);
}

impl Server for Slapd {
    const DOMAIN: &'static str = "contoso.com";

    async fn live(&self, asker: &Asker, name: &str) {
        let base = slapd::BASE;
        let modify = |dn: &str, change: &str| self.modify(&format!("dn: {dn},{base}\nchangetype: {change}\n"));
        let (other, old) = (format!("ou=other-{name}"), format!("{name}@contoso.com"));
        let (renamed, new) = (format!("uid={name}2"), format!("{name}2@contoso.com"));
        self.add(&format!("dn: {other},{base}\nobjectClass: organizationalUnit\nou: other-{name}\n"));
        let shows = async |address: &str, said: LookupResult| asker.shows(address, said, SOON).await;

        self.add_person(name, &format!("mail: {old}"));
        shows(&old, Found(Kind::Mailbox)).await;
        modify(&format!("uid={name}"), &format!("modrdn\nnewrdn: {renamed}\ndeleteoldrdn: 1"));
        modify(&renamed, &format!("modify\nreplace: mail\nmail: {new}"));
        shows(&new, Found(Kind::Mailbox)).await;
        shows(&old, NotFound).await;
        modify(&renamed, "modify\nadd: mailRoutingAddress\nmailRoutingAddress: new@fabrikam.com");
        shows(&new, Away(Kind::MailUser, "new@fabrikam.com".to_owned())).await;
        modify(&renamed, "modify\ndelete: mailRoutingAddress");
        shows(&new, Found(Kind::Mailbox)).await;
        modify(&renamed, &format!("modrdn\nnewrdn: {renamed}\ndeleteoldrdn: 1\nnewsuperior: {other},{base}"));
        // What comes behind it says that it is in.
        self.add_person(&format!("{name}-marker"), &format!("mail: {name}-marker@contoso.com"));
        shows(&format!("{name}-marker@contoso.com"), Found(Kind::Mailbox)).await;
        shows(&new, Found(Kind::Mailbox)).await;
        modify(&format!("{renamed},{other}"), "delete");
        shows(&new, NotFound).await;
        self.add_person(&format!("{name}2"), &format!("mail: {new}"));
        shows(&new, Found(Kind::Mailbox)).await;
    }

    fn stop(&mut self) {
        self.stop();
    }

    fn restart(&mut self) {
        self.restart();
    }
}

impl Server for SambaAd {
    const DOMAIN: &'static str = "contoso.test";

    async fn live(&self, asker: &Asker, name: &str) {
        let base = samba_ad::BASE;
        let modify = |dn: &str, change: &str| self.modify(&format!("dn: {dn},{base}\nchangetype: {change}\n"));
        let (old, new) = (format!("{name}@contoso.test"), format!("{name}2@contoso.test"));
        let (renamed, here) = (format!("CN={name}2"), format!("CN={name}2,CN=Users"));
        let shows = async |address: &str, said: LookupResult| asker.shows(address, said, SOON).await;
        let mailbox = snapshot_active_directory::mailbox;

        self.add("user", name, &mailbox(&old));
        // An account without a password is disabled.
        modify(&format!("CN={name},CN=Users"), &control(512));
        shows(&old, Found(Kind::Mailbox)).await;
        modify(&format!("CN={name},CN=Users"), &format!("modrdn\nnewrdn: {renamed}\ndeleteoldrdn: 1"));
        modify(&here, &format!("modify\nreplace: proxyAddresses\nproxyAddresses: SMTP:{new}"));
        shows(&new, Found(Kind::Mailbox)).await;
        shows(&old, NotFound).await;
        let kind =
            |kind: u64| format!("modify\nreplace: msExchRecipientTypeDetails\nmsExchRecipientTypeDetails: {kind}\n-\n");
        modify(&here, &format!("{}add: targetAddress\ntargetAddress: SMTP:new@fabrikam.test", kind(1 << 31)));
        shows(&new, Away(Kind::MailUser, "new@fabrikam.test".to_owned())).await;
        modify(&here, &format!("{}delete: targetAddress", kind(1)));
        shows(&new, Found(Kind::Mailbox)).await;
        modify(&here, &control(514));
        shows(&new, Found(Kind::NoMailbox)).await;
        modify(&here, &control(512));
        shows(&new, Found(Kind::Mailbox)).await;
        self.move_to(&renamed, "CN=Users", "OU=Staff");
        // It loses all its addresses, and gets them again.
        let staff = format!("{renamed},OU=Staff");
        modify(&staff, "modify\ndelete: proxyAddresses");
        shows(&new, NotFound).await;
        modify(&staff, &format!("modify\nadd: proxyAddresses\nproxyAddresses: SMTP:{new}"));
        shows(&new, Found(Kind::Mailbox)).await;

        // Out of the bases: at the next whole read, where there are any.
        self.move_to(&renamed, "OU=Staff", "OU=Elsewhere");
        if asker.is_snapshot() {
            asker.refresh(Accept::No).await.unwrap();
        }
        shows(&new, NotFound).await;
        self.move_to(&renamed, "OU=Elsewhere", "CN=Users");
        shows(&new, Found(Kind::Mailbox)).await;
        // Deleted: as soon as the directory itself is asked, as it is when a next hop refuses the recipient.
        modify(&here, "delete");
        if asker.is_snapshot() {
            assert_eq!(asker.ask(&new).await, NotFound);
        }
        shows(&new, NotFound).await;
        self.add("user", &format!("{name}2"), &mailbox(&new));
        modify(&here, &control(512));
        shows(&new, Found(Kind::Mailbox)).await;
        let clock = asker.examine().await.clock.unwrap();
        assert!(clock.abs() <= 2, "one machine has one clock: {clock}");
    }

    fn stop(&mut self) {
        self.stop();
    }

    fn restart(&mut self) {
        self.restart();
    }
}

/// 512: an account in use; 514: the same, disabled (MS-ADTS 2.2.16).
fn control(flags: u32) -> String {
    format!("modify\nreplace: userAccountControl\nuserAccountControl: {flags}")
}

async fn of_openldap(way: DirectoryMode) {
    let (first, mut second) = (Slapd::start(), Slapd::start());
    second.stop();
    let config = LdapConfig { urls: vec![first.url(), second.url()], ..snapshot_openldap::config(&first) };
    journeys(&in_mode(config, way), first, second).await;
}

async fn of_active_directory(way: DirectoryMode) {
    let mut first = SambaAd::start();
    let password = first.reader_password_file();
    for ou in ["OU=Staff", "OU=Elsewhere"] {
        first.modify(&format!("dn: {ou},{}\nchangetype: add\nobjectClass: organizationalUnit\n", samba_ad::BASE));
    }
    first.modify(&format!("dn: CN=postmaster,CN=Users,{}\nchangetype: {}\n", samba_ad::BASE, control(512)));
    let mut second = first.copied();
    second.stop();
    let urls = vec![first.url(), second.url()];
    let config = snapshot_active_directory::config(urls, &["CN=Users,", "OU=Staff,"], &password);
    journeys(&in_mode(LdapConfig { refuse_disabled: true, ..config }, way), first, second).await;
}

fn in_mode(config: LdapConfig, way: DirectoryMode) -> LdapConfig {
    let second = Duration::from_secs(1);
    let config = LdapConfig {
        cache: CacheConfig { found: second, not_found: second, entries: 100 },
        // So few recipients change so much here that it would be held.
        hold_changes: HoldChanges { share_millionths: 1_000_000, ..config.hold_changes },
        ..config
    };
    match way {
        DirectoryMode::InMemory => config,
        DirectoryMode::Asked => LdapConfig { mode: LdapMode::Lookup, ..config },
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_openldap_in_memory() {
    of_openldap(DirectoryMode::InMemory).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_openldap_that_is_asked() {
    of_openldap(DirectoryMode::Asked).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_active_directory_in_memory() {
    of_active_directory(DirectoryMode::InMemory).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_active_directory_that_is_asked() {
    of_active_directory(DirectoryMode::Asked).await;
}
