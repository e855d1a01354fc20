//! Complete reports, compared as text.

use super::*;
use crate::smtp::path::mailbox;
use crate::smtp::reply::{Enhanced, USER_UNKNOWN};

static UNKNOWN: Reply = USER_UNKNOWN;

fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

fn recipient<'a>(address: &'a Address, action: Action, reply: &'a Reply) -> Recipient<'a> {
    let speaker = Speaker::NextHop { organization: "secondary", host: "" };
    Recipient { address, orcpt: None, action, reply, speaker, retry_until: UnixTime(1_795_408_740) }
}

/// A report with the properties that the tests share, as text.
fn report(to: &Address, returned: Returned<'_>, recipients: &[Recipient<'_>]) -> String {
    let bytes = write(&Report {
        message_id: "R.1@mx.contoso.com",
        boundary: "=_R.1",
        now: UnixTime(1_795_235_940),
        reporting_mta: &Domain::parse("mx.contoso.com").unwrap(),
        from: &address("postmaster@contoso.com"),
        to,
        about: About {
            id: "0000000000007",
            arrived: UnixTime(1_795_235_880),
            envid: Some("QQ+2B314"),
            message_id: "<42@example.net>",
            returned,
        },
        recipients,
    });
    String::from_utf8(bytes).unwrap()
}

/// Replaces CRLF by `
/// `, and checks that no line ends otherwise.
fn lines(text: &str) -> String {
    let without = text.replace("\r\n", "\u{1}");
    assert!(!without.contains(['\r', '\n']), "a bare CR or LF in {text:?}");
    without.replace('\u{1}', "\n")
}

#[test]
fn a_failure_names_who_refused_and_gives_the_header_back() {
    let to = address("alice@example.net");
    let bob = address("bob@contoso.com");
    let reply = Reply::fixed(550, Enhanced(5, 1, 1), "no such user\nask <[hidden]>");
    let failed = Recipient { orcpt: Some("rfc822;b+6Fb@contoso.com"), ..recipient(&bob, Action::Failed, &reply) };
    let text = report(&to, Returned::Headers(b"Subject: hello\r\nMessage-ID: <42@example.net>\r\n"), &[failed]);
    assert_eq!(lines(&text), include_str!("failed.txt"));
}

#[test]
fn a_report_goes_to_the_proper_form_of_a_path() {
    for (came, to) in [
        ("chris..x@fabrikam.test.", "To: <\"chris..x\"@fabrikam.test>\n"),
        (".chris@fabrikam.test", "To: <\".chris\"@fabrikam.test>\n"),
    ] {
        let (bob, reply) = (mailbox("b..ob@contoso.com.").unwrap(), UNKNOWN.clone());
        let failed = recipient(&bob, Action::Failed, &reply);
        let text = lines(&report(&mailbox(came).unwrap(), Returned::Headers(b"Subject: x\r\n"), &[failed]));
        assert!(text.contains(to), "{text}");
        assert!(text.contains("Final-Recipient: rfc822; \"b..ob\"@contoso.com\n"), "{text}");
    }
}

#[test]
fn a_delay_says_until_when_it_is_tried() {
    let to = address("alice@example.net");
    let bob = address("bob@contoso.com");
    let reply = Reply::fixed(451, Enhanced(4, 4, 1), "connection refused");
    let speaker = Speaker::NextHop { organization: "", host: "hub.fabrikam.com" };
    let delayed = Recipient { speaker, ..recipient(&bob, Action::Delayed, &reply) };
    let text = lines(&report(&to, Returned::Headers(b"Subject: hello\r\n"), &[delayed]));
    for part in [
        "Subject: Your message is delayed\n",
        "delivery is tried until Mon, 23 Nov\n2026 04:39:00 +0000",
        "The mail system there said:\n            451 4.4.1 connection refused\n",
        "Action: delayed\nStatus: 4.4.1\nRemote-MTA: dns; hub.fabrikam.com\nDiagnostic-Code: smtp; 451 4.4.1 connection refused\n\
         Will-Retry-Until: Mon, 23 Nov 2026 04:39:00 +0000\n",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
}

#[test]
fn our_own_words_are_no_servers() {
    let (to, bob) = (address("alice@example.net"), address("bob@contoso.com"));
    let reply = Reply::fixed(554, Enhanced(5, 4, 7), "delivery time expired");
    let failed = Recipient { speaker: Speaker::Ourselves, ..recipient(&bob, Action::Failed, &reply) };
    let text = report(&to, Returned::Nothing, &[failed]);
    assert!(text.contains("\r\nDiagnostic-Code: X-Fingerpost; 554 5.4.7 delivery time expired\r\n"), "{text}");
    assert!(!text.contains("smtp;") && !text.contains("Remote-MTA"));
}

#[test]
fn several_recipients_are_told_apart() {
    let to = address("alice@example.net");
    let (bob, carol) = (address("bob@contoso.com"), address("carol@contoso.com"));
    let late = Reply::fixed(451, Enhanced(4, 4, 1), "later");
    let all = [recipient(&bob, Action::Delayed, &late), recipient(&carol, Action::Failed, &UNKNOWN)];
    let text = report(&to, Returned::Headers(b""), &all);
    assert!(text.contains("Subject: Your message could not be delivered\r\n"));
    let (failed, delayed) = (text.find("could not be delivered to:"), text.find("not been delivered yet to:"));
    assert!(failed.is_some() && failed < delayed, "failures come first in the text");
    let (bob, carol) = (text.find("Final-Recipient: rfc822; bob"), text.find("Final-Recipient: rfc822; carol"));
    assert!(bob.is_some() && bob < carol, "the fields keep the recipients' order");
}

#[test]
fn nothing_foreign_can_make_up_fields_or_break_lines() {
    let to = address("alice@example.net");
    let bob = address("bob@contoso.com");
    let evil = "x\nAction: delivered\r\n\r\nFinal-Recipient: rfc822; mallory@x".to_owned() + &"y".repeat(3000) + "é";
    let reply = Reply { code: 550, enhanced: None, text: evil.into() };
    let orcpt = Some("rfc822;a+0D+0AAction:+20delivered");
    let failed = Recipient { orcpt, ..recipient(&bob, Action::Failed, &reply) };
    let text = report(&to, Returned::Headers(b"Subject: a\nb\rc\r\nX: y"), &[failed]);
    let lines = lines(&text);
    assert_eq!(lines.lines().filter(|line| line.starts_with("Action:")).count(), 1);
    assert_eq!(lines.lines().filter(|line| line.starts_with("Final-Recipient:")).count(), 1);
    assert!(lines.lines().all(|line| line.len() <= 998));
    assert!(lines.ends_with("Subject: a\nb\nc\nX: y\n\n--=_R.1--\n"));
    let status = lines.split("Content-Type: message/delivery-status").nth(1).unwrap();
    assert!(status.split("--=_R.1").next().unwrap().is_ascii(), "message/delivery-status is ASCII");
}

#[test]
fn addresses_beyond_ascii_make_an_international_report() {
    let to = address("alice@example.net");
    let rene = address("rené@contoso.com");
    let text = report(&to, Returned::Headers(b"Subject: x\r\n"), &[recipient(&rene, Action::Failed, &UNKNOWN)]);
    for part in [
        "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n",
        "Content-Type: message/global-delivery-status\r\nContent-Transfer-Encoding: 8bit\r\n",
        "Final-Recipient: utf-8; rené@contoso.com\r\n",
        "Content-Type: message/global-headers\r\nContent-Transfer-Encoding: 7bit\r\n",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
}

#[test]
fn the_whole_message_comes_back_as_it_is() {
    let to = address("alice@example.net");
    let bob = address("bob@contoso.com");
    let message = b"Subject: x\r\n\r\n.\r\n8 bit: \xc3\xa9\r\n";
    let text = report(&to, Returned::Full(message), &[recipient(&bob, Action::Failed, &UNKNOWN)]);
    assert!(text.contains("MIME-Version: 1.0\r\nContent-Transfer-Encoding: 8bit\r\nContent-Type: multipart/report;"));
    let part = "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\n";
    let returned = text.split(part).nth(1).and_then(|rest| rest.split("\r\n--=_R.1--").next());
    assert_eq!(returned.map(str::as_bytes), Some(message.as_slice()));
}

#[test]
fn only_a_message_id_is_repeated_as_one() {
    for (text, is) in [("<a@b>", true), ("", false), ("a@b", false), ("<a b>", false), ("<a>\r\nX: <y>", false)] {
        assert_eq!(is_message_id(text), is, "{text:?}");
    }
}
