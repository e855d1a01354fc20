//! A real Postfix that refuses: what it has against us is nobody's bounce, and what it has against one recipient is
//! that recipient's answer.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use crate::cut_through::fixture::say;
use crate::next_hop_behaviour::fixture::{PostfixBehaviour, PostfixSetup};
use support::senders::Raw;
use support::test_network::SOON;
use support::within;

/// M4, M4b: it does not relay for one of two domains. For good (`reject_unauth_destination`), or for now, as is Postfix's
/// default.
#[test]
fn relaying_denied_for_one_domain_stops_that_domain_only() {
    for (denies, says) in [("reject", "554 5.7.1"), ("defer", "454 4.7.1")] {
        let denied = format!("smtpd_relay_restrictions = {denies}_unauth_destination");
        let setup =
            PostfixSetup::start_with(&PostfixBehaviour { domains: &["c.test", "d.test"], main_cf: &denied, lines: "" });
        let heard = setup.sends("waits", &["p0@d.test"]);
        assert!(heard.last().starts_with("250 2.0.0 queued"), "{denies}: {heard:?}");
        let words = format!("{says} <p0@d.test>: Relay access denied");
        setup.network.waits("p0@d.test", &words);
        // Strangers' random names below it are no outage either.
        for number in 0..20 {
            let heard = setup.sends("random", &[&format!("s{number}@d.test")]);
            assert!(heard.last().starts_with("451 4.4.1"), "{denies}: {heard:?}");
            if number % 5 == 0 {
                let id = format!("well-{number}");
                setup.sends(&id, &[&format!("p{number}@c.test"), &format!("s{number}@c.test")]).is_delivered();
            }
        }
        setup.is_up();
        assert_eq!(setup.network.alerts("row=\"relay-denied\""), 1, "{denies}: one an hour");
        assert_eq!(setup.network.alerts("Relay access denied"), 1, "{denies}: with its words");
        assert!(setup.network.senders.all().is_empty(), "{denies}: a bounce");

        setup.becomes("relay_domains = c.test d.test");
        setup.network.deliver();
        setup.has("p0@d.test", "waits");
        setup.nothing_is_left();
    }
}

/// M4: what it has against its client, which is us. The rows differ; what becomes of it does not.
const AGAINST_US: [(&str, &str); 7] = [
    ("smtpd_client_restrictions = check_client_access inline:{127.0.0.1=REJECT}", "postfix-client-rejected"),
    (
        "smtpd_client_restrictions = check_client_access static:{REJECT blocked using zen.spamhaus.org}",
        "postfix-client-rejected",
    ),
    ("smtpd_client_restrictions = permit_mynetworks, reject\nmynetworks = 192.0.2.0/24", "postfix-client-rejected"),
    // Refused before it greets.
    (
        "smtpd_delay_reject = no\nsmtpd_client_restrictions = check_client_access static:{REJECT}",
        "postfix-client-rejected",
    ),
    ("smtpd_helo_restrictions = check_helo_access static:{REJECT}", "postfix-helo-rejected"),
    // At MAIL.
    (
        "smtpd_delay_reject = no\nsmtpd_sender_restrictions = check_client_access static:{REJECT}",
        "postfix-client-rejected",
    ),
    ("smtpd_recipient_restrictions = check_client_access static:{DEFER}", "postfix-client-rejected"),
];

#[test]
fn what_it_has_against_us_is_nobodys_bounce() {
    std::thread::scope(|scope| {
        for part in AGAINST_US.chunks(AGAINST_US.len().div_ceil(2)) {
            scope.spawn(|| are_nobodys_bounce(part));
        }
    });
}

fn are_nobodys_bounce(cases: &[(&str, &str)]) {
    let setup = PostfixSetup::start("", "");
    for (number, (main_cf, row)) in cases.iter().enumerate() {
        setup.becomes(main_cf);
        let (resolved, unresolved) = (format!("p{number}@c.test"), format!("s{number}@c.test"));
        let id = format!("against-{number}");
        let heard = setup.sends(&id, &[&resolved]);
        assert!(heard.last().starts_with("250 2.0.0 queued"), "{main_cf}: {heard:?}");
        setup.network.waits(&resolved, "rejected");
        let heard = setup.sends("unresolved", &[&unresolved]);
        assert!(heard.last().starts_with("451 4.4.1"), "{main_cf}: {heard:?}");
        setup.network.node.logged(&[&format!("row=\"{row}\"")]);
        assert!(setup.network.senders.all().is_empty(), "{main_cf}: a bounce");

        setup.becomes("");
        setup.network.deliver();
        setup.has(&resolved, &id);
        assert!(within(SOON, || setup.sends(&format!("well-{number}"), &[&unresolved]).last().starts_with("250")));
    }
    setup.nothing_is_left();
}

/// The same about a client, whose address XCLIENT or a proxy would show there, is his: here by the address in the text.
#[test]
fn what_it_has_against_a_client_is_the_clients() {
    let main_cf = "smtpd_client_restrictions = check_client_access static:{REJECT listed is [127.0.0.77]}\n";
    let setup = PostfixSetup::start(main_cf, "");
    for (client, expected) in [(77, "554 5.7.1"), (78, "451 4.4.1")] {
        let mut raw = Raw::hello_from(Ipv4Addr::new(127, 0, 0, client), setup.door());
        say(&mut raw, "MAIL FROM:<ann@outside.test>", "250");
        say(&mut raw, "RCPT TO:<s0@c.test>", expected);
    }
}

/// M4: `permit_mynetworks, reject` says of recipients what it has against us: it refuses everybody. By 20 recipients that
/// exist it is clear, and their mail waits.
#[test]
fn a_postfix_that_refuses_all_recipients_is_an_outage() {
    let setup = PostfixSetup::start("", "");
    setup.sends("before", &["p0@c.test"]).is_delivered();
    setup.becomes("smtpd_relay_restrictions = permit_mynetworks, reject\nmynetworks = 192.0.2.0/24");
    for number in 0..25 {
        let heard = setup.sends(&format!("all-{number}"), &[&format!("p{number}@c.test")]);
        assert!(number < 20 || heard.last().starts_with("250 2.0.0 queued"), "{number}: {heard:?}");
    }
    assert!(setup.network.alerts("Recipient address rejected: Access denied") > 0, "nobody is told");
    setup.network.retry();
    setup.network.waits("p24@c.test", "Recipient address rejected: Access denied");
    setup.becomes("");
    setup.network.deliver();
    setup.has("p24@c.test", "all-24");
    setup.nothing_is_left();
}

/// M2: each of its tables has words of its own for a user that it does not have, and may keep them to itself.
#[test]
fn an_unlisted_recipient_is_unknown_in_whatever_table() {
    let tables = "mydestination = l.test\n\
                  local_recipient_maps = texthash:$virtual_mailbox_base/../etc/mailboxes\n\
                  virtual_mailbox_domains = v.test\n\
                  virtual_alias_domains = a.test\n\
                  virtual_alias_maps = inline:{ {s0@a.test = s0@v.test} }\n";
    let setup = PostfixSetup::start_with(&PostfixBehaviour {
        domains: &["c.test", "l.test", "v.test", "a.test"],
        main_cf: tables,
        lines: "",
    });
    let domains = [
        ("c.test", "relay recipient"),
        ("l.test", "local recipient"),
        ("v.test", "virtual mailbox"),
        ("a.test", "virtual alias"),
    ];
    for (show, round) in [("yes", 0), ("no", 1)] {
        setup.becomes(&format!("show_user_unknown_table_name = {show}"));
        for (domain, table) in domains {
            let words =
                if show == "yes" { format!("User unknown in {table} table") } else { "User unknown".to_owned() };
            let heard = setup.sends("unknown", &[&format!("x{round}@{domain}")]);
            assert!(
                heard.last().starts_with("550 5.1.1 secondary said: ") && heard.last().contains(&words),
                "{heard:?}"
            );
            setup.sends(&format!("well-{round}-{domain}"), &[&format!("s0@{domain}")]).is_delivered();
        }
    }
    setup.is_up();
    assert_eq!(setup.network.alerts("send_connector="), 0);
    setup.nothing_is_left();
}

/// A policy service that refuses whom it does not know yet, for now (Postfix's SMTPD_POLICY_README; postgrey's words).
fn greylisting() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let known = Arc::new(Mutex::new(HashSet::new()));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let known = known.clone();
            std::thread::spawn(move || answer(stream, &known));
        }
    });
    address
}

/// Answers requests until the other side is gone.
fn answer(mut stream: TcpStream, known: &Mutex<HashSet<String>>) -> Option<()> {
    let lines = BufReader::new(stream.try_clone().ok()?).lines();
    let mut recipient = String::new();
    for line in lines {
        let line = line.ok()?;
        match line.split_once('=') {
            Some(("recipient", address)) => recipient = address.to_owned(),
            Some(_) => {}
            None => {
                let is_new = known.lock().unwrap().insert(recipient.clone());
                let greylisted = "450 4.2.0 Greylisted, see http://postgrey.schweikert.ch/help/c.test.html";
                let action = if is_new { greylisted } else { "DUNNO" };
                stream.write_all(format!("action={action}\n\n").as_bytes()).ok()?;
            }
        }
    }
    None
}

/// A 4xx about a recipient is his alone, and his client's to try again.
#[test]
fn greylisting_is_passed_on_and_passes_the_second_time() {
    let setup =
        PostfixSetup::start(&format!("smtpd_recipient_restrictions = check_policy_service inet:{}", greylisting()), "");
    for first in ["p0@c.test", "s0@c.test"] {
        let heard = setup.sends("first", &[first]);
        assert!(heard.last().starts_with("450 4.2.0 ") && heard.last().contains("Greylisted, see"), "{heard:?}");
    }
    let heard = setup.sends("second", &["p0@c.test", "p1@c.test", "s0@c.test", "s1@c.test"]);
    assert_eq!(heard.codes(), [250, 450, 250, 450], "{heard:?}");
    assert!(heard.dot().starts_with("250 2.0.0 delivered"), "{heard:?}");
    setup.is_up();
    setup.sends("third", &["p1@c.test", "s1@c.test"]).is_delivered();
    setup.nothing_is_left();
    assert_eq!(setup.network.alerts("send_connector="), 0);
}
