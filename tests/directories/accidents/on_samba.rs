//! On Samba's Active Directory, which numbers its changes and is looked at every second; deletions show in whole reads.

use std::cell::Cell;
use std::process::Child;

use super::happen::{Lab, Login, Server, Whose, everybody};
use super::*;
use support::samba_ad::{BASE, DATABASE, READER, SambaAd};

struct SambaServer {
    samba: SambaAd,
    password: std::path::PathBuf,
    hidden: Cell<Option<&'static str>>,
}

impl SambaServer {
    /// With so many entries, and a probe elsewhere.
    fn with(u: usize) -> Self {
        let begun = Instant::now();
        let samba = SambaAd::start();
        let password = samba.reader_password_file();
        samba.modify(&format!("dn: OU=Staff,{BASE}\nchangetype: add\nobjectClass: organizationalUnit\n"));
        let mailbox = format!("mailNickname: probe\nhomeMDB: {DATABASE}\nproxyAddresses: SMTP:probe@contoso.test");
        samba.add("user", "probe", &mailbox);
        // With the probe there is one mailbox more than on the other server.
        samba.modify(&format!("dn: CN=postmaster,CN=Users,{BASE}\nchangetype: delete\n"));
        let server = Self { samba, password, hidden: Cell::default() };
        server.samba.load(&everybody(&server, u).collect::<String>());
        measured("Samba", begun, &format!("{} entries", ALL * u));
        server
    }
}

impl Server for SambaServer {
    const DELETIONS_SHOW: bool = false;

    fn dn(&self, number: usize) -> String {
        format!("CN=u{number},OU=Staff,{BASE}")
    }

    fn home(&self) -> &'static str {
        DATABASE
    }

    fn head(&self, number: usize, class: &str) -> String {
        let account = if class == "contact" { String::new() } else { format!("sAMAccountName: u{number}\n") };
        format!("dn: {}\nobjectClass: {class}\n{account}", self.dn(number))
    }

    fn login(&self) -> Login {
        Login { url: self.samba.url(), base: BASE, bind_dn: READER, password_file: self.password.clone() }
    }

    fn modify(&self, ldif: &str) {
        self.samba.modify(ldif);
    }

    fn writer(&self) -> Child {
        self.samba.writer()
    }

    fn hide(&self, attribute: &'static str, whose: Whose) {
        assert!(whose == Whose::Staffs, "`rights` has the other");
        self.samba.hide_in("OU=Staff,", attribute);
        self.hidden.set(Some(attribute));
    }

    fn show(&self) {
        if let Some(attribute) = self.hidden.take() {
            self.samba.show_in("OU=Staff,", attribute);
        }
    }
}

fn accidents(u: usize, a_second: usize) {
    let mut lab = Lab::new(SambaServer::with(u), u, "hold_changes = { at_least = 5 }");
    lab.deletions();
    lab.wiped_fast();
    lab.wiped_between_two_looks();
    lab.wiped_slowly(a_second);
    lab.moved();
    lab.created_for_the_other_side();
    lab.target_address_withdrawn();
    lab.proxy_addresses_withdrawn();
}

#[test]
fn of_a_thousand_entries() {
    accidents(1, 10);
}

#[test]
#[ignore = "six minutes: make accidents"]
fn of_five_thousand_entries() {
    accidents(5, 5);
}
