//! What goes over the wire: commands with the parameters that are offered, transactions, and the content byte by byte.

use fingerpost::config::{BareLf, EightBit, SmtpOut};
use fingerpost::delivery::attempt::Outbound;
use fingerpost::metrics::Metrics;
use fingerpost::smtp::address::Address;
use fingerpost::smtp::envelope::{Body, Notify, Ret};

use support::letter::{Letter, connector, in_words, smart_host, smtp_out};
use support::scripted_smtp_server::ScriptedSmtpServer;

async fn send(letter: &Letter, script: &str, settings: impl FnOnce(&mut SmtpOut)) -> (ScriptedSmtpServer, Vec<String>) {
    let hop = ScriptedSmtpServer::start(script, None).await;
    let mut smtp = smtp_out(vec![smart_host(hop.address)]);
    settings(&mut smtp);
    let told = letter.send(&Outbound::new(Metrics::new()), &connector(smtp)).await;
    (hop, in_words(&told))
}

const ACCEPTED: &str = "accepted 250 2.0.0 queued";

#[tokio::test]
async fn the_smallest_conversation() {
    for (script, offered) in [("", "pipelined"), ("ehlo => 250 next.hop", "one by one")] {
        let (hop, told) = send(&Letter::to(&["a@contoso.com"]), script, |_| {}).await;
        assert_eq!(told, [ACCEPTED]);
        let lines = ["EHLO mx.contoso.com", "MAIL FROM:<sender@fabrikam.com>", "RCPT TO:<a@contoso.com>", "DATA"];
        assert_eq!(hop.seen()[0].lines, lines, "{offered}");
        assert_eq!(hop.contents(), [b"Subject: test\r\n\r\nhello\r\n"], "{offered}");
    }
}

#[tokio::test]
async fn parameters_go_where_they_are_offered() {
    let mut letter = Letter::to(&["a@contoso.com"]).saying("Subject: ü\r\n\r\n".as_bytes());
    letter.sender.ret = Some(Ret::Full);
    letter.sender.envid = Some("id+2B1".to_owned());
    letter.sender.body = Body::EightBitMime;
    letter.content.eight_bit = true;
    letter.prefix = b"X-Stamp: 1\r\n".to_vec();
    letter.to[0].notify = Some(Notify::Never);
    letter.rewritten[0] = Some(Address::parse("a@target.example").unwrap());
    let all = "ehlo => 250-next.hop\\n250-SIZE 5000\\n250-8BITMIME\\n250-SMTPUTF8\\n250 DSN";
    let (hop, told) = send(&letter, all, |_| {}).await;
    assert_eq!(told, ["accepted with DSN 250 2.0.0 queued"]);
    let mail = "MAIL FROM:<sender@fabrikam.com> SIZE=27 BODY=8BITMIME RET=FULL ENVID=id+2B1";
    assert_eq!(hop.commands("MAIL"), [mail]);
    assert_eq!(hop.commands("RCPT"), ["RCPT TO:<a@target.example> NOTIFY=NEVER ORCPT=rfc822;a@contoso.com"]);
    assert_eq!(hop.contents(), ["X-Stamp: 1\r\nSubject: ü\r\n\r\n".as_bytes()]);
    let (hop, told) = send(&letter, "", |_| {}).await;
    assert_eq!(told, [ACCEPTED]);
    assert_eq!(hop.commands("MAIL"), ["MAIL FROM:<sender@fabrikam.com>"]);
    assert_eq!(hop.commands("RCPT"), ["RCPT TO:<a@target.example>"]);
}

#[tokio::test]
async fn what_does_not_fit_is_refused_by_us_and_never_sent() {
    let plain = || Letter::to(&["a@contoso.com"]);
    let mut bare_lf = plain().saying(b"Subject: x\n\ny\r\n");
    bare_lf.content.bare_lf = true;
    let mut eight_bit = plain();
    eight_bit.content.eight_bit = true;
    let mut header = plain();
    (header.sender.smtputf8, header.content.ascii_header) = (true, false);
    for (letter, script, told) in [
        (plain(), "ehlo => 250-next.hop\\n250 SIZE 20", "refused 552 5.3.4"),
        (bare_lf, "", "refused 554 5.6.1"),
        (eight_bit, "", "refused 554 5.6.3"),
        (header, "", "refused 554 5.6.9"),
        (Letter::to(&["é@contoso.com"]), "", "refused 553 5.6.7"),
    ] {
        let (hop, got) = send(&letter, script, |smtp| smtp.eight_bit = EightBit::Refuse).await;
        assert!(got[0].starts_with(told), "{got:?}");
        assert_eq!(hop.seen()[0].lines, ["EHLO mx.contoso.com"]);
    }
}

#[tokio::test]
async fn smtputf8_is_for_those_who_need_it() {
    let letter = Letter::to(&["é@contoso.com", "b@contoso.com"]);
    let (hop, told) = send(&letter, "", |_| {}).await;
    assert!(told[0].starts_with("refused 553 5.6.7"), "{told:?}");
    assert_eq!(told[1], ACCEPTED);
    assert_eq!(hop.commands("RCPT"), ["RCPT TO:<b@contoso.com>"]);
    let (hop, told) = send(&letter, "ehlo => 250-next.hop\\n250 SMTPUTF8", |_| {}).await;
    assert_eq!(told, [ACCEPTED; 2]);
    assert_eq!(hop.commands("MAIL"), ["MAIL FROM:<sender@fabrikam.com> SMTPUTF8"]);
}

#[tokio::test]
async fn bare_lf_goes_by_bdat_or_becomes_crlf() {
    let body = b"Subject: x\n\n.a\r\nb\rc\n.\n";
    let mut letter = Letter::to(&["a@contoso.com"]).saying(body);
    letter.content.bare_lf = true;
    letter.prefix = b"X: 1\r\n".to_vec();
    let (hop, told) = send(&letter, "ehlo => 250-next.hop\\n250-PIPELINING\\n250 CHUNKING", |_| {}).await;
    assert_eq!(told, [ACCEPTED]);
    assert_eq!(hop.contents(), [[&b"X: 1\r\n"[..], body].concat()]);
    assert_eq!(hop.commands("DATA").len(), 0);
    let (hop, told) = send(&letter, "", |smtp| smtp.bare_lf = BareLf::Crlf).await;
    assert_eq!(told, [ACCEPTED]);
    assert_eq!(hop.contents(), [b"X: 1\r\nSubject: x\r\n\r\n..a\r\nb\r\nc\r\n..\r\n"]);
}

#[tokio::test]
async fn bodies_of_any_size_arrive_whole() {
    let line = b".A line with a dot at its beginning, and one at its end.\r\n";
    for lines in [0, 1, 1_000, 1_130, 1_131, 5_000, 40_000] {
        let body = [&b"Subject: x\r\n\r\n"[..], &line.repeat(lines)].concat();
        let stuffed = [&b"Subject: x\r\n\r\n"[..], &[b".", &line[..]].concat().repeat(lines)].concat();
        let (hop, told) = send(&Letter::to(&["a@contoso.com"]).saying(&body), "", |_| {}).await;
        assert_eq!(told, [ACCEPTED]);
        assert!(hop.contents() == [stuffed], "{lines} lines");
    }
}

#[tokio::test]
async fn a_content_that_is_too_short_is_never_ended() {
    let mut letter = Letter::to(&["a@contoso.com"]);
    letter.content.size += 1;
    let (hop, told) = send(&letter, "", |_| {}).await;
    assert!(told[0].starts_with("deferred 451 4.3.0"), "{told:?}");
    assert_eq!(hop.contents().len(), 0);
}

#[tokio::test]
async fn a_hundred_recipients_a_transaction() {
    let recipients: Vec<_> = (0..250).map(|n| format!("user{n}@contoso.com")).collect();
    let letter = Letter::to(&recipients.iter().map(String::as_str).collect::<Vec<_>>());
    let (hop, told) = send(&letter, "rcpt to:<user120@ => 550 5.1.1 no", |_| {}).await;
    assert_eq!(told.iter().filter(|told| *told == ACCEPTED).count(), 249);
    assert!(told[120].starts_with("unknown"));
    assert_eq!(hop.contents().len(), 3);
    assert_eq!(hop.seen().len(), 1);
    assert_eq!(hop.commands("RCPT").len(), 250);
}

#[tokio::test]
async fn too_many_recipients_go_in_another_transaction() {
    let recipients = ["a@contoso.com", "b@contoso.com", "c@contoso.com"];
    for reply in ["452 4.5.3 too many", "552 too many"] {
        // Those whose turn it is in the second transaction come first there.
        let script = format!("rcpt to:<b@contoso.com> => {reply}\nrcpt to:<c@contoso.com> => {reply}");
        let (hop, told) = send(&Letter::to(&recipients), &script, |_| {}).await;
        assert_eq!(told, [ACCEPTED, "deferred 452 4.5.3 too many", "deferred 452 4.5.3 too many"]);
        assert_eq!(hop.commands("RCPT").len(), 5);
        assert_eq!(hop.contents().len(), 1);
    }
}
