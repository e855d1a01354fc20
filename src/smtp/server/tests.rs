//! Table tests of the state machine. The test driver chooses its events by the text of addresses and header sections.

use bytes::BytesMut;

use super::*;
use crate::smtp::command::ForwardPath;
use crate::smtp::envelope::Notify;

mod noise;

const LIMITS: Limits = Limits { max_message_size: 100, max_header_size: 40, max_recipients: 3 };

fn profile(tls: TlsState) -> Profile {
    Profile {
        hostname: "mx.example".into(),
        max_message_size: 100,
        tls,
        auth: AuthState::Possible,
        dsn: Dsn::NotOffered,
    }
}

fn server(tls: TlsState) -> Server {
    Server::new(profile(tls))
}

/// What a driver has seen: the replies' codes, and the messages that were committed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) codes: Vec<String>,
    messages: Vec<String>,
    draft: String,
    asked: std::collections::VecDeque<String>,
    closed: bool,
}

impl Seen {
    /// Performs actions until the machine wants to read.
    fn perform(&mut self, server: &mut Server, input: &mut BytesMut) {
        for _ in 0..10_000 {
            match server.next(input) {
                Action::Send(reply) => self.codes.push(code(&reply)),
                Action::Read(_) => return,
                Action::Wait => {
                    let asked = self.asked.pop_front().expect("something was asked");
                    let answer = if asked.starts_with("no") { reply::USER_UNKNOWN } else { reply::RECIPIENT_OK };
                    server.handle(Event::Resolved(answer));
                }
                Action::Begin(_) => server.handle(Event::Began(Ok(LIMITS))),
                Action::Resolve(rcpt) => self.asked.push_back(match rcpt.to {
                    ForwardPath::Mailbox(address) => address.as_str().to_owned(),
                    ForwardPath::Postmaster => "postmaster".to_owned(),
                }),
                Action::CheckHeader(section) => {
                    let section = String::from_utf8_lossy(&section).into_owned();
                    let looped = section.contains("Loop");
                    self.draft = section;
                    server.handle(Event::HeaderChecked(if looped { Err(reply::MESSAGE_LOOP) } else { Ok(()) }));
                }
                Action::Content(piece) => self.draft.push_str(&String::from_utf8_lossy(&piece)),
                Action::Commit(summary) => {
                    let flag = if summary.bare_lf { "!" } else { "" };
                    self.messages.push(format!("{flag}{}", std::mem::take(&mut self.draft)));
                    server.handle(Event::Ended(Ok(Reply::queued_as(&format!("Q{}", self.messages.len())))));
                }
                Action::Discard => self.draft.clear(),
                Action::StartTls => {
                    assert!(input.is_empty(), "octets behind STARTTLS are left");
                    server.handle(Event::TlsStarted(profile(TlsState::Active)));
                }
                Action::Authenticate(credentials) => {
                    server.handle(Event::Authenticated(match &*credentials.password {
                        "right" => Ok(()),
                        "later" => Err(reply::AUTH_UNAVAILABLE),
                        _ => Err(reply::AUTH_FAILED),
                    }))
                }
                Action::Close => {
                    self.closed = true;
                    return;
                }
            }
        }
        panic!("the machine does not come to rest");
    }
}

fn code(reply: &Reply) -> String {
    match reply.enhanced {
        Some(enhanced) => format!("{} {enhanced}", reply.code),
        None => reply.code.to_string(),
    }
}

/// Feeds `text` in pieces of `size` octets, behind EHLO.
pub(super) fn talk(tls: TlsState, text: &str, size: usize) -> Seen {
    let mut server = server(tls);
    let mut seen = Seen::default();
    let mut input = BytesMut::from(&b"EHLO client.example\r\n"[..]);
    seen.perform(&mut server, &mut input);
    assert_eq!(seen.codes, ["220", "250"]);
    seen.codes.clear();
    for piece in text.as_bytes().chunks(size) {
        if !seen.closed {
            input.extend_from_slice(piece);
            seen.perform(&mut server, &mut input);
        }
    }
    seen.draft.clear();
    seen
}

const MAIL: &str = "MAIL FROM:<a@b.c>\r\n";
const RCPT: &str = "RCPT TO:<u@d.e>\r\n";
const SENDER_OK: &str = "250 2.1.0";
const RCPT_OK: &str = "250 2.1.5";
const OK: &str = "250 2.0.0";

/// With its name and line end the longest header section that [`LIMITS`] allows.
const HEADER: &str = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";

/// A case: input, the replies' codes, the messages that were committed.
type Case<'a> = (String, &'a [&'a str], &'a [&'a str]);

fn check(tls: TlsState, cases: &[Case<'_>]) {
    for (text, codes, messages) in cases {
        for size in [text.len().max(1), 1, 2, 7] {
            let seen = talk(tls, text, size);
            assert_eq!(seen.codes, *codes, "{text:?} in pieces of {size}");
            assert_eq!(seen.messages, *messages, "{text:?} in pieces of {size}");
        }
    }
}

#[test]
fn commands_are_answered_by_the_state_they_come_in() {
    let begun = format!("{MAIL}{RCPT}");
    check(
        TlsState::Unavailable,
        &[
            (
                format!("{begun}DATA\r\nA: b\r\n\r\nc\r\n.\r\n"),
                &[SENDER_OK, RCPT_OK, "354", OK],
                &["A: b\r\n\r\nc\r\n"],
            ),
            (format!("{begun}DATA\r\n.\r\nQUIT\r\n"), &[SENDER_OK, RCPT_OK, "354", OK, "221 2.0.0"], &[""]),
            (format!("{begun}DATA\r\nA: b\r\n.\r\n{MAIL}"), &[SENDER_OK, RCPT_OK, "354", OK, SENDER_OK], &["A: b\r\n"]),
            (
                format!("{begun}DATA\r\nA: {HEADER}\r\n\r\nc\r\n.\r\n"),
                &[SENDER_OK, RCPT_OK, "354", OK],
                &["A: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n\r\nc\r\n"],
            ),
            (RCPT.into(), &["503 5.5.1"], &[]),
            ("DATA\r\n".into(), &["503 5.5.1"], &[]),
            (format!("{MAIL}{MAIL}"), &[SENDER_OK, "503 5.5.1"], &[]),
            (format!("{MAIL}DATA\r\n"), &[SENDER_OK, "503 5.5.1"], &[]),
            (format!("{MAIL}RCPT TO:<no@d.e>\r\nDATA\r\n"), &[SENDER_OK, "550 5.1.1", "554 5.5.1"], &[]),
            (format!("{begun}RSET\r\nDATA\r\n"), &[SENDER_OK, RCPT_OK, OK, "503 5.5.1"], &[]),
            (format!("{begun}EHLO again\r\nDATA\r\n"), &[SENDER_OK, RCPT_OK, "250", "503 5.5.1"], &[]),
            (
                "VRFY u\r\nHELP\r\nNOOP\r\nFOO\r\nEXPN x\r\n".into(),
                &["252 2.5.2", "214 2.0.0", OK, "500 5.5.1", "502 5.5.1"],
                &[],
            ),
            ("STARTTLS\r\n".into(), &["502 5.5.1"], &[]),
            ("MAIL FROM:<a@b.c> SIZE=101\r\nRCPT TO:<u@d.e>\r\n".into(), &["552 5.3.4", "503 5.5.1"], &[]),
            (
                format!("{MAIL}{RCPT}RCPT TO:<no@d.e>\r\n{RCPT}{RCPT}{RCPT}"),
                &[SENDER_OK, RCPT_OK, "550 5.1.1", RCPT_OK, RCPT_OK, "452 4.5.3"],
                &[],
            ),
            (format!("{MAIL}RCPT TO:<r\u{e9}@d.e>\r\n"), &[SENDER_OK, "553 5.6.7"], &[]),
            ("MAIL FROM:<> SMTPUTF8\r\nRCPT TO:<r\u{e9}@d.e>\r\n".into(), &[SENDER_OK, RCPT_OK], &[]),
            ("GET / HTTP/1.1\r\nNOOP\r\n".into(), &["500 5.5.2"], &[]),
            ("NOOP\r\nNOOP\nNOOP\r\n".into(), &[OK, "500 5.5.2"], &[]),
            (format!("{}\r\nNOOP\r\n", "x".repeat(5000)), &["500 5.5.2", OK], &[]),
        ],
    );
}

#[test]
fn nothing_of_a_refused_message_is_read_as_a_command() {
    let begun = format!("{MAIL}{RCPT}");
    let refused = |code| [SENDER_OK, RCPT_OK, "354", code, OK];
    let ended = |code| [SENDER_OK, RCPT_OK, "354", code];
    let body = "x".repeat(90);
    check(
        TlsState::Unavailable,
        &[
            (format!("{begun}DATA\r\n\r\n{body}\r\nQUIT\r\n1234567890\r\n.\r\nNOOP\r\n"), &refused("552 5.3.4"), &[]),
            (format!("{begun}DATA\r\nA: {}\r\nQUIT\r\n\r\n.\r\nNOOP\r\n", "x".repeat(40)), &refused("552 5.3.4"), &[]),
            // A bare CR or LF closes the session, whatever else is wrong.
            (format!("{begun}DATA\r\nA: b\r\n\r\nc\n.\nQUIT\r\n.\r\nNOOP\r\n"), &ended("554 5.6.11"), &[]),
            (format!("{begun}DATA\r\nA: b\r\n\r\nc\r.\rQUIT\r\n.\r\nNOOP\r\n"), &ended("554 5.6.11"), &[]),
            (format!("{begun}DATA\r\nA: b\n\r\nc\r\n.\r\nNOOP\r\n"), &ended("554 5.6.11"), &[]),
            (format!("{begun}DATA\r\nA: b\r\n\r\nc\0d\n\r\nQUIT\r\n.\r\nNOOP\r\n"), &ended("554 5.6.0"), &[]),
            (format!("{begun}DATA\r\nA: b\r\n\r\nc\0d\r\nQUIT\r\n.\r\nNOOP\r\n"), &refused("554 5.6.0"), &[]),
            (format!("{begun}DATA\r\nA: \0\r\nQUIT\r\n.\r\nNOOP\r\n"), &refused("554 5.6.0"), &[]),
            (format!("{begun}DATA\r\nLoop: b\r\n\r\nc\r\nQUIT\r\n.\r\nNOOP\r\n"), &refused("554 5.4.6"), &[]),
            (format!("{begun}DATA\r\nLoop: b\r\n.\r\nNOOP\r\n"), &refused("554 5.4.6"), &[]),
            // The first flaw decides the reply.
            (format!("{begun}DATA\r\n\r\n{body}{body}\n.\r\n.\r\nNOOP\r\n"), &ended("552 5.3.4"), &[]),
            (format!("{begun}DATA\r\nLoop: b\r\n\r\n{body}{body}\n\r\n.\r\nNOOP\r\n"), &ended("554 5.4.6"), &[]),
            (format!("{begun}DATA\r\nA: {}\r\n\r\nc\r\n.\r\nNOOP\r\n", "x".repeat(36)), &refused("552 5.3.4"), &[]),
        ],
    );
}

#[test]
fn chunks_are_consumed_whatever_is_answered() {
    let begun = format!("{MAIL}{RCPT}");
    check(
        TlsState::Unavailable,
        &[
            (
                format!("{begun}BDAT 8\r\nA: b\r\n\r\nBDAT 3 LAST\r\nc\r\nNOOP\r\n"),
                &[SENDER_OK, RCPT_OK, OK, OK, OK],
                &["A: b\r\n\r\nc\r\n"],
            ),
            (
                format!("{begun}BDAT 9\r\nA: b\r\n\r\ncBDAT 0 LAST\r\n"),
                &[SENDER_OK, RCPT_OK, OK, OK],
                &["A: b\r\n\r\nc"],
            ),
            (format!("{begun}BDAT 0 LAST\r\n"), &[SENDER_OK, RCPT_OK, OK], &[""]),
            (format!("{begun}BDAT 11 LAST\r\nA: b\r\n\r\nc\0\nNOOP\r\n"), &[SENDER_OK, RCPT_OK, "554 5.6.0", OK], &[]),
            (
                format!("{begun}BDAT 8\r\nA: b\r\n\0\nBDAT 3 LAST\r\nc\r\nNOOP\r\n"),
                &[SENDER_OK, RCPT_OK, "554 5.6.0", "503 5.5.1", OK],
                &[],
            ),
            (format!("{begun}BDAT 6 LAST\r\nA: b\n\n"), &[SENDER_OK, RCPT_OK, OK], &["!A: b\n\n"]),
            (format!("{begun}BDAT 6 LAST\r\nQUIT\r\n{MAIL}"), &[SENDER_OK, RCPT_OK, OK, SENDER_OK], &["QUIT\r\n"]),
            (
                format!("{begun}BDAT 6\r\nA: b\r\nRSET\r\nBDAT 6 LAST\r\nQUIT\r\nNOOP\r\n"),
                &[SENDER_OK, RCPT_OK, OK, OK, "503 5.5.1", OK],
                &[],
            ),
            (
                format!("{begun}BDAT 6\r\nA: b\r\n{RCPT}DATA\r\n{MAIL}BDAT 0 LAST\r\n"),
                &[SENDER_OK, RCPT_OK, OK, "503 5.5.1", "503 5.5.1", "503 5.5.1", OK],
                &["A: b\r\n"],
            ),
            (
                format!("{MAIL}RCPT TO:<no@d.e>\r\nBDAT 6 LAST\r\nQUIT\r\nNOOP\r\n"),
                &[SENDER_OK, "550 5.1.1", "503 5.5.1", OK],
                &[],
            ),
            (
                format!("{begun}BDAT 101\r\n{}BDAT 6 LAST\r\nQUIT\r\nNOOP\r\n", "x".repeat(101)),
                &[SENDER_OK, RCPT_OK, "552 5.3.4", "503 5.5.1", OK],
                &[],
            ),
            (format!("{begun}BDAT 12 LAST\r\nLoop: b\r\n\r\ncNOOP\r\n"), &[SENDER_OK, RCPT_OK, "554 5.4.6", OK], &[]),
            (format!("{begun}BDAT six LAST\r\nQUIT\r\n"), &[SENDER_OK, RCPT_OK, "501 5.5.4"], &[]),
        ],
    );
}

#[test]
fn required_tls_is_demanded_and_starttls_begins_anew() {
    check(
        TlsState::Required,
        &[
            (MAIL.into(), &["530 5.7.0"], &[]),
            ("NOOP\r\nBDAT 6 LAST\r\nQUIT\r\nVRFY u\r\n".into(), &[OK, "530 5.7.0", "530 5.7.0"], &[]),
            ("STARTTLS now\r\n".into(), &["501 5.5.4"], &[]),
        ],
    );
    let seen = talk(TlsState::Required, &format!("STARTTLS\r\n{MAIL}{RCPT}"), 1000);
    assert_eq!(seen.codes, ["220 2.0.0"], "what stands behind STARTTLS is thrown away");

    let mut server = server(TlsState::Offered);
    let mut seen = Seen::default();
    for line in ["EHLO a\r\n", MAIL, "STARTTLS\r\n", MAIL, "EHLO a\r\n", "STARTTLS\r\n", MAIL] {
        seen.perform(&mut server, &mut BytesMut::from(line.as_bytes()));
    }
    assert_eq!(seen.codes[1..], ["250", SENDER_OK, "220 2.0.0", "503 5.5.1", "250", "503 5.5.1", SENDER_OK]);
    assert!(server.is_encrypted());
}

/// A machine that waits for the result of [`Action::Commit`].
fn committing() -> Server {
    let mut server = server(TlsState::Unavailable);
    let text = format!("EHLO c\r\n{MAIL}{RCPT}DATA\r\n\r\nx\r\n.\r\n{MAIL}");
    let mut input = BytesMut::from(text.as_bytes());
    loop {
        match server.next(&mut input) {
            Action::Commit(_) => return server,
            Action::Begin(_) => server.handle(Event::Began(Ok(LIMITS))),
            Action::Wait => server.handle(Event::Resolved(reply::RECIPIENT_OK)),
            Action::CheckHeader(_) => server.handle(Event::HeaderChecked(Ok(()))),
            Action::Close | Action::Read(_) => panic!("no commit"),
            _ => {}
        }
    }
}

#[test]
fn a_message_is_accepted_only_after_it_is_durable() {
    let mut input = BytesMut::new();
    for (event, expected) in [
        (None, Action::Wait),
        (Some(Event::HeaderChecked(Ok(()))), Action::Wait),
        (Some(Event::Resolved(reply::RECIPIENT_OK)), Action::Wait),
        (Some(Event::Began(Ok(LIMITS))), Action::Wait),
        (Some(Event::TlsStarted(profile(TlsState::Active))), Action::Wait),
        (Some(Event::Draining), Action::Wait),
        (Some(Event::Ended(Ok(Reply::queued_as("Q1")))), Action::Send(Reply::queued_as("Q1"))),
        (Some(Event::Ended(Err(reply::TRY_AGAIN))), Action::Send(reply::TRY_AGAIN)),
        (Some(Event::SentAway(reply::TIMED_OUT)), Action::Send(reply::TIMED_OUT)),
    ] {
        let mut server = committing();
        let told = format!("{event:?}");
        if let Some(event) = event {
            server.handle(event);
        }
        assert_eq!(server.next(&mut input), expected, "{told}");
    }
}

#[test]
fn recipients_are_asked_about_at_once_and_answered_in_order() {
    let mut server = server(TlsState::Unavailable);
    let text = format!("EHLO c\r\n{MAIL}RCPT TO:<no@d.e>\r\n{RCPT}NOOP\r\n");
    let mut input = BytesMut::from(text.as_bytes());
    let mut actions = Vec::new();
    loop {
        match server.next(&mut input) {
            Action::Begin(_) => server.handle(Event::Began(Ok(LIMITS))),
            Action::Wait => break,
            action => actions.push(action),
        }
    }
    assert!(matches!(&actions[2..], [Action::Send(_), Action::Resolve(_), Action::Resolve(_)]), "{actions:?}");
    server.handle(Event::Resolved(reply::USER_UNKNOWN));
    assert_eq!(server.next(&mut input), Action::Send(reply::USER_UNKNOWN));
    assert_eq!(server.next(&mut input), Action::Wait);
    server.handle(Event::Resolved(reply::RECIPIENT_OK));
    assert_eq!(server.next(&mut input), Action::Send(reply::RECIPIENT_OK));
    assert_eq!(server.next(&mut input), Action::Send(reply::OK));
}

/// NOTIFY of each of these RCPTs as the driver gets it, and whether EHLO before them offered DSN.
fn asked(dsn: Dsn, before: &str, rcpts: &[&str]) -> (Vec<Option<Notify>>, bool) {
    let mut server = Server::new(Profile { dsn, ..profile(TlsState::Active) });
    let mail = "MAIL FROM:<a@b.c> RET=FULL";
    let mut input = BytesMut::from(format!("EHLO c\r\n{before}EHLO c\r\n{mail}\r\n").as_bytes());
    rcpts.iter().for_each(|rcpt| input.extend_from_slice(format!("RCPT TO:<u@d.e>{rcpt}\r\n").as_bytes()));
    let (mut notify, mut offered) = (Vec::new(), false);
    loop {
        match server.next(&mut input) {
            Action::Begin(sender) => {
                assert_eq!(sender.ret.is_some(), offered, "RET");
                server.handle(Event::Began(Ok(Limits { max_recipients: 20, ..LIMITS })));
            }
            Action::Resolve(rcpt) => notify.push(rcpt.notify),
            Action::Authenticate(_) => server.handle(Event::Authenticated(Ok(()))),
            Action::Send(reply) if reply.text.contains("PIPELINING") => offered = reply.text.contains("\nDSN\n"),
            Action::Wait => server.handle(Event::Resolved(reply::RECIPIENT_OK)),
            Action::Read(_) => return (notify, offered),
            _ => {}
        }
    }
}

#[test]
fn a_stranger_is_not_offered_dsn_and_asks_for_success_in_vain() {
    let on = |success, failure, delay| Some(Notify::On { success, failure, delay });
    let words = ["", " NOTIFY=NEVER", " NOTIFY=FAILURE,DELAY", " NOTIFY=SUCCESS,FAILURE,DELAY", " NOTIFY=success"];
    let all = [None, Some(Notify::Never), on(false, true, true), on(true, true, true), on(true, false, false)];
    let less = [None, Some(Notify::Never), on(false, true, true), on(false, true, true), Some(Notify::Never)];
    assert_eq!(asked(Dsn::NotOffered, "", &words), (less.into(), false));
    assert_eq!(asked(Dsn::Offered, "", &words), (all.into(), true));
    assert_eq!(asked(Dsn::NotOffered, "AUTH PLAIN AHUAcmlnaHQ=\r\n", &words), (all.into(), true), "no stranger then");
    let wrong = asked(Dsn::NotOffered, "", &[" NOTIFY=SUCCESS,NEVER", " NOTIFY=", " ORCPT=x", " NOTIFY=DELAY"]);
    assert_eq!(wrong, (vec![on(false, false, true)], false), "what is wrong is refused as before");
}

#[test]
fn sessions_end_with_421() {
    let seen = talk(TlsState::Unavailable, &"FOO\r\n".repeat(30), 1000);
    assert_eq!((seen.codes.len(), seen.codes.last().unwrap().as_str(), seen.closed), (21, "421 4.7.0", true));
    let names = (0..150).map(|i| format!("RSET\r\n{MAIL}RCPT TO:<no{i}@d.e>\r\n")).collect::<String>();
    let seen = talk(TlsState::Unavailable, &names, 1000);
    assert_eq!((seen.codes.len(), seen.codes.last().unwrap().as_str(), seen.closed), (301, "421 4.7.0", true));

    for (before, codes) in [("", vec!["421 4.3.2"]), (MAIL, vec![RCPT_OK, "354", OK, "421 4.3.2"])] {
        let mut server = server(TlsState::Unavailable);
        let mut seen = Seen::default();
        seen.perform(&mut server, &mut BytesMut::from(format!("EHLO c\r\n{before}").as_bytes()));
        seen.codes.clear();
        server.handle(Event::Draining);
        let rest = format!("{RCPT}DATA\r\nx\r\n.\r\n{MAIL}");
        seen.perform(&mut server, &mut BytesMut::from(rest.as_bytes()));
        assert_eq!(seen.codes, codes, "draining behind {before:?}");
        assert!(seen.closed);
    }
}
