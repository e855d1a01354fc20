//! The envelope of an exported message as JSON: everything that is needed to send it by hand. docs/commands.md has the
//! fields.

use std::net::IpAddr;

use serde::Serialize;

use crate::smtp::client::commands::{MailParameters, mail, rcpt_with_dsn};
use crate::smtp::envelope::{Body, Ret};
use crate::smtp::reply::Reply;
use crate::spool::entry::{Entry, HeldFor, Outcome, Queued, RecipientState};
use crate::time::UnixTime;

/// Changes whenever a field changes its name or meaning.
const FORMAT: u16 = 1;

#[derive(Debug, Serialize)]
pub(super) struct Envelope {
    format: u16,
    id: String,
    received_at: UnixTime,
    receive_connector: String,
    client: Option<IpAddr>,
    helo: String,
    sender: String,
    mail: String,
    size: u64,
    body: &'static str,
    smtputf8: bool,
    ret: Option<&'static str>,
    envid: Option<String>,
    message_id: String,
    content: &'static str,
    recipients: Vec<Recipient>,
}

#[derive(Debug, Serialize)]
struct Recipient {
    address: String,
    rcpt_to: String,
    rcpt: String,
    connector: String,
    next_hop_domain: String,
    /// Whether the recipient is still to get it.
    send: bool,
    #[serde(flatten)]
    standing: Standing,
}

#[derive(Debug, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
enum Standing {
    Waiting { attempts: u32, next_attempt: UnixTime, last_error: String, may_have_arrived: bool },
    Held { why: String },
    Delivered { next_hop: String, reply: String },
    Failed { next_hop: String, reply: String },
    Dropped,
}

/// The state of an exported content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Is {
    /// Its checksum is right.
    Whole,
    /// Its length is right; formats before 4 have no checksum for large contents.
    NotChecked,
    /// Its checksum is wrong.
    Damaged,
    Missing,
}

impl Is {
    /// Compares the expected checksum with that of the content.
    pub(super) fn of(sum: Option<u32>, found: u32) -> Self {
        match sum {
            None => Self::NotChecked,
            Some(sum) if sum == found => Self::Whole,
            Some(_) => Self::Damaged,
        }
    }

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::NotChecked => "not-checked",
            Self::Damaged => "damaged",
            Self::Missing => "missing",
        }
    }
}

/// Whether any recipient is still to get it.
pub(super) fn has_somebody_to_send_to(entry: &Entry) -> bool {
    entry.recipients.iter().any(|queued| is_to_be_sent(&queued.state))
}

fn is_to_be_sent(state: &RecipientState) -> bool {
    match state {
        RecipientState::Waiting(_) | RecipientState::Held(HeldFor::NoConnector) => true,
        RecipientState::Held(HeldFor::Drop) | RecipientState::Done(_) => false,
    }
}

impl Envelope {
    /// The envelope of a message with its content's state.
    pub(super) fn of(entry: &Entry, content: Is) -> Self {
        let (origin, sender) = (&entry.origin, &entry.sender);
        let eight_bit_mime = sender.body == Body::EightBitMime;
        let with = MailParameters { size: None, eight_bit_mime, smtputf8: sender.smtputf8, dsn: true };
        let mut line = String::new();
        mail(sender.reverse_path.as_str(), sender, &with, &mut line);
        Self {
            format: FORMAT,
            id: entry.id.to_string(),
            received_at: entry.received_at,
            receive_connector: origin.receive_connector.to_string(),
            client: origin.client,
            helo: origin.helo.clone(),
            sender: sender.reverse_path.as_str().to_owned(),
            mail: line.trim_end().to_owned(),
            size: entry.content.size,
            body: if eight_bit_mime { "8BITMIME" } else { "7BIT" },
            smtputf8: sender.smtputf8,
            ret: sender.ret.map(|ret| if ret == Ret::Full { "FULL" } else { "HDRS" }),
            envid: sender.envid.clone(),
            message_id: entry.content.message_id.clone(),
            content: content.word(),
            recipients: entry.recipients.iter().map(Recipient::of).collect(),
        }
    }
}

impl Recipient {
    fn of(queued: &Queued) -> Self {
        let Queued { rcpt, route, state } = queued;
        let mut line = String::new();
        rcpt_with_dsn(route.rcpt_to.as_str(), &route.rcpt_to, rcpt, &mut line);
        Self {
            address: rcpt.address.to_string(),
            rcpt_to: route.rcpt_to.to_string(),
            rcpt: line.trim_end().to_owned(),
            connector: route.connector.to_string(),
            next_hop_domain: route.next_hop_domain.to_string(),
            send: is_to_be_sent(state),
            standing: Standing::of(state, &route.connector),
        }
    }
}

impl Standing {
    fn of(state: &RecipientState, connector: &str) -> Self {
        let said = |next_hop: &str, reply: &Reply| (next_hop.to_owned(), reply.to_string());
        match state {
            RecipientState::Waiting(waiting) => Self::Waiting {
                attempts: waiting.attempts,
                next_attempt: waiting.next_attempt,
                last_error: waiting.last_error.clone(),
                may_have_arrived: waiting.in_doubt > 0,
            },
            RecipientState::Held(held) => Self::Held { why: held.words(connector).to_string() },
            RecipientState::Done(Outcome::Delivered { next_hop, reply }) => {
                let (next_hop, reply) = said(next_hop, reply);
                Self::Delivered { next_hop, reply }
            }
            RecipientState::Done(Outcome::Failed { next_hop, reply }) => {
                let (next_hop, reply) = said(next_hop, reply);
                Self::Failed { next_hop, reply }
            }
            RecipientState::Done(Outcome::Dropped) => Self::Dropped,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::Format;
    use crate::spool::{formats, header};

    #[test]
    fn its_format() {
        let [first, second] = formats::entries(header::FORMAT);
        let both = [Envelope::of(&first, Is::Whole), Envelope::of(&second, Is::NotChecked)];
        let format = Format { name: "queue-export", extension: "json", oldest: 1, current: FORMAT };
        format.check(&serde_json::to_vec_pretty(&both).unwrap(), |number, bytes| {
            let json: serde_json::Value = serde_json::from_slice(bytes).unwrap();
            assert_eq!(json[0]["format"], number);
            assert_eq!(
                json[0]["mail"],
                "MAIL FROM:<bob@sender.example> BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=QQ314159"
            );
            assert_eq!(
                json[0]["recipients"][1]["rcpt"],
                "RCPT TO:<anna@exchange.contoso.com> NOTIFY=NEVER ORCPT=rfc822;Anna@contoso.com"
            );
            let send: Vec<bool> = (0..8).map(|at| json[0]["recipients"][at]["send"].as_bool().unwrap()).collect();
            assert_eq!(send, [true, true, true, true, false, false, false, false]);
            assert_eq!((&json[1]["sender"], &json[1]["mail"]), (&"".into(), &"MAIL FROM:<>".into()));
        });
    }
}
