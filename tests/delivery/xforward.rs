//! The next hop learns who the original client was: XFORWARD to a real Postfix, and to next hops that will not have it.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use fingerpost::config::{ClientAddress, SmtpOut};
use fingerpost::delivery::attempt::Outbound;
use fingerpost::metrics::Metrics;
use support::letter::{Letter, connector, in_words, smart_host, smtp_out};
use support::postfix::{Postfix, Setup};
use support::scripted_smtp_server::ScriptedSmtpServer;
use support::senders::Raw;
use support::tables::{BASE_TABLES, PEOPLE, accepted_domain, send_connector};
use support::test_node::TestNode;
use support::two_systems::{accepted, message};
use support::wait_until;

const SOON: Duration = Duration::from_secs(20);

/// A node that tells this Postfix about its clients, as far as `setting` says so.
fn start_node(postfix: SocketAddr, setting: &str) -> TestNode {
    let mut node = TestNode::prepare();
    node.write("people.csv", "address\nann@contoso.test\nbob@contoso.test\n");
    let door = "[[receive_connector]]\nname = \"internet\"\nbind = [\"{smtp}\"]\n";
    let domain = accepted_domain("contoso.test", "inside");
    let inside = send_connector("inside", postfix, setting);
    node.write("fingerpost.toml", &format!("{BASE_TABLES}{PEOPLE}{door}{domain}{inside}"));
    node.start();
    node
}

fn postfix(authorized: &str) -> Postfix {
    postfix_before(
        SocketAddr::from((Ipv4Addr::LOCALHOST, 9)),
        &format!("smtpd_authorized_xforward_hosts = {authorized}"),
    )
}

/// A Postfix that has ann@contoso.test and hands all others' mail on to this host.
fn postfix_before(next: SocketAddr, extra: &str) -> Postfix {
    Postfix::start(&Setup {
        name: "inside.test",
        ip: Ipv4Addr::new(127, 0, 0, 2),
        domains: &["contoso.test"],
        known: &["ann@contoso.test"],
        unknown_to: next,
        others_to: next,
        extra,
    })
}

#[test]
fn postfix_sees_the_original_client_of_each_message() {
    let postfix = postfix("127.0.0.0/8");
    let node = start_node(postfix.address(), "client_address = \"xforward\"");
    // Two clients, one after the other over the same connection to Postfix.
    for client in [Ipv4Addr::new(127, 0, 0, 77), Ipv4Addr::new(127, 0, 0, 78)] {
        let mut raw = Raw::hello_from(client, node.smtp);
        assert!(accepted(&mut raw, "ann@contoso.test", &message(&client.to_string(), 100)));
        wait_until("Postfix names the client", SOON, || {
            postfix.log().contains(&format!("client=localhost[127.0.0.1], orig_client=unknown[{client}]"))
        });
    }
    wait_until("both arrive", SOON, || postfix.mails().len() == 2);
    let mails = postfix.mails();
    let from = |client: &str| mails.iter().filter(|mail| mail.header().contains(client)).count();
    assert_eq!((from("[127.0.0.77]"), from("[127.0.0.78]")), (1, 1));
    // The first connection asked whether Postfix is up.
    assert_eq!(postfix.log().matches(": connect from").count(), 2, "{}", postfix.log());
    assert!(!node.log().contains("XFORWARD"), "{}", node.log());
}

/// It has understood what it can hand on by XFORWARD itself.
#[test]
fn postfix_hands_on_what_it_was_told() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let takes_all = "xforward => 250 2.0.0 ok\nehlo => 250-next.hop\\n250 XFORWARD NAME ADDR PORT PROTO HELO SOURCE";
    let hop = runtime.block_on(ScriptedSmtpServer::start(takes_all, None));
    let passes_on = "smtpd_authorized_xforward_hosts = 127.0.0.0/8\nsmtp_send_xforward_command = yes";
    let postfix = postfix_before(hop.address, passes_on);
    let node = start_node(postfix.address(), "client_address = \"xforward\"");
    for (number, hello, proto) in [(1, "EHLO", "ESMTP"), (2, "HELO", "SMTP")] {
        let mut raw = Raw::connect_from(Ipv4Addr::new(127, 0, 0, 77), node.smtp);
        assert_eq!((raw.reply().0, raw.say(&format!("{hello} sender.test")).0), (220, 250));
        assert!(accepted(&mut raw, "bob@contoso.test", &message(hello, 100)));
        let port = raw.into_stream().local_addr().unwrap().port();
        wait_until("Postfix hands it on", SOON, || hop.taken().len() == number);
        let said = hop.commands("XFORWARD").join(" ");
        for word in
            [format!("PORT={port}"), format!("PROTO={proto}"), "ADDR=127.0.0.77".into(), "HELO=sender.test".into()]
        {
            assert!(said.split(' ').any(|one| one == word), "{word} is not in {said}");
        }
    }
}

#[test]
fn nothing_is_said_where_it_is_not_wanted_or_not_offered() {
    for (authorized, setting) in [("127.0.0.0/8", ""), ("192.0.2.1", "client_address = \"xforward\"")] {
        let postfix = postfix(authorized);
        let node = start_node(postfix.address(), setting);
        let mut raw = Raw::hello_from(Ipv4Addr::new(127, 0, 0, 77), node.smtp);
        assert!(accepted(&mut raw, "ann@contoso.test", &message("plain", 100)));
        wait_until("it arrives", SOON, || postfix.mails().len() == 1);
        assert!(!postfix.log().contains("orig_client"), "{}", postfix.log());
    }
}

/// Sends two messages under a script; returns what became of them and what the next hop saw.
async fn sent(script: &str) -> (Vec<String>, ScriptedSmtpServer) {
    let hop = ScriptedSmtpServer::start(script, None).await;
    let smtp = SmtpOut { client_address: ClientAddress::Xforward, ..smtp_out(vec![smart_host(hop.address)]) };
    let (outbound, connector) = (Outbound::new(Metrics::new()), connector(smtp));
    let mut told = Vec::new();
    for _ in 0..2 {
        told.extend(in_words(&Letter::to(&["a@contoso.com"]).send(&outbound, &connector).await));
    }
    (told, hop)
}

const OFFERED: &str = "ehlo => 250-next.hop\\n250-PIPELINING\\n250 XFORWARD ADDR HELO SOURCE";

#[tokio::test]
async fn it_is_said_before_mail_of_each_message() {
    let (told, hop) = sent(&format!("xforward => 250 2.0.0 ok\n{OFFERED}")).await;
    assert_eq!(told, ["accepted 250 2.0.0 queued"; 2]);
    let seen = hop.seen();
    let verbs: Vec<&str> = seen[0].lines.iter().filter_map(|line| line.split([' ', ':']).next()).collect();
    assert_eq!(verbs, ["EHLO", "XFORWARD", "MAIL", "RCPT", "DATA", "XFORWARD", "MAIL", "RCPT", "DATA"]);
    let said = "XFORWARD ADDR=[UNAVAILABLE] HELO=[UNAVAILABLE] SOURCE=LOCAL";
    assert_eq!(hop.commands("XFORWARD"), [said; 2]);
}

#[tokio::test]
async fn mail_goes_on_where_it_is_refused() {
    for refusal in ["550 5.7.0 insufficient authorization", "501 5.5.4 bad"] {
        let (told, hop) = sent(&format!("xforward => {refusal}\n{OFFERED}")).await;
        assert_eq!(told, ["accepted 250 2.0.0 queued"; 2], "{refusal}");
        assert_eq!(hop.commands("XFORWARD").len(), 1, "{refusal}: not again over this connection");
        assert_eq!(hop.seen().len(), 1, "{refusal}");
    }
}

#[tokio::test]
async fn a_connection_that_ends_there_is_like_one_that_ends_at_mail() {
    for end in ["421 4.3.2 bye", "drop"] {
        let (told, hop) = sent(&format!("xforward => {end}\n{OFFERED}")).await;
        assert!(told.iter().all(|told| told.contains("at MAIL: the next hop closed")), "{end}: {told:?}");
        assert!(hop.contents().is_empty());
    }
}
