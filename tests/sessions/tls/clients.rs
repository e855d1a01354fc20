//! Client certificates that select a receive connector: who gets it, and who does not.

use std::net::Ipv4Addr;

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose};

use crate::tls::fixture::{SOON, TlsSystems, python, tls};
use support::certificates::{Authority, Issued};
use support::postfix::{Postfix, Setup};
use support::senders::{Letter, Raw};
use support::wait_until;

/// The internet's door, and the partner's for everybody who shows `mx.partner.test` or a host of `out.partner.test`.
fn doors(systems: &TlsSystems, mode: &str, more: &str) -> String {
    let issued = systems.authority.issue(&["mx.contoso.test"]);
    let ca = systems.authority.file();
    format!(
        "[[receive_connector]]\nname = \"internet\"\nbind = [\"{{smtp}}\"]\n{}\n\
         [[receive_connector]]\nname = \"partner\"\nbind = [\"{{smtp}}\"]\nrelay = \"anywhere\"\n{more}\n\
         max_message_size = \"1MiB\"\nclient_names = [\"mx.partner.test\", \"*.out.partner.test\"]\n{}\n",
        tls(mode, &issued, ""),
        tls(mode, &issued, &format!(", client_ca = \"{}\"", ca.display()))
    )
}

/// The size that EHLO offers, and the answers to two recipients elsewhere in two transactions of one session.
const ASK: &str = "if start == 'implicit': client = smtplib.SMTP_SSL(host, port, context=context)\n\
                   else:\n    client = smtplib.SMTP(host, port)\n    client.starttls(context=context)\n\
                   client.ehlo()\n\
                   print(client.esmtp_features['size'])\n\
                   for _ in range(2):\n    client.mail('a@b.test')\n    print(client.rcpt('x@outside.test')[0])\n    client.rset()\n\
                   client.quit()\n";

fn ask(systems: &TlsSystems, start: &str, certificate: Option<&Issued>) -> String {
    python(systems.node.smtp, certificate, &format!("start = '{start}'\n{ASK}")).replace('\n', " ").trim().to_owned()
}

const CHOSEN: &str = "1048576 250 250";
const STRANGER: &str = "36700160 550 550";

#[test]
fn only_a_certificate_that_is_believed_and_has_the_name_selects_the_connector() {
    let elsewhere = tempfile::tempdir().unwrap();
    let foreign = Authority::new(elsewhere.path());
    for start in ["starttls", "implicit"] {
        let mut systems = TlsSystems::prepare();
        let mode = if start == "implicit" { "implicit" } else { "required" };
        let doors = doors(&systems, mode, "");
        systems.start(&doors);
        let ours = &systems.authority;
        let usage = |usage: ExtendedKeyUsagePurpose| {
            move |p: &mut CertificateParams| p.extended_key_usages = vec![usage.clone()]
        };
        let common = |p: &mut CertificateParams| p.distinguished_name.push(DnType::CommonName, "mx.partner.test");
        let expired = |p: &mut CertificateParams| p.not_after = rcgen::date_time_ymd(2020, 1, 1);
        let future = |p: &mut CertificateParams| p.not_before = rcgen::date_time_ymd(2090, 1, 1);
        let both = |p: &mut CertificateParams| {
            common(p);
            p.subject_alt_names = vec![rcgen::SanType::DnsName("other.test".try_into().unwrap())];
        };
        let name = &["mx.partner.test"][..];
        for (what, certificate, expected) in [
            ("none", None, STRANGER),
            ("right", Some(ours.issue_as("right", name, |_| {})), CHOSEN),
            ("another case", Some(ours.issue_as("case", &["MX.Partner.Test"], |_| {})), CHOSEN),
            ("one of several", Some(ours.issue_as("several", &["a.test", "b.out.partner.test"], |_| {})), CHOSEN),
            ("a wildcard", Some(ours.issue_as("wildcard", &["*.partner.test"], |_| {})), CHOSEN),
            ("for clients", Some(ours.issue_as("c", name, usage(ExtendedKeyUsagePurpose::ClientAuth))), CHOSEN),
            ("for servers", Some(ours.issue_as("s", name, usage(ExtendedKeyUsagePurpose::ServerAuth))), CHOSEN),
            ("a common name", Some(ours.issue_as("cn", &[], common)), CHOSEN),
            ("a common name beside others", Some(ours.issue_as("both", &[], both)), STRANGER),
            ("for code", Some(ours.issue_as("x", name, usage(ExtendedKeyUsagePurpose::CodeSigning))), STRANGER),
            ("another name", Some(ours.issue_as("other", &["mx.other.test"], |_| {})), STRANGER),
            ("a label too many", Some(ours.issue_as("deep", &["a.b.out.partner.test"], |_| {})), STRANGER),
            ("expired", Some(ours.issue_as("expired", name, expired)), STRANGER),
            ("not yet valid", Some(ours.issue_as("future", name, future)), STRANGER),
            ("foreign", Some(foreign.issue_as("foreign", name, |_| {})), STRANGER),
        ] {
            assert_eq!(ask(&systems, start, certificate.as_ref()), expected, "{start}: {what}");
        }
        let chosen = || systems.node.log().matches("chosen by the client's certificate").count();
        wait_until("seven in the log", SOON, || chosen() == 7);
    }
}

#[test]
fn networks_narrow_from_where_a_certificate_counts() {
    let mut systems = TlsSystems::prepare();
    let doors = doors(&systems, "opportunistic", "remote_networks = [\"127.0.0.8/29\"]");
    systems.start(&doors);
    let right = systems.authority.issue(&["mx.partner.test"]);
    assert_eq!(ask(&systems, "starttls", Some(&right)), STRANGER);
    // From within the network, but without the certificate.
    let mut raw = Raw::hello_from(Ipv4Addr::new(127, 0, 0, 9), systems.node.smtp);
    raw.say("MAIL FROM:<a@b.test>");
    assert_eq!(raw.say("RCPT TO:<x@outside.test>").0, 550);
}

#[test]
fn postfix_is_known_by_its_certificate() {
    let mut systems = TlsSystems::prepare();
    let doors = doors(&systems, "opportunistic", "");
    let issued = systems.authority.issue(&["mx.partner.test"]);
    systems.start(&doors);
    let (certificate, key) = (issued.certificate.display(), issued.key.display());
    for (extra, arrives) in [
        (
            format!("smtp_tls_security_level = encrypt\nsmtp_tls_cert_file = {certificate}\nsmtp_tls_key_file = {key}"),
            true,
        ),
        ("smtp_tls_security_level = encrypt".to_owned(), false),
        ("smtp_tls_security_level = none".to_owned(), false),
    ] {
        let partner = Postfix::start(&Setup {
            name: "mx.partner.test",
            ip: Ipv4Addr::new(127, 0, 0, 5),
            domains: &[],
            known: &["sender@partner.test"],
            unknown_to: systems.node.smtp,
            others_to: systems.node.smtp,
            extra: &format!("{extra}\nsmtpd_relay_restrictions = permit_mynetworks, reject"),
        });
        let before = systems.outside.all().len();
        let letter = Letter {
            from: "sender@partner.test",
            to: &["x@outside.test"],
            bytes: b"From: sender@partner.test\r\nSubject: hello\r\n\r\nhello\r\n",
        };
        let (_, last) = Raw::hello(partner.address()).transact(&letter, "");
        assert_eq!(last.unwrap().0, 250);
        if arrives {
            wait_until("the partner's mail outside", SOON, || systems.outside.all().len() == before + 1);
        } else {
            wait_until("the partner's own bounce", SOON, || !partner.mails().is_empty());
            assert!(String::from_utf8_lossy(&partner.mails()[0].bytes).contains("5.7.1"), "{:?}", partner.mails());
            assert_eq!(systems.outside.all().len(), before);
        }
    }
    wait_until("the certificate in the trace", SOON, || {
        let trace = systems.node.run(&["trace", "--sender", "sender@partner.test"]);
        String::from_utf8_lossy(&trace.stdout).contains("octets, certificate mx.partner.test")
    });
}
