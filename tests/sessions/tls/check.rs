//! `fingerpost check --connect` shakes hands with next hops as a delivery does, and says what it would meet.

use std::net::Ipv4Addr;

use time::{Duration, OffsetDateTime};

use crate::tls::fixture::{SOON, TlsSystems};
use support::certificates::Issued;
use support::postfix::{Postfix, Setup};
use support::wait_until;

const HOP: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 6);

fn postfix(systems: &TlsSystems, extra: &str) -> Postfix {
    Postfix::start(&Setup {
        name: "hop.test",
        ip: HOP,
        domains: &[],
        known: &[],
        unknown_to: systems.outside.address(),
        others_to: systems.outside.address(),
        extra,
    })
}

/// Postfix's lines for a certificate of the fixture's authority that is good for so many days.
fn shows(systems: &TlsSystems, stem: &str, days: i64) -> String {
    let Issued { certificate, key } = systems.authority.issue_as(stem, &["hop.test", "127.0.0.6"], |params| {
        params.not_before = OffsetDateTime::now_utc() - Duration::days(100);
        params.not_after = OffsetDateTime::now_utc() + Duration::days(days);
    });
    let (certificate, key) = (certificate.display(), key.display());
    format!("smtpd_tls_security_level = may\nsmtpd_tls_cert_file = {certificate}\nsmtpd_tls_key_file = {key}\n")
}

/// Runs the check with a connector to the hop for each of these `tls` settings; what it says of each.
fn check(systems: &TlsSystems, hop: &Postfix, cases: &[(&str, String)]) -> String {
    let mut tables = String::from("[[receive_connector]]\nname = \"internet\"\nbind = [\"{smtp}\"]\n");
    for (name, tls) in cases {
        let port = hop.address().port();
        tables += &format!("[[send_connector]]\nname = \"{name}\"\nsmart_hosts = [\"[{HOP}]:{port}\"]\ntls = {tls}\n");
    }
    systems.write(&tables);
    let ran = systems.node.run(&["check", "--connect"]);
    let text = String::from_utf8(ran.stdout).unwrap();
    assert_eq!(ran.status.code(), Some(i32::from(text.contains("FAILED"))), "{text}");
    text
}

/// One finding must have these words, or the line with its cure.
fn says(text: &str, beginning: &str, words: &str) {
    let lines: Vec<&str> = text.lines().collect();
    let at = lines.iter().position(|line| line.starts_with(beginning));
    let at = at.unwrap_or_else(|| panic!("no {beginning:?} in\n{text}"));
    let cure = lines.get(at + 1).filter(|line| line.starts_with("        ")).unwrap_or(&"");
    assert!(lines[at].contains(words) || cure.contains(words), "{beginning:?} has no {words:?} in\n{text}");
}

fn verified(systems: &TlsSystems, more: &str) -> String {
    format!("{{ mode = \"required\", verify = true, ca = \"{}\"{more} }}", systems.authority.file().display())
}

#[test]
fn it_shakes_hands_as_each_connector_asks() {
    let systems = TlsSystems::prepare();
    let hop = postfix(&systems, &format!("{}smtpd_tls_protocols = >=TLSv1.2, <=TLSv1.2", shows(&systems, "hop", 200)));
    let cases = [
        ("clear", "{ mode = \"none\" }".to_owned()),
        ("easy", "{ mode = \"opportunistic\" }".to_owned()),
        ("required", "{ mode = \"required\" }".to_owned()),
        ("verified", verified(&systems, "")),
        ("wrongname", verified(&systems, ", server_name = \"other.test\"")),
        ("newest", "{ mode = \"required\", min_version = \"1.3\" }".to_owned()),
        ("fallback", "{ mode = \"opportunistic\", min_version = \"1.3\" }".to_owned()),
    ];
    let text = check(&systems, &hop, &cases);
    for (name, beginning, words) in [
        ("clear", "ok      ", "answers, in clear"),
        ("easy", "ok      ", "answers, by TLS, not verified"),
        ("required", "ok      ", "answers, by TLS, not verified"),
        ("verified", "ok      ", "answers, by TLS, verified"),
        ("wrongname", "FAILED  ", "not valid for name"),
        ("wrongname", "FAILED  ", "`server_name`"),
        ("newest", "FAILED  ", "the TLS handshake failed"),
        ("fallback", "warning ", "in clear, because STARTTLS fails"),
    ] {
        says(&text, &format!("{beginning}send connector {name}, next hop [{HOP}]"), words);
    }
    says(&text, "ok      certificate of send connector verified", "is good until 20");
    assert!(!text.contains("certificate of send connector clear"), "{text}");
    // One visit each, and one more where it fell back; Postfix counts the commands of a connection that ends.
    let visits = || hop.log().lines().filter(|line| line.contains("disconnect from")).map(str::to_owned).collect();
    let mut all: Vec<String> = Vec::new();
    wait_until("Postfix's log", SOON, || {
        all = visits();
        all.len() >= cases.len()
    });
    assert!(all.iter().all(|line| !line.contains("mail=")), "{all:?}");
    assert_eq!(all.iter().filter(|line| line.contains("quit=1")).count(), 5, "{all:?}");
}

#[test]
fn it_tells_when_a_certificate_ends() {
    let systems = TlsSystems::prepare();
    let cases = [("required", "{ mode = \"required\" }".to_owned()), ("verified", verified(&systems, ""))];
    let soon = postfix(&systems, &shows(&systems, "soon", 5));
    let text = check(&systems, &soon, &cases);
    says(&text, "ok      certificate of send connector required", "is good until");
    says(&text, "warning certificate of send connector verified", "nothing is sent there");
    drop(soon);
    let over = postfix(&systems, &shows(&systems, "over", -1));
    let text = check(&systems, &over, &cases);
    says(&text, "ok      send connector required", "not verified");
    says(&text, "warning certificate of send connector required", "expired at");
    says(&text, "FAILED  send connector verified", "expired");
}

#[test]
fn it_tells_what_is_not_offered() {
    let systems = TlsSystems::prepare();
    let hop = postfix(&systems, "smtpd_tls_security_level = none");
    let cases =
        [("easy", "{ mode = \"opportunistic\" }".to_owned()), ("required", "{ mode = \"required\" }".to_owned())];
    let text = check(&systems, &hop, &cases);
    says(&text, "ok      send connector easy", "answers, in clear");
    says(&text, "FAILED  send connector required", "it does not offer STARTTLS");
    says(&text, "FAILED  send connector required", "nothing is sent there");
}
