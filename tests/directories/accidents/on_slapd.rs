//! On `slapd`, which streams every change.

use std::process::Child;

use super::happen::{Lab, Login, Server, Whose, everybody, mailbox};
use super::*;
use support::slapd::{BASE, READER, Slapd};

const HOME: &str = "cn=DB1,cn=Servers,dc=contoso,dc=com";

struct SlapdServer {
    slapd: Slapd,
}

impl SlapdServer {
    /// With these entries and a probe elsewhere.
    fn with(ldif: impl FnOnce(&Self) -> String) -> Self {
        let begun = Instant::now();
        let mut server = Self { slapd: Slapd::start_with(include_str!("../schemas/exchange.schema")) };
        server.slapd.add(&format!(
            "dn: cn=probe,{BASE}\nobjectClass: user\nobjectClass: mailRecipient\ncn: probe\nsn: p\nmailNickname: probe\n\
             homeMDB: {HOME}\nproxyAddresses: SMTP:probe@contoso.test\n"
        ));
        let ldif = format!("dn: ou=staff,{BASE}\nobjectClass: organizationalUnit\nou: staff\n\n{}", ldif(&server));
        server.slapd.load(&ldif, "proxyAddresses,mail,legacyExchangeDN");
        measured("slapd", begun, &format!("{} entries", ldif.matches("dn: ").count() - 1));
        server
    }
}

impl Server for SlapdServer {
    const DELETIONS_SHOW: bool = true;

    fn dn(&self, number: usize) -> String {
        format!("cn=u{number},ou=staff,{BASE}")
    }

    fn home(&self) -> &'static str {
        HOME
    }

    fn head(&self, number: usize, class: &str) -> String {
        let name = if class == "user" { "sn: u\n" } else { "" };
        let dn = self.dn(number);
        format!("dn: {dn}\nobjectClass: {class}\nobjectClass: mailRecipient\ncn: u{number}\n{name}")
    }

    fn login(&self) -> Login {
        Login { url: self.slapd.url(), base: BASE, bind_dn: READER, password_file: self.slapd.password_file() }
    }

    fn modify(&self, ldif: &str) {
        self.slapd.modify(ldif);
    }

    fn writer(&self) -> Child {
        self.slapd.writer()
    }

    fn hide(&self, attribute: &'static str, whose: Whose) {
        let below = if whose == Whose::Staffs { format!("dn.subtree=\"ou=staff,{BASE}\" ") } else { String::new() };
        self.allow(&format!("to {below}attrs={attribute} by * none"));
    }

    fn show(&self) {
        self.allow("to attrs=entry by * read");
    }
}

impl SlapdServer {
    fn allow(&self, first: &str) {
        let rest = "to attrs=userPassword by anonymous auth\nolcAccess: {2}to * by * read";
        self.slapd.configure("olcAccess", &format!("{{0}}{first}\nolcAccess: {{1}}{rest}"));
    }
}

/// 2 % of 2,000 too; of 100,000 that is what is so without it.
const LIMIT: &str = "hold_changes = { at_least = 5 }";

fn accidents(u: usize, a_second: usize) {
    let server = SlapdServer::with(|server| everybody(server, u).collect());
    let mut lab = Lab::new(server, u, LIMIT);
    lab.deletions();
    lab.wiped_fast();
    lab.wiped_between_two_looks();
    lab.wiped_slowly(a_second);
    lab.moved();
    lab.created_for_the_other_side();
    lab.target_address_withdrawn();
    lab.proxy_addresses_withdrawn();
    lab.proxy_addresses_withdrawn_everywhere();
}

#[test]
fn of_two_thousand_entries() {
    accidents(2, 20);
}

#[test]
#[ignore = "half an hour: make accidents"]
fn of_a_hundred_thousand_entries() {
    accidents(100, 5);
}

/// A small firm.
#[test]
fn of_68_entries_45_are_wiped() {
    let begun = Instant::now();
    let server = SlapdServer::with(|server| (0..67).map(|number| mailbox(server, number)).collect());
    let followed = FollowedDirectory::start("ad", &server.directory(""));
    assert_eq!(followed.kind("mailbox"), 68);
    let (watch, all) = (Watch::mailboxes(&followed), 68);
    let wipe = |number| format!("dn: {}\nchangetype: modify\ndelete: homeMDB\n\n", server.dn(number));
    server.modify(&(0..45).map(wipe).collect::<String>());
    followed.wait_for_held(45);
    let at_most = all - watch.least();
    assert!(at_most <= 6, "{at_most}");
    followed.all_go(0..67, HERE);
    followed.names(0..45, []);
    measured("45 of 68", begun, &format!("up to {at_most} in force before the limit, 0 afterwards, 45 listed"));
    followed.accept_only(0..22);
    assert_eq!(followed.held(), 23);
    assert_eq!(followed.ways(&addresses(0..22)), counted([("451 4.4.3", 44)]));
    followed.all_go(22..67, HERE);
}

/// In a directory of 2,000 the 300 are too many alone.
#[test]
fn three_hundred_mailboxes_for_people_of_the_other_side() {
    let begun = Instant::now();
    let server = SlapdServer::with(|server| (0..2_000).map(|number| mailbox(server, number)).collect());
    let followed = FollowedDirectory::start("ad", &server.directory(""));
    let new = 20_000..20_300;
    followed.mail_for(&new.clone().map(|number| addresses_of(number)[0].clone()).collect::<Vec<_>>());
    server.slapd.add(&new.clone().map(|number| mailbox(&server, number)).collect::<String>());
    followed.wait_for_held(300);
    assert_eq!(followed.ways(&addresses(new.clone())), counted([(RELAYED, 300), (HERE, 300)]));
    followed.names(new, []);
    measured("300 of 2,000", begun, "0 used once the limit of 50 is passed, 300 listed");
    followed.accept_only(20_000..20_150);
    followed.all_go(20_000..20_150, HERE);
    assert_eq!(
        (followed.ways(&addresses(20_150..20_300)), followed.held()),
        (counted([(RELAYED, 150), (HERE, 150)]), 150)
    );
    // Others that are new are used at once.
    server.slapd.add(&mailbox(&server, 30_000));
    wait_until("he is used", LATER, || followed.ways(&addresses([30_000])) == counted([(HERE, 2)]));
}
