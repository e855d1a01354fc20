//! The profiles of vendors whose directories cannot be had here, on slapd with the attributes and classes of theirs that
//! count (`schemas/NAME.schema`): who is found as what, asked one by one and from a snapshot.

use std::sync::Arc;
use std::time::Duration;

use fingerpost::config::{CustomProfile, LdapConfig, LdapMode, Profile, SnapshotConfig};
use fingerpost::lookup::Kind;
use fingerpost::smtp::address::Address;

use crate::asker::{Asker, LookupResult, openldap};
use crate::lookup_output;
use LookupResult::{Ambiguous, Away, Found, NotFound};
use support::slapd::{BASE, Slapd};

const MAILBOX: LookupResult = Found(Kind::Mailbox);
const GROUP: LookupResult = Found(Kind::Group);
const NO_MAILBOX: LookupResult = Found(Kind::NoMailbox);

/// Adds somebody with these object classes and lines of LDIF.
fn add(slapd: &Slapd, uid: &str, classes: &[&str], lines: &str) {
    let classes: String = classes.iter().map(|class| format!("objectClass: {class}\n")).collect();
    slapd.add(&format!(
        "dn: uid={uid},{BASE}\nobjectClass: inetOrgPerson\n{classes}uid: {uid}\ncn: {uid}\nsn: {uid}\n{lines}\n"
    ));
}

fn away(target: &str) -> LookupResult {
    Away(Kind::MailUser, target.to_owned())
}

/// Asks for each address, with and without a snapshot.
async fn expect(slapd: &Slapd, profile: Profile, probe: &str, table: &[(&str, LookupResult)]) {
    let lookup = LdapConfig { profile, probe: Some(Address::parse(probe).unwrap()), ..openldap(slapd) };
    let asker = Asker::new(&lookup);
    for (address, expected) in table {
        assert_eq!(asker.ask(address).await, *expected, "{address}");
    }
    let patience = Duration::from_secs(3600);
    let mode =
        LdapMode::Snapshot(SnapshotConfig { poll: Duration::from_secs(1), full_read: patience, max_stale: patience });
    let asker = Asker::keeping(&LdapConfig { mode, ..lookup.clone() }, Some(slapd.folder()));
    asker.remembers(probe, Some(MAILBOX), Duration::from_secs(30)).await;
    for (address, expected) in table {
        // Where memory has two owners the directory is asked.
        let remembered = Some(expected.clone()).filter(|said| !matches!(said, Ambiguous(_)));
        asker.remembers(address, remembered, Duration::from_secs(30)).await;
    }
    lookup_output::is_shown(&lookup, table[0].0);
}

#[tokio::test]
async fn zimbra() {
    let slapd = Slapd::start_with(include_str!("schemas/zimbra.schema"));
    let account = |uid: &str, lines: &str| {
        let delivery = format!("zimbraMailDeliveryAddress: {uid}@contoso.com\nzimbraMailHost: mbx1.contoso.com");
        add(&slapd, uid, &["zimbraAccount"], &format!("mail: {uid}@contoso.com\n{delivery}\n{lines}"));
    };
    account("probe", "zimbraMailStatus: enabled\nzimbraAccountStatus: active");
    account("alice", "zimbraMailAlias: Ann.Lee@contoso.com\nzimbraMailStatus: enabled\nzimbraAccountStatus: active");
    account("gone", "zimbraMailStatus: disabled\nzimbraAccountStatus: closed");
    account("split", "zimbraMailStatus: enabled\nzimbraMailTransport: smtp:ex1.contoso.com:25");
    account("copies", "zimbraMailStatus: enabled\nzimbraMailForwardingAddress: alice@contoso.com");
    account("all", "zimbraMailStatus: enabled\nzimbraMailCatchAllAddress: @contoso.com");
    let list = "mail: team@contoso.com\nzimbraMailStatus: enabled\nzimbraMailForwardingAddress: alice@contoso.com";
    add(&slapd, "team", &["zimbraDistributionList"], list);
    add(&slapd, "room", &["zimbraCalendarResource"], "mail: room@contoso.com\nzimbraMailStatus: enabled");
    expect(
        &slapd,
        Profile::Zimbra,
        "probe@contoso.com",
        &[
            ("alice@contoso.com", MAILBOX),
            ("ann.lee@contoso.com", MAILBOX),
            ("gone@contoso.com", NO_MAILBOX),
            ("split@contoso.com", NO_MAILBOX),
            ("copies@contoso.com", MAILBOX),
            ("team@contoso.com", GROUP),
            ("room@contoso.com", MAILBOX),
            ("anybody@contoso.com", NotFound),
            ("*@contoso.com", NotFound),
        ],
    )
    .await;
}

#[tokio::test]
async fn domino() {
    let slapd = Slapd::start_with(include_str!("schemas/domino.schema"));
    let person = |uid: &str, lines: &str| add(&slapd, uid, &["dominoPerson"], lines);
    let home = "mailServer: CN=MAIL1,O=Contoso\nmailSystem: 1";
    person("probe", &format!("mail: probe@contoso.com\n{home}"));
    person("alee", &format!("mail: Ann.Lee@contoso.com\nuid: ann@contoso.com\n{home}"));
    person("away", "mail: away@contoso.com\nmailSystem: 5\nmailAddress: away@other.example");
    person("none", "mail: none@contoso.com\nmailSystem: 100");
    person("notes", &format!("internetAddress: notes@contoso.com\nmailAddress: Notes User/Contoso@Contoso\n{home}"));
    add(&slapd, "team", &["dominoGroup"], "mail: team@contoso.com\ngroupType: 1");
    add(&slapd, "left", &["dominoGroup"], "mail: left@contoso.com\ngroupType: 3");
    add(&slapd, "room", &["dominoServerMailInDatabase"], "mail: room@contoso.com\nmailServer: CN=MAIL1,O=Contoso");
    expect(
        &slapd,
        Profile::Domino,
        "probe@contoso.com",
        &[
            ("ann.lee@contoso.com", MAILBOX),
            ("ann@contoso.com", MAILBOX),
            ("ALee@contoso.com", MAILBOX),
            ("alee@contoso.net", NotFound),
            ("away@contoso.com", away("away@other.example")),
            ("none@contoso.com", NO_MAILBOX),
            ("notes@contoso.com", MAILBOX),
            ("team@contoso.com", GROUP),
            ("left@contoso.com", NO_MAILBOX),
            ("room@contoso.com", MAILBOX),
            ("*@contoso.com", NotFound),
        ],
    )
    .await;
}

#[tokio::test]
async fn open_directory() {
    let slapd = Slapd::start_with(include_str!("schemas/apple.schema"));
    let user = |uid: &str, lines: &str| add(&slapd, uid, &["apple-user"], lines);
    let settings = |state: &str, more: &str| {
        format!("apple-user-mailattribute: <dict><key>kMailAccountState</key><string>{state}</string>{more}</dict>")
    };
    user("probe", "mail: probe@contoso.com");
    user("alice", &format!("mail: Ann.Lee@contoso.com\nuid: alice@fabrikam.com\n{}", settings("Enabled", "")));
    user("off", &format!("mail: off@contoso.com\n{}", settings("Off", "")));
    let forward = settings("Forward", "<key>kAutoForwardValue</key><string>away@other.example</string>");
    user("away", &format!("mail: away@contoso.com\n{forward}"));
    user("nowhere", "authAuthority: ;ApplePasswordServer;0x4711");
    add(&slapd, "team", &["apple-group"], "mail: team@contoso.com");
    expect(
        &slapd,
        Profile::OpenDirectory,
        "probe@contoso.com",
        &[
            ("ann.lee@contoso.com", MAILBOX),
            ("alice@contoso.com", MAILBOX),
            ("alice@fabrikam.com", MAILBOX),
            ("off@contoso.com", NO_MAILBOX),
            ("away@contoso.com", away("away@other.example")),
            ("nowhere@contoso.com", NotFound),
            ("team@contoso.com", GROUP),
            ("*@contoso.com", NotFound),
        ],
    )
    .await;
}

#[tokio::test]
async fn kerio() {
    let slapd = Slapd::start_with(include_str!("schemas/kerio.schema"));
    let user = |uid: &str, lines: &str| add(&slapd, uid, &["kerio-Mail-User"], lines);
    user("probe", "kerio-Mail-Active: 1");
    user("alice", "kerio-Mail-Active: 1\nkerio-Mail-Address: ann.lee\nkerio-Mail-Address: Ann@contoso.com");
    user("off", "kerio-Mail-Active: 0");
    user("other", "mail: other@contoso.com");
    user("one", "kerio-Mail-Active: 1\nkerio-Mail-Address: twice");
    user("two", "kerio-Mail-Active: 1\nkerio-Mail-Address: TWICE");
    add(&slapd, "team", &["kerio-Mail-User", "apple-group"], "kerio-Mail-Address: all\nkerio-Mail-Active: 1");
    expect(
        &slapd,
        Profile::Kerio,
        "probe@contoso.com",
        &[
            ("alice@contoso.com", MAILBOX),
            ("ANN.Lee@contoso.com", MAILBOX),
            ("ann@contoso.com", MAILBOX),
            ("off@contoso.com", NO_MAILBOX),
            ("other@contoso.com", NotFound),
            ("twice@contoso.com", Ambiguous(2)),
            ("all@contoso.com", GROUP),
            ("team@contoso.com", NotFound),
            ("*@contoso.com", NotFound),
        ],
    )
    .await;
}

#[tokio::test]
async fn groupwise() {
    let slapd = Slapd::start_with(include_str!("schemas/groupwise.schema"));
    let user = |uid: &str, lines: &str| add(&slapd, uid, &["ndsLoginProperties"], lines);
    user("probe", "mail: probe@contoso.com");
    let post_office = format!("nGWPostOffice: cn=PO1,{BASE}\nnGWObjectID: alee");
    user("alee", &format!("mail: Ann.Lee@contoso.com\nmail: ann@contoso.com\n{post_office}"));
    user("gone", "mail: gone@contoso.com\nloginDisabled: TRUE");
    add(&slapd, "team", &["groupWiseDistributionList"], "mail: team@contoso.com");
    add(&slapd, "room", &["groupWiseResource"], "mail: room@contoso.com");
    add(&slapd, "other", &["groupWiseExternalEntity"], "mail: other@contoso.com");
    expect(
        &slapd,
        Profile::GroupWise,
        "probe@contoso.com",
        &[
            ("ann.lee@contoso.com", MAILBOX),
            ("ann@contoso.com", MAILBOX),
            ("alee@contoso.com", NotFound),
            ("gone@contoso.com", MAILBOX),
            ("team@contoso.com", GROUP),
            ("room@contoso.com", MAILBOX),
            ("other@contoso.com", NO_MAILBOX),
            ("*@contoso.com", NotFound),
        ],
    )
    .await;
}

fn own(filter: Option<&str>) -> Profile {
    Profile::Custom(Arc::new(CustomProfile {
        addresses: vec!["maillocaladdress".to_owned()],
        fallback: vec!["mail".to_owned()],
        target: Some("mailroutingaddress".to_owned()),
        login: vec!["uid".to_owned()],
        groups: vec!["groupofnames".to_owned()],
        filter: filter.map(str::to_owned),
        ..CustomProfile::default()
    }))
}

#[tokio::test]
async fn attributes_of_the_operators_own() {
    let slapd = Slapd::start();
    slapd.add_person("alice", "mailLocalAddress: alice@contoso.com\nmail: shared@contoso.com");
    slapd.add_person("bob", "mailLocalAddress: shared@contoso.com\nemployeeType: left");
    slapd.add_person("away", "mailLocalAddress: away@contoso.com\nmailRoutingAddress: away@other.example");
    let table = [
        ("alice@contoso.com", MAILBOX),
        ("away@contoso.com", away("away@other.example")),
        ("*@contoso.com", NotFound),
        ("\"alice)(uid=*\"@contoso.com", NotFound),
    ];
    expect(&slapd, own(None), "postmaster@contoso.com", &table).await;

    let config = LdapConfig { profile: own(Some("(!(employeeType=left))")), ..openldap(&slapd) };
    let LookupResult::Found(_) = Asker::new(&config).ask("alice@contoso.com").await else { panic!() };
    let owner = async |profile| {
        let config = LdapConfig { profile, ..openldap(&slapd) };
        Asker::new(&config).entry("shared@contoso.com").await
    };
    assert_eq!(owner(own(None)).await, format!("uid=bob,{BASE}"));
    assert_eq!(owner(own(Some("(!(employeeType=left))"))).await, format!("uid=alice,{BASE}"));
    let blind = LdapConfig { profile: own(Some("(employeeType=left)")), ..openldap(&slapd) };
    assert!(Asker::new(&blind).cause("alice@contoso.com").await.contains("probe"), "the filter hides the probe");
}
