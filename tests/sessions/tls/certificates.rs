//! Which certificate the server shows, and that a renewed one is taken while it runs.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::tls::fixture::{SOON, TlsSystems, tls};
use support::senders::Raw;
use support::wait_until;
use time::{Duration, OffsetDateTime};

#[test]
fn the_name_that_a_client_asks_for_chooses_the_certificate() {
    let mut systems = TlsSystems::prepare();
    let contoso = systems.authority.issue(&["mx.contoso.test"]);
    let fabrikam = systems.authority.issue_as("fabrikam", &["*.fabrikam.test", "fabrikam.test"], |_| {});
    systems.start(&format!(
        "[[receive_connector]]\nname = \"internet\"\nbind = [\"{{smtp}}\"]\n{}\n\
         [[receive_connector]]\nname = \"fabrikam\"\nbind = [\"{{smtp}}\"]\nremote_networks = [\"127.0.0.9\"]\n{}\n",
        tls("opportunistic", &contoso, ""),
        tls("required", &fabrikam, "")
    ));
    let (one, two) = ("mx.contoso.test", "*.fabrikam.test, fabrikam.test");
    for (arguments, names) in [
        (&["-servername", "mx.contoso.test"][..], one),
        (&["-servername", "MX.fabrikam.test"], two),
        (&["-servername", "fabrikam.test"], two),
        (&["-servername", "a.mx.fabrikam.test"], one),
        (&["-servername", "elsewhere.example"], one),
        (&["-noservername"], one),
        (&["-noservername", "-bind", "127.0.0.9:0"], two),
        (&["-servername", "mx.contoso.test", "-bind", "127.0.0.9:0"], one),
        (&["-servername", "fabrikam.test", "-tls1_2"], two),
    ] {
        assert_eq!(shown(systems.node.smtp, arguments), names, "{arguments:?}");
    }
}

#[test]
fn a_certificate_out_of_time_is_told_and_shown_all_the_same() {
    for (from, until, why) in [(-10, -1, "expired at"), (1, 10, "is not valid before")] {
        let mut systems = TlsSystems::prepare();
        let issued = systems.authority.issue_as("mx.contoso.test", &["mx.contoso.test"], |params| {
            params.not_before = OffsetDateTime::now_utc() + Duration::days(from);
            params.not_after = OffsetDateTime::now_utc() + Duration::days(until);
        });
        let door = format!(
            "[[receive_connector]]\nname = \"internet\"\nbind = [\"{{smtp}}\"]\n{}\n",
            tls("required", &issued, "")
        );
        systems.start(&door);
        let told = || systems.node.log().lines().filter(|l| l.contains(why) && l.contains("alert=true")).count();
        wait_until("a word about it", SOON, || told() == 1);
        assert_eq!(shown(systems.node.smtp, &["-servername", "mx.contoso.test"]), "mx.contoso.test");
        let check = systems.node.run(&["check"]);
        let text = String::from_utf8_lossy(&check.stdout).into_owned();
        assert!(check.status.success() && text.contains("warning certificate of receive connector internet"), "{text}");
        assert!(text.contains(why), "{text}");
        let status = String::from_utf8_lossy(&systems.node.run(&["status"]).stdout).into_owned();
        let line = status.lines().find(|line| line.starts_with("warning: certificate of receive connector internet"));
        assert!(line.is_some_and(|line| line.contains(why)), "{status}");
        systems.node.run(&["reload"]);
        wait_until("another word", SOON, || told() == 2);
        // Renewed, nothing is told any more.
        systems.authority.issue(&["mx.contoso.test"]);
        systems.node.run(&["reload"]);
        assert_eq!(told(), 2);
        let status = String::from_utf8_lossy(&systems.node.run(&["status"]).stdout).into_owned();
        assert!(!status.contains("certificate of"), "{status}");
        let text = systems.node.run(&["check"]).stdout;
        assert!(!String::from_utf8_lossy(&text).contains("certificate of"), "{}", String::from_utf8_lossy(&text));
    }
}

#[test]
fn renewed_files_are_taken_without_a_restart_and_broken_ones_are_not() {
    let mut systems = TlsSystems::prepare();
    let issued = systems.authority.issue(&["mx.contoso.test"]);
    let door = format!(
        "[[receive_connector]]\nname = \"internet\"\nbind = [\"{{smtp}}\"]\n{}\n",
        tls("required", &issued, "")
    );
    systems.start(&door);
    let see = || shown(systems.node.smtp, &["-servername", "mx.contoso.test"]);
    assert_eq!(see(), "mx.contoso.test");
    let mut session = Raw::hello(systems.node.smtp);

    // Both files, as `certbot` and the like write them; nobody tells the server.
    systems.authority.issue_as("mx.contoso.test", &["mx.contoso.test", "renewed.test"], |_| {});
    wait_until("the renewed certificate", SOON, || see() == "mx.contoso.test, renewed.test");
    assert_eq!(session.say("NOOP").0, 250, "the session went with its certificate");

    // A key that does not fit.
    let other = systems.authority.issue(&["other.test"]);
    std::fs::copy(&other.key, &issued.key).unwrap();
    wait_until("a word about it", SOON, || systems.node.log().contains("the old certificates stay"));
    assert_eq!(see(), "mx.contoso.test, renewed.test");
    assert!(!systems.node.run(&["reload"]).status.success(), "a reload takes what does not fit");
    assert_eq!(see(), "mx.contoso.test, renewed.test");

    // On request it is read at once.
    std::fs::copy(&other.certificate, &issued.certificate).unwrap();
    assert!(systems.node.run(&["reload"]).status.success());
    assert_eq!(see(), "other.test");
    assert_eq!(session.say("NOOP").0, 250);
}

/// The names in the certificate that the server shows to `openssl s_client` with these arguments.
fn shown(server: SocketAddr, arguments: &[&str]) -> String {
    let mut client = Command::new("openssl");
    client.args(["s_client", "-connect", &server.to_string(), "-starttls", "smtp"]).args(arguments);
    let output = client.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let begin = text.find("-----BEGIN").unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)));
    let end = text.find("-----END CERTIFICATE-----").unwrap() + "-----END CERTIFICATE-----".len();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &text[begin..end]).unwrap();
    names(file.path())
}

/// The DNS names of a certificate.
fn names(file: &Path) -> String {
    let mut reader = Command::new("openssl");
    reader.args(["x509", "-noout", "-ext", "subjectAltName", "-in"]).arg(file);
    let text = String::from_utf8(reader.output().unwrap().stdout).unwrap();
    let line = text.lines().find(|line| line.contains("DNS:")).unwrap_or_default();
    line.trim().replace("DNS:", "")
}
