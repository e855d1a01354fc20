//! Messages for the unit tests of the queue.

use crate::message::header::Identity;
use crate::message::queue_id::QueueId;
use crate::routing::verdict::{Route, RouteKind};
use crate::smtp::address::{Address, ReversePath};
use crate::smtp::envelope::{Body, Origin, RcptTo, Relay, Sender};
use crate::spool::entry::{Content, Entry, Queued, RecipientState};
use crate::time::{QueueTime, UnixTime};

/// A route to an address over a connector.
pub(super) fn route(address: &str, connector: &str) -> Route {
    let address = Address::parse(address).unwrap();
    let next_hop_domain = address.domain().clone();
    Route { connector: connector.into(), rcpt_to: address, next_hop_domain, way: RouteKind::Resolved }
}

/// A report about a message from a stranger, or from an organisation of ours.
pub(super) fn report(id: u64, organization: &str, recipients: &[(&str, &str, RecipientState)]) -> Entry {
    let organization = organization.into();
    let about = Origin { receive_connector: "internet".into(), organization, ..Origin::report() };
    let about = Origin { relay: Relay::AcceptedDomains, ..about };
    let sender = Sender { reverse_path: ReversePath::Null, ..entry(id, &[]).sender };
    Entry { origin: Origin::report_about(&about), sender, ..entry(id, recipients) }
}

/// A message from Alice, received at 10,000, with these recipients (address, connector, state).
pub(super) fn entry(id: u64, recipients: &[(&str, &str, RecipientState)]) -> Entry {
    let queued = |(address, connector, state): &(&str, &str, RecipientState)| Queued {
        rcpt: RcptTo { address: Address::parse(address).unwrap(), notify: None, orcpt: None },
        route: route(address, connector),
        state: state.clone(),
    };
    Entry {
        id: QueueId(id),
        received_at: UnixTime(10_000),
        queued_at: QueueTime(10_000),
        origin: Origin { relay: Relay::AcceptedDomains, ..Origin::report() },
        sender: Sender {
            reverse_path: ReversePath::Address(Address::parse("alice@example.net").unwrap()),
            size: None,
            body: Body::SevenBit,
            smtputf8: false,
            ret: None,
            envid: None,
        },
        content: Content {
            size: 0,
            header_size: 0,
            ascii_header: true,
            eight_bit: false,
            bare_lf: false,
            identity: Identity { message_id: true, date: true, from: true, digest: [0; 16], id_and_date: [0; 16] },
            message_id: String::new(),
        },
        stamps: Vec::new(),
        recipients: recipients.iter().map(queued).collect(),
    }
}
