//! TLS towards a real Postfix: what has to fit, and that mail waits where it does not.

use std::net::Ipv4Addr;
use std::process::Command;

use crate::tls::fixture::{SOON, TlsSystems};
use support::certificates::{Authority, Issued};
use support::daemon::run;
use support::postfix::{Postfix, Setup};
use support::senders::{Letter, Raw};
use support::wait_until;

const HOP: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 6);

/// A Postfix that keeps mail for `user@` each of these domains.
fn postfix(systems: &TlsSystems, domains: &[&str], extra: &str) -> Postfix {
    let known: Vec<String> = domains.iter().map(|domain| format!("user@{domain}")).collect();
    Postfix::start(&Setup {
        name: "hop.test",
        ip: HOP,
        domains,
        known: &known.iter().map(String::as_str).collect::<Vec<_>>(),
        unknown_to: systems.outside.address(),
        others_to: systems.outside.address(),
        extra,
    })
}

/// The lines that give Postfix this certificate.
fn with_tls(issued: &Issued) -> String {
    let (certificate, key) = (issued.certificate.display(), issued.key.display());
    format!("smtpd_tls_security_level = may\nsmtpd_tls_cert_file = {certificate}\nsmtpd_tls_key_file = {key}\n")
}

/// A domain and a connector for each case, all to the same host; one message to each is sent.
fn send_to_all(systems: &mut TlsSystems, hop: &Postfix, cases: &[(&str, String)]) {
    let mut tables = String::from("[[receive_connector]]\nname = \"internet\"\nbind = [\"{smtp}\"]\n");
    let mut people = String::from("address\n");
    for (domain, settings) in cases {
        let (name, port) = (domain.trim_end_matches(".test"), hop.address().port());
        tables += &format!("[[accepted_domain]]\ndomain = \"{domain}\"\ndeliver_to = \"{name}\"\n");
        tables += &format!("[[send_connector]]\nname = \"{name}\"\nsmart_hosts = [\"[{HOP}]:{port}\"]\n{settings}\n");
        tables += "retry = { first = \"1s\", factor = 1.0, max = \"1s\" }\n";
        people += &format!("user@{domain}\n");
    }
    systems.write(&tables);
    systems.node.write("people.csv", &people);
    systems.node.start();
    let mut raw = Raw::hello(systems.node.smtp);
    for (domain, _) in cases {
        let letter = Letter {
            from: "a@outside.test",
            to: &[&format!("user@{domain}")],
            bytes: b"From: a@outside.test\r\nSubject: hello\r\n\r\nhello\r\n",
        };
        assert_eq!(raw.transact(&letter, "").1.unwrap().0, 250, "{domain}");
    }
}

/// Waits until exactly these domains' mail is at the hop and the others wait with these words in the queue.
fn end_up(systems: &TlsSystems, hop: &Postfix, expected: &[(&str, Option<&str>)]) {
    let listed = || {
        let list = systems.node.run(&["queue", "list", "--format", "json"]);
        let list: serde_json::Value = serde_json::from_slice(&list.stdout).unwrap();
        let messages = list["messages"].as_array().unwrap().clone();
        messages.iter().flat_map(|message| message["recipients"].as_array().unwrap().clone()).collect::<Vec<_>>()
    };
    for (domain, waits) in expected {
        let address = format!("user@{domain}");
        match waits {
            None => wait_until(&format!("{address}'s mail"), SOON, || {
                hop.mails().iter().any(|mail| mail.mailbox == address)
            }),
            Some(words) => {
                let mut last = String::new();
                wait_until(&format!("{address} waiting with {words:?}"), SOON, || {
                    let queue = listed();
                    let queued = queue.iter().find(|queued| queued["address"] == address);
                    last = queued.map(ToString::to_string).unwrap_or_default();
                    last.contains(words) && queued.is_some_and(|queued| queued["attempts"].as_u64() > Some(1))
                });
                assert!(hop.mails().iter().all(|mail| mail.mailbox != address), "{address} went on in clear");
            }
        }
    }
    assert!(systems.outside.all().is_empty(), "somebody was told something");
}

#[test]
fn without_starttls_required_mail_waits_and_never_goes_in_clear() {
    let mut systems = TlsSystems::prepare();
    let domains = ["clear.test", "encrypted.test", "verified.test"];
    let hop = postfix(&systems, &domains, "smtpd_tls_security_level = none");
    let required = "tls = { mode = \"required\" }".to_owned();
    let verified = "tls = { mode = \"required\", verify = true }".to_owned();
    send_to_all(&mut systems, &hop, &[(domains[0], String::new()), (domains[1], required), (domains[2], verified)]);
    end_up(&systems, &hop, &[(domains[0], None), (domains[1], Some("4.7.4")), (domains[2], Some("4.7.4"))]);
}

#[test]
fn authority_and_name_must_fit_where_they_are_verified() {
    let mut systems = TlsSystems::prepare();
    let elsewhere = tempfile::tempdir().unwrap();
    let foreign = Authority::new(elsewhere.path());
    let issued = systems.authority.issue_as("hop", &["hop.test", "127.0.0.6"], |_| {});
    let (ours, theirs) = (systems.authority.file(), foreign.file());
    let verify = |more: &str, ca: &std::path::Path| {
        format!("tls = {{ mode = \"required\", verify = true, ca = \"{}\"{more} }}", ca.display())
    };
    let cases = [
        ("anybody.test", "tls = { mode = \"required\" }".to_owned(), None),
        ("address.test", verify("", &ours), None),
        ("name.test", verify(", server_name = \"hop.test\"", &ours), None),
        ("newest.test", verify(", min_version = \"1.3\"", &ours), Some("4.7.5")),
        ("wrongname.test", verify(", server_name = \"other.test\"", &ours), Some("4.7.5")),
        ("wrongca.test", verify("", &theirs), Some("4.7.5")),
        ("system.test", "tls = { mode = \"required\", verify = true }".to_owned(), Some("4.7.5")),
    ];
    let domains = cases.each_ref().map(|(domain, _, _)| *domain);
    // No TLS 1.3, as on a server of yesterday.
    let old = format!("{}smtpd_tls_protocols = >=TLSv1.2, <=TLSv1.2", with_tls(&issued));
    let hop = postfix(&systems, &domains, &old);
    send_to_all(&mut systems, &hop, &cases.each_ref().map(|(domain, settings, _)| (*domain, settings.clone())));
    end_up(&systems, &hop, &cases.each_ref().map(|(domain, _, waits)| (*domain, *waits)));
}

#[test]
fn a_postfix_that_demands_certificates_takes_ours() {
    let mut systems = TlsSystems::prepare();
    let elsewhere = tempfile::tempdir().unwrap();
    let foreign = Authority::new(elsewhere.path()).issue_as("foreign", &["mx.contoso.test"], |_| {});
    let issued = systems.authority.issue_as("hop", &["hop.test"], |_| {});
    let known = systems.authority.issue_as("known", &["mx.contoso.test"], |_| {});
    let unknown = systems.authority.issue_as("unknown", &["mx.contoso.test"], |_| {});
    let show = |issued: &Issued| {
        let (certificate, key) = (issued.certificate.display(), issued.key.display());
        format!("tls = {{ mode = \"required\", certificate = \"{certificate}\", key = \"{key}\" }}")
    };
    let cases = [
        ("known.test", show(&known), None),
        // A certificate of the right authority that the list of those who may relay does not have.
        ("unknown.test", show(&unknown), Some("Relay access denied")),
        ("foreign.test", show(&foreign), Some("4.7.")),
        ("nobody.test", "tls = { mode = \"required\" }".to_owned(), Some("4.7.")),
    ];
    let domains = cases.each_ref().map(|(domain, _, _)| *domain);
    let list = systems.node.path("relay_clientcerts");
    std::fs::write(&list, format!("{} fingerpost\n", fingerprint(&known))).unwrap();
    let extra = format!(
        "{}smtpd_tls_CAfile = {}\nsmtpd_tls_req_ccert = yes\nsmtpd_tls_security_level = encrypt\n\
         smtpd_tls_fingerprint_digest = sha256\nrelay_clientcerts = texthash:{}\n\
         relay_domains =\nsmtpd_relay_restrictions = permit_tls_clientcerts, reject_unauth_destination\n",
        with_tls(&issued),
        systems.authority.file().display(),
        list.display()
    );
    let hop = postfix(&systems, &domains, &extra);
    std::fs::set_permissions(systems.node.folder(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    send_to_all(&mut systems, &hop, &cases.each_ref().map(|(domain, settings, _)| (*domain, settings.clone())));
    end_up(&systems, &hop, &cases.each_ref().map(|(domain, _, waits)| (*domain, *waits)));
}

/// As Postfix writes it.
fn fingerprint(issued: &Issued) -> String {
    let mut openssl = Command::new("openssl");
    let printed = run(openssl.args(["x509", "-noout", "-fingerprint", "-sha256", "-in"]).arg(&issued.certificate));
    printed.trim().rsplit_once('=').unwrap().1.to_owned()
}
