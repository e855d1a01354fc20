//! Reads the stored examples of the spool's files in each format.
//!
//! `spool-segment-2` is what the last version with format 2 left behind (`tests/storage/spool_store/formats.rs` opens
//! it too). The 3s, and `envelope-1`, were written by the last version with format 3 (6aa4fdd) from [`records`] as it
//! would have had them. `spool-checkpoint-2` is `spool-checkpoint-3` with its number and sum made those of 2: nothing
//! else was different.

use std::borrow::Cow;

use super::checkpoint;
use super::entry::{Change, Content, Entry, HeldFor, Outcome, Queued, RecipientState, Waiting, Why};
use super::header::{self, FORMAT, Header, OLDEST};
use super::record::{self, Frame, Frames, Held, Logged, Statement};
use crate::formats::Format;
use crate::message::header::Identity;
use crate::message::queue_id::QueueId;
use crate::message::stamp::Stamp;
use crate::routing::verdict::{Route, RouteKind};
use crate::smtp::address::{Address, ReversePath};
use crate::smtp::domain::Domain;
use crate::smtp::envelope::{Body, ChosenBy, Notify, Origin, RcptTo, Relay, Ret, Sender, Spoke};
use crate::smtp::reply::{Enhanced, Reply};
use crate::time::{QueueTime, UnixTime};

const IDS: [QueueId; 2] = [QueueId(1_883_131_734_572_138_496), QueueId(1_883_131_734_577_381_376)];
const CONTENT: &[u8] = b"Received: by mx.contoso.com\r\nSubject: an example\r\n\r\nbytes\r\n";

fn header(format: u16) -> Header {
    let mark = *b"\x01mark\xfe\xff\x00";
    Header { format, number: 9, previous: 7, previous_end: 1 << 20, first: 3, last_id: IDS[1], mark, rewritten_end: 0 }
}

fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

fn route(connector: &str, way: RouteKind) -> Route {
    let next_hop_domain = Domain::parse("contoso.com").unwrap();
    Route { connector: connector.into(), rcpt_to: address("anna@exchange.contoso.com"), next_hop_domain, way }
}

/// A recipient in each state, with a value in each field. Fields that formats before 4 do not have get the value with
/// which they are read.
fn states(format: u16) -> Vec<RecipientState> {
    let is_before = format < 4;
    let waiting = Waiting {
        attempts: 7,
        tried: if is_before { 7 } else { 5 },
        tries: if is_before { 0 } else { 3_000_000_000 },
        next_attempt: UnixTime(1_800_000_300),
        why: Why::Deferred,
        last_error: "hub.contoso.com[192.0.2.1]:25: 451 4.2.1 busy".into(),
        warned: true,
        in_doubt: if is_before { 0 } else { 2 },
        followed: !is_before,
        ages_from: None,
    };
    let since = Waiting { ages_from: Some(QueueTime(1_800_000_100)), ..waiting.clone() };
    let reply = Reply::fixed(250, Enhanced(2, 0, 0), "taken");
    let no = Reply::fixed(550, Enhanced(5, 1, 1), "no such user");
    let mut states = vec![
        RecipientState::due(UnixTime(1_800_000_000)),
        RecipientState::Waiting(waiting.clone()),
        RecipientState::Waiting(since),
        RecipientState::Held(HeldFor::NoConnector),
        RecipientState::Held(HeldFor::Drop),
        RecipientState::Done(Outcome::Delivered { next_hop: "192.0.2.1:25".into(), reply }),
        RecipientState::Done(Outcome::Failed { next_hop: "".into(), reply: no }),
        RecipientState::Done(Outcome::Dropped),
    ];
    if !is_before {
        let whys = [Why::New, Why::Unreachable, Why::Undecided, Why::InDoubt];
        states.extend(whys.map(|why| RecipientState::Waiting(Waiting { why, ..waiting.clone() })));
    }
    states
}

fn queued(at: usize, state: RecipientState) -> Queued {
    let ways = [
        RouteKind::Resolved,
        RouteKind::Relayed,
        RouteKind::RelayedVerified,
        RouteKind::Redirected,
        RouteKind::External,
    ];
    let on = Notify::On { success: true, failure: true, delay: false };
    let notify = [None, Some(Notify::Never), Some(on)][at % 3];
    let orcpt = (at == 1).then(|| "rfc822;Anna@contoso.com".into());
    let rcpt = RcptTo { address: address(&format!("user{at}@contoso.com")), notify, orcpt };
    Queued { rcpt, route: route("exchange", ways[at % 5]), state }
}

fn origin() -> Origin {
    Origin {
        receive_connector: "internet".into(),
        organization: "fabrikam".into(),
        resolves_first: true,
        relay: Relay::AcceptedDomains,
        client: Some("2001:db8::25".parse().unwrap()),
        helo: "mail.sender.example".into(),
        authenticated: true,
        chosen_by: ChosenBy::Certificate("mail.sender.example".into()),
        client_port: Some(54321),
        spoke: Some(Spoke::Esmtp),
    }
}

/// A message from a client with all fields set, and a report with none.
pub(crate) fn entries(format: u16) -> [Entry; 2] {
    let identity = Identity { message_id: true, date: true, from: false, digest: [1; 16], id_and_date: [2; 16] };
    let content = Content {
        size: CONTENT.len() as u64,
        header_size: 49,
        ascii_header: true,
        eight_bit: false,
        bare_lf: false,
        identity,
        message_id: "<1@sender.example>".into(),
    };
    // Formats before 4 had one time only.
    let queued_at = |received_at: u64| QueueTime(if format < 4 { received_at } else { received_at - 99 });
    let first = Entry {
        id: IDS[0],
        received_at: UnixTime(1_800_000_000),
        queued_at: queued_at(1_800_000_000),
        origin: origin(),
        sender: Sender {
            reverse_path: ReversePath::Address(address("bob@sender.example")),
            size: Some(60),
            body: Body::EightBitMime,
            smtputf8: true,
            ret: Some(Ret::Headers),
            envid: Some("QQ314159".into()),
        },
        content: content.clone(),
        stamps: vec![Stamp { via: "secondary".into(), time: UnixTime(1_799_999_000), tags: vec![[7; 8], [8; 8]] }],
        recipients: (0..).zip(states(format)).map(|(at, state)| queued(at, state)).collect(),
    };
    let due = RecipientState::due(UnixTime(1_800_000_001));
    let rcpt = RcptTo { address: address("bob@sender.example"), notify: None, orcpt: None };
    let second = Entry {
        id: IDS[1],
        received_at: UnixTime(1_800_000_001),
        queued_at: queued_at(1_800_000_001),
        origin: Origin::report(),
        sender: Sender {
            reverse_path: ReversePath::Null,
            size: None,
            body: Body::SevenBit,
            smtputf8: false,
            ret: None,
            envid: None,
        },
        content: Content { size: 300_000, message_id: String::new(), ..content },
        stamps: Vec::new(),
        recipients: vec![Queued { rcpt, route: route("internet", RouteKind::External), state: due }],
    };
    [first, second]
}

/// New messages, then changes.
fn records(format: u16) -> [Logged<'static>; 2] {
    let [first, second] = entries(format);
    let length = u32::try_from(CONTENT.len()).unwrap();
    let sum = (format >= 4).then_some(0x0102_0304);
    let accepted = vec![
        Statement { entry: Cow::Owned(first), content: Held::Here { length, sum: crc32c::crc32c(CONTENT) } },
        Statement { entry: Cow::Owned(second), content: Held::File { folder: 3, sum } },
    ];
    let route = |recipient| (recipient == 1).then(|| route("secondary", RouteKind::Relayed));
    let change = |(recipient, state)| Change { id: IDS[0], recipient, state, route: route(recipient) };
    let changes: Vec<_> = (0..).zip(states(format)).map(change).collect();
    [Logged { accepted, changes: Vec::new().into() }, Logged { accepted: Vec::new(), changes: changes.into() }]
}

/// A segment and its checkpoint.
fn written() -> (Vec<u8>, Vec<u8>) {
    let header = header(FORMAT);
    let (mut bytes, mut frames) = (header.write(), Vec::new());
    for (logged, contents) in records(FORMAT).into_iter().zip([&[CONTENT][..], &[]]) {
        let from = bytes.len();
        let contents = record::write(header.mark, &logged, contents, &mut bytes).unwrap();
        frames.push(Frame { range: from..bytes.len(), contents, logged });
    }
    let checkpoint = checkpoint::write(&header, bytes.len() as u64, &frames).unwrap();
    (bytes, checkpoint)
}

#[test]
fn segments() {
    let format = Format { name: "spool-segment", extension: "seg", oldest: OLDEST, current: FORMAT };
    format.check(&written().0, |number, bytes| {
        let read = Header::read(bytes).unwrap();
        assert_eq!(read.format, number);
        let frames: Vec<_> = Frames::new(read.mark, read.format, bytes, header::LENGTH).map(Result::unwrap).collect();
        if number == 2 {
            let messages: usize = frames.iter().map(|frame| frame.logged.accepted.len()).sum();
            return assert_eq!(messages, 2);
        }
        assert_eq!(read, header(number));
        assert_eq!(&bytes[frames[0].contents..frames[0].range.end - 8], CONTENT);
        let logged: Vec<_> = frames.into_iter().map(|frame| frame.logged).collect();
        assert_eq!(logged, records(number), "format {number}");
    });
}

/// Rows of a queue that several nodes share have envelopes alone, in the same formats.
#[test]
fn envelopes_alone() {
    for number in OLDEST..=FORMAT {
        let path = format!("{}/tests/formats/spool-segment-{number}.seg", env!("CARGO_MANIFEST_DIR"));
        let bytes = std::fs::read(path).unwrap();
        let header = Header::read(&bytes).unwrap();
        let lengths = record::Lengths::read(header.mark, &bytes[header::LENGTH..]).unwrap();
        // The head begins with the number of messages, and then the first one's envelope.
        let head = &bytes[header::LENGTH + record::BEFORE..][..lengths.head];
        let found = (2..head.len()).find_map(|end| Entry::read(number, &head[1..end]).map(|entry| (end, entry)));
        let (end, entry) = found.unwrap();
        if number > 2 {
            assert_eq!(entry, entries(number)[0], "format {number}");
        }
        for other in [OLDEST - 1, FORMAT + 1, u16::MAX] {
            assert_eq!(Entry::read(other, &head[1..end]), None, "format {other}");
        }
        assert_eq!(Entry::read(FORMAT, &entry.to_bytes().unwrap()), Some(entry));
    }
}

#[test]
fn checkpoints() {
    let format = Format { name: "spool-checkpoint", extension: "sum", oldest: OLDEST, current: FORMAT };
    let (segment, checkpoint) = written();
    format.check(&checkpoint, |number, bytes| {
        let end = u64::from_le_bytes(bytes[16..24].try_into().unwrap());
        let of = header(FORMAT);
        let read = checkpoint::read(&of, end, bytes);
        // A cache: one of another format is told from a damaged one, and replaced.
        assert_eq!(checkpoint::is_foreign(&of, end, bytes), number != FORMAT);
        let logged: Option<Vec<_>> = read.and_then(|frames| frames.map(|frame| Some(frame?.logged)).collect());
        assert_eq!(logged, (number == FORMAT).then(|| records(FORMAT).to_vec()));
        assert!(number != FORMAT || end == segment.len() as u64);
    });
}

#[test]
fn envelopes_that_are_kept_as_json() {
    let [mut first, _] = entries(FORMAT);
    // A few are enough to be read by people.
    first.recipients.truncate(8);
    let format = Format { name: "envelope", extension: "json", oldest: 1, current: 2 };
    format.check(&first.to_json().unwrap(), |number, bytes| {
        // Only people and their scripts read these.
        let json: serde_json::Value = serde_json::from_slice(bytes).unwrap();
        assert_eq!(json["id"], first.id.to_string());
        assert_eq!(json["sender"]["reverse_path"]["Address"], "bob@sender.example");
        assert_eq!(json["recipients"][1]["rcpt"]["address"], "user1@contoso.com");
        assert_eq!(json["recipients"][1]["route"]["connector"], "exchange");
        let is_now = serde_json::from_value::<Entry>(json).ok() == Some(first.clone());
        assert_eq!(is_now, number == 2);
    });
}
