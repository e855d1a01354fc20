//! Faults of a directory, each in turn, while mail is being sent: what is not known waits at the sender, nothing goes
//! to the wrong organisation, and everything is right again by itself (DESIGN section 5, "doubt is temporary").

mod fixture;
mod load;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::proxy::{Mode, Proxy};
use fixture::{FaultTest, Remaining};
use load::KNOWN;
use support::samba_ad::{self, DATABASE, SambaAd};
use support::slapd::{self, BASE, Slapd};

/// The same faults, whichever way the directory is used.
macro_rules! in_both_modes {
    ($fault:ident) => {
        mod $fault {
            #[test]
            fn lookup() {
                super::$fault(super::LOOKUP);
            }

            #[test]
            fn snapshot() {
                super::$fault(super::SNAPSHOT);
            }
        }
    };
}

/// How many addresses share an entry: loading many entries takes longer.
const SHARED: usize = 50;

const EMPTY: &str = "ou=empty,dc=contoso,dc=com";

/// A slapd with the known people, and the probe, below `ou=people`.
fn openldap() -> Slapd {
    let slapd = Slapd::start();
    let mut ldif = format!("dn: ou=people,{BASE}\nobjectClass: organizationalUnit\nou: people\n\n");
    writeln!(ldif, "dn: {EMPTY}\nobjectClass: organizationalUnit\nou: empty\n").unwrap();
    let person = |ldif: &mut String, name: &str| {
        write!(
            ldif,
            "dn: uid={name},ou=people,{BASE}\nobjectClass: inetOrgPerson\nobjectClass: inetLocalMailRecipient\n\
             uid: {name}\ncn: {name}\nsn: {name}\n"
        )
        .unwrap();
    };
    person(&mut ldif, "probe");
    ldif.push_str("mail: probe@contoso.test\n\n");
    for first in (0..KNOWN).step_by(SHARED) {
        person(&mut ldif, &format!("known{first}"));
        for number in first..first + SHARED {
            writeln!(ldif, "mailLocalAddress: known{number}@contoso.test").unwrap();
        }
        ldif.push('\n');
    }
    slapd.add(&ldif);
    slapd
}

/// How a directory is used, as `mode` has it.
const LOOKUP: &str = "mode = \"lookup\"\n";
const SNAPSHOT: &str = "mode = \"snapshot\"\npoll = \"1s\"\n";

/// What is left of a directory that says nothing.
fn silent(mode: &str) -> Remaining {
    if mode == LOOKUP { Remaining::Cache } else { Remaining::Snapshot }
}

/// Its `[[directory]]`.
fn directory((profile, mode): (&str, &str), url: &str, base: &str, account: (&str, &Path)) -> String {
    let (bind_dn, password_file) = (account.0, account.1.display());
    format!(
        "[[directory]]\nname = \"people\"\nkind = \"ldap\"\nprofile = \"{profile}\"\nurls = [\"{url}\"]\n\
         base = [\"{base}\"]\nbind_dn = \"{bind_dn}\"\npassword_file = \"{password_file}\"\ntimeout = \"5s\"\n\
         probe = \"probe@contoso.test\"\ncache = {{ found = \"1h\", not_found = \"1h\" }}\n{mode}"
    )
}

fn on_slapd(mode: &str, slapd: &Slapd, url: &str) -> FaultTest {
    let base = format!("ou=people,{BASE}");
    FaultTest::start(&directory(("openldap", mode), url, &base, (slapd::READER, &slapd.password_file())))
}

in_both_modes!(a_server_that_is_gone);

fn a_server_that_is_gone(mode: &str) {
    let mut slapd = openldap();
    let test = on_slapd(mode, &slapd, &slapd.url());

    slapd.end();
    let fault = test.suffers("stopped", silent(mode));
    slapd.restart();
    test.recovers(&fault);

    slapd.stop();
    let fault = test.suffers("killed", silent(mode));
    slapd.restart();
    test.recovers(&fault);
    test.adds_up();
}

in_both_modes!(a_server_that_is_frozen);

fn a_server_that_is_frozen(mode: &str) {
    let slapd = openldap();
    let test = on_slapd(mode, &slapd, &slapd.url());
    slapd.freeze();
    let fault = test.suffers("frozen", silent(mode));
    slapd.thaw();
    test.recovers(&fault);
    test.adds_up();
}

in_both_modes!(a_server_that_answers_but_does_not_tell);

fn a_server_that_answers_but_does_not_tell(mode: &str) {
    let slapd = openldap();
    let test = on_slapd(mode, &slapd, &slapd.url());

    slapd.configure("olcAccess", "{0}to attrs=userPassword by anonymous auth by * none");
    let fault = test.suffers("read right revoked", silent(mode));
    slapd.configure("olcAccess", "{0}to * by * read");
    test.recovers(&fault);

    // Somebody moves the people, and an empty folder of the old name is left.
    let rename =
        |from: &str, to: &str| format!("dn: ou={from},{BASE}\nchangetype: modrdn\nnewrdn: ou={to}\ndeleteoldrdn: 1\n");
    slapd.modify(&rename("people", "moved"));
    slapd.modify(&rename("empty", "people"));
    let fault = test.suffers("emptied base", silent(mode));
    slapd.modify(&rename("people", "empty"));
    slapd.modify(&rename("moved", "people"));
    test.recovers(&fault);

    let child = format!("dn: dc=emea,ou=people,{BASE}");
    let refer = "objectClass: referral\nobjectClass: extensibleObject\ndc: emea\n\
                 ref: ldap://emea.contoso.com/dc=emea,dc=contoso,dc=com";
    slapd.modify(&format!("{child}\nchangetype: add\n{refer}\n"));
    let left = if mode == LOOKUP { Remaining::Found } else { Remaining::Snapshot };
    let fault = test.suffers("a reference to a child domain", left);
    slapd.modify_referrals(&format!("{child}\nchangetype: delete\n"));
    test.recovers(&fault);
    test.adds_up();
}

in_both_modes!(a_wrong_base_in_a_new_configuration);

fn a_wrong_base_in_a_new_configuration(mode: &str) {
    let slapd = openldap();
    let test = on_slapd(mode, &slapd, &slapd.url());
    let right = fs::read_to_string(test.systems.node.path("fingerpost.toml")).unwrap();
    let base = format!("ou=people,{BASE}");
    for (name, wrong) in [("an empty base", EMPTY), ("no such base", "dc=contoso,dc=net")] {
        assert!(right.contains(&base));
        test.load(&right.replace(&base, wrong));
        let left = if mode == LOOKUP { Remaining::Nothing } else { Remaining::Snapshot };
        let fault = test.suffers(name, left);
        test.load(&right);
        test.recovers(&fault);
    }
    test.adds_up();
}

in_both_modes!(answers_that_break_off_or_never_come);

fn answers_that_break_off_or_never_come(mode: &str) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let slapd = openldap();
    let proxy = runtime.block_on(Proxy::start(slapd.address()));
    let test = on_slapd(mode, &slapd, &proxy.url());
    for (name, fault) in [
        ("reset in mid-answer", Mode::CutInTheMiddle),
        ("no LDAP", Mode::Instead(b"HTTP/1.1 400 Bad Request\r\n\r\n")),
        ("an entry that is none", Mode::Instead(b"\x30\x05\x02\x01\x03\x64\x00")),
        ("swallowed answers", Mode::Swallow),
    ] {
        proxy.set(fault);
        let fault = test.suffers(name, silent(mode));
        proxy.set(Mode::Pass);
        test.recovers(&fault);
    }
    test.adds_up();
}

in_both_modes!(results_other_than_success);

fn results_other_than_success(mode: &str) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let slapd = openldap();
    let proxy = runtime.block_on(Proxy::start(slapd.address()));
    let test = on_slapd(mode, &slapd, &proxy.url());
    // RFC 4511 appendix A.
    for (name, code) in
        [("referral", 10), ("size limit exceeded", 4), ("busy", 51), ("unavailable", 52), ("no such object", 32)]
    {
        proxy.set(Mode::Code(code));
        let left = if code == 4 { Remaining::Limited { snapshot: mode == SNAPSHOT } } else { silent(mode) };
        let fault = test.suffers(name, left);
        proxy.set(Mode::Pass);
        test.recovers(&fault);
        let log = test.systems.node.log();
        assert!(log.contains(&format!("answered {code} (")), "{name}: the log does not say why");
    }
    test.adds_up();
}

in_both_modes!(a_bind_and_a_handshake_that_fail);

fn a_bind_and_a_handshake_that_fail(mode: &str) {
    let mut slapd = openldap();
    let test = on_slapd(mode, &slapd, &slapd.url());
    let password = slapd.password_file();
    let right = fs::read_to_string(&password).unwrap();
    fs::write(&password, "not this").unwrap();
    slapd.restart();
    let fault = test.suffers("bad bind", silent(mode));
    fs::write(&password, right).unwrap();
    test.recovers(&fault);

    let configured = fs::read_to_string(test.systems.node.path("fingerpost.toml")).unwrap();
    // Its certificate is for localhost.
    let by_number = slapd.tls_url().replace("localhost", "127.0.0.1");
    let ca = format!("tls = {{ ca = \"{}\" }}\nbase =", slapd.ca().display());
    test.load(&configured.replace(&slapd.url(), &by_number).replacen("base =", &ca, 1));
    let fault = test.suffers(
        "wrong name in the certificate",
        if mode == LOOKUP { Remaining::Nothing } else { Remaining::Snapshot },
    );
    test.load(&configured);
    test.recovers(&fault);
    let log = test.systems.node.log();
    for cause in ["answered 49 (", "certificate"] {
        assert!(log.contains(cause), "the log does not say {cause}");
    }
    test.adds_up();
}

in_both_modes!(an_active_directory_that_is_frozen_or_does_not_tell);

fn an_active_directory_that_is_frozen_or_does_not_tell(mode: &str) {
    let mut samba = SambaAd::start();
    let mut ldif = String::new();
    let person = |ldif: &mut String, name: &str| {
        write!(
            ldif,
            "dn: CN={name},CN=Users,{}\nchangetype: add\nobjectClass: user\nsAMAccountName: {name}\n\
             homeMDB: {DATABASE}\nmsExchRecipientTypeDetails: 1\n",
            samba_ad::BASE
        )
        .unwrap();
    };
    person(&mut ldif, "probe");
    ldif.push_str("proxyAddresses: SMTP:probe@contoso.test\n\n");
    for first in (0..KNOWN).step_by(SHARED) {
        person(&mut ldif, &format!("known{first}"));
        for number in first..first + SHARED {
            writeln!(ldif, "proxyAddresses: smtp:known{number}@contoso.test").unwrap();
        }
        ldif.push('\n');
    }
    samba.modify(&ldif);
    let password = samba.reader_password_file();
    let account = (samba_ad::READER, password.as_path());
    let test = FaultTest::start(&directory(("active-directory", mode), &samba.url(), samba_ad::BASE, account));

    let rights = samba.revoke_rights();
    let fault = test.suffers("Active Directory: read right revoked", silent(mode));
    samba.restore_rights(&rights);
    test.recovers(&fault);

    samba.freeze();
    let fault = test.suffers("Active Directory: frozen", silent(mode));
    samba.thaw();
    test.recovers(&fault);

    samba.stop();
    let fault = test.suffers("Active Directory: killed", silent(mode));
    samba.restart();
    test.recovers(&fault);
    test.adds_up();
}
