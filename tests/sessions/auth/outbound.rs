//! Us as the client: a Postfix that lets nobody relay but those whom Cyrus SASL knows.

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use crate::tls::fixture::{SOON, TlsSystems};
use support::postfix::{Postfix, Setup};
use support::senders::{Letter, Raw};
use support::wait_until;

const HOP: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 7);

/// Gives it a SASL password database with one account. Debian's Postfix looks for SASL's configuration beside its own.
fn give_accounts(hop: &Postfix) {
    hop.pause();
    let folder = hop.configuration().join("sasl");
    std::fs::create_dir(&folder).unwrap();
    let database = folder.join("sasldb2");
    let mut account = Command::new("saslpasswd2");
    account.args(["-p", "-c", "-u", "hop.test", "-f"]).arg(&database).arg("fingerpost").stdin(Stdio::piped());
    let mut child = account.spawn().expect("sasl2-bin is installed");
    child.stdin.take().unwrap().write_all(b"open sesame").unwrap();
    assert!(child.wait().unwrap().success());
    std::fs::set_permissions(&database, std::fs::Permissions::from_mode(0o644)).unwrap();
    let text = "pwcheck_method: auxprop\nauxprop_plugin: sasldb\nmech_list: PLAIN LOGIN\n";
    std::fs::write(folder.join("smtpd.conf"), format!("{text}sasldb_path: {}\n", database.display())).unwrap();
    hop.resume();
}

#[test]
fn postfix_lets_us_relay_by_password() {
    let mut systems = TlsSystems::prepare();
    let issued = systems.authority.issue_as("hop", &["hop.test", "127.0.0.7"], |_| {});
    let hop = Postfix::start(&Setup {
        name: "hop.test",
        ip: HOP,
        domains: &[],
        known: &["user@plain.test", "user@login.test", "user@wrong.test", "user@none.test"],
        unknown_to: systems.outside.address(),
        others_to: systems.outside.address(),
        extra: &format!(
            "smtpd_tls_security_level = encrypt\nsmtpd_tls_cert_file = {}\nsmtpd_tls_key_file = {}\n\
             smtpd_sasl_auth_enable = yes\nsmtpd_tls_auth_only = yes\nsmtpd_sasl_local_domain = hop.test\n\
             smtpd_relay_restrictions = permit_sasl_authenticated, reject_unauth_destination",
            issued.certificate.display(),
            issued.key.display()
        ),
    });
    give_accounts(&hop);
    systems.node.write("right", "open sesame\n");
    systems.node.write("wrong", "open barley\n");
    let mut tables = String::from("[[receive_connector]]\nname = \"internet\"\nbind = [\"{smtp}\"]\n");
    let mut people = String::from("address\n");
    for (name, mechanism, password) in [
        ("plain", "plain", "right"),
        ("login", "login", "right"),
        ("wrong", "plain", "wrong"),
        ("none", "none", "right"),
    ] {
        let (port, ca) = (hop.address().port(), systems.authority.file().display().to_string());
        tables += &format!(
            "[[accepted_domain]]\ndomain = \"{name}.test\"\ndeliver_to = \"{name}\"\n\
             [[send_connector]]\nname = \"{name}\"\nsmart_hosts = [\"[{HOP}]:{port}\"]\n\
             tls = {{ mode = \"required\", verify = true, ca = \"{ca}\" }}\n\
             auth = {{ mechanism = \"{mechanism}\", username = \"fingerpost\", password_file = \"{password}\" }}\n\
             retry = {{ first = \"1s\", factor = 1.0, max = \"1s\" }}\n"
        );
        people += &format!("user@{name}.test\n");
    }
    systems.write(&tables);
    systems.node.write("people.csv", &people);
    systems.node.start();
    let mut raw = Raw::hello(systems.node.smtp);
    let bytes = b"From: a@outside.test\r\nSubject: hello\r\n\r\nhello\r\n";
    for to in ["user@plain.test", "user@login.test", "user@wrong.test", "user@none.test"] {
        assert_eq!(raw.transact(&Letter { from: "a@outside.test", to: &[to], bytes }, "").1.unwrap().0, 250);
    }
    wait_until("the mail of those whom it knows", SOON, || {
        let mailboxes: Vec<String> = hop.mails().into_iter().map(|mail| mail.mailbox).collect();
        ["user@plain.test", "user@login.test"].iter().all(|known| mailboxes.contains(&(*known).to_owned()))
    });
    for (to, words) in [("user@wrong.test", "535 5.7.8"), ("user@none.test", "Relay access denied")] {
        let mut last = String::new();
        wait_until(&format!("{to} waiting with {words:?}"), SOON, || {
            let list = systems.node.run(&["queue", "list", "--format", "json"]);
            last = String::from_utf8_lossy(&list.stdout).into_owned();
            last.contains(to) && last.contains(words)
        });
    }
    assert_eq!(hop.mails().len(), 2);
    assert!(systems.outside.all().is_empty(), "somebody was told something");
    assert!(!systems.node.log().contains("sesame") && !hop.log().contains("sesame"));
    the_check_says_so(&systems);
    assert_eq!(hop.mails().len(), 2, "the check sends no mail");
}

/// What `fingerpost check --connect` says of the connectors.
fn the_check_says_so(systems: &TlsSystems) {
    let check = systems.node.run(&["check", "--connect"]);
    let text = String::from_utf8(check.stdout).unwrap();
    assert_eq!(check.status.code(), Some(1), "{text}");
    for (name, beginning, words) in [
        ("plain", "ok      ", "by TLS, verified; it knows us as fingerpost"),
        ("login", "ok      ", "by TLS, verified; it knows us as fingerpost"),
        ("wrong", "FAILED  ", "535 5.7.8"),
        ("none", "ok      ", "by TLS, verified"),
    ] {
        let beginning = format!("{beginning}send connector {name}, next hop");
        let line = text.lines().find(|line| line.starts_with(&beginning)).unwrap_or_else(|| panic!("{text}"));
        assert!(line.contains(words), "{line}");
    }
    assert!(text.contains("`auth` names the mechanism") && !text.contains("sesame"), "{text}");
}
