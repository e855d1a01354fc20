//! A message and a header for the unit tests of this folder.

use super::entry::{Content, Entry, Queued, RecipientState};
use super::header::{FORMAT, Header};
use crate::message::header::Identity;
use crate::message::queue_id::QueueId;
use crate::routing::verdict::{Route, RouteKind};
use crate::smtp::address::{Address, ReversePath};
use crate::smtp::envelope::{Body, Origin, RcptTo, Sender};
use crate::time::{QueueTime, UnixTime};

/// A message for two recipients that are due.
pub(crate) fn entry(id: QueueId, size: u64) -> Entry {
    let queued = |address: &str| {
        let address = Address::parse(address).unwrap();
        let next_hop_domain = address.domain().clone();
        let route =
            Route { connector: "exchange".into(), rcpt_to: address.clone(), next_hop_domain, way: RouteKind::Resolved };
        Queued { rcpt: RcptTo { address, notify: None, orcpt: None }, route, state: RecipientState::due(UnixTime(5)) }
    };
    let identity = Identity { message_id: true, date: true, from: true, digest: [1; 16], id_and_date: [2; 16] };
    Entry {
        id,
        received_at: UnixTime(5),
        queued_at: QueueTime(5),
        origin: Origin::report(),
        sender: Sender {
            reverse_path: ReversePath::Null,
            size: None,
            body: Body::SevenBit,
            smtputf8: false,
            ret: None,
            envid: None,
        },
        content: Content {
            size,
            header_size: 0,
            ascii_header: true,
            eight_bit: false,
            bare_lf: false,
            identity,
            message_id: "<1@x>".into(),
        },
        stamps: Vec::new(),
        recipients: vec![queued("a@contoso.com"), queued("b@contoso.com")],
    }
}

/// The header of a first segment.
pub(crate) fn header() -> Header {
    Header {
        format: FORMAT,
        number: 1,
        previous: 0,
        previous_end: 0,
        first: 1,
        last_id: QueueId(0),
        mark: [7; 8],
        rewritten_end: 0,
    }
}
