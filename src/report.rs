//! Reports to senders: delivery status notifications (RFC 3461, 3464), and storage for undeliverable ones.
//!
//! `delivery` and `session` call [`make`] with recipients' outcomes, and commit the report in one record with them.
//! [`dsn`] writes it, [`dead_letter`] keeps those that cannot be sent. docs/reports.md has an example.

use std::io;
use std::sync::Arc;

use crate::config::{Config, Host, Protocol, Retry, SendConnector};
use crate::in_force::InForce;
use crate::lookup::Freshness;
use crate::message::header;
use crate::message::queue_id::QueueId;
use crate::routing::verdict::{Route, RouteKind, Verdict};
use crate::smtp::address::{Address, ReversePath};
use crate::smtp::envelope::{Body, Notify, Origin, RcptTo, Relay, Sender};
use crate::smtp::hide::hide;
use crate::smtp::reply::Reply;
use crate::spool::entry::{Content, Entry, Outcome, Queued, RecipientState};
use crate::spool::{Draft, Spool, SpoolError};
use crate::time::{QueueTime, UnixTime};

pub mod dead_letter;
pub mod dsn;
pub mod not_sent;
mod original;
pub mod waiting;

use dead_letter::DeadLetters;
use not_sent::NotSent;
use original::Original;
use waiting::{Room, Waiting};

/// The connector's name in the route of a report that could not be routed yet (a directory was unavailable). `delivery`
/// routes it at each attempt; no configured connector has an empty name.
pub const UNDECIDED: &str = "";

/// What is reported about one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reported {
    /// Position in [`Entry::recipients`].
    pub recipient: usize,
    pub action: Action,
    /// The last reply, the next hop's or ours.
    pub reply: Reply,
    /// The next hop that gave it; empty: the reply is ours.
    pub next_hop: Arc<str>,
}

/// RFC 3464 2.3.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    Failed,
    /// Delayed; delivery is still being tried.
    Delayed,
    /// Delivered to a system that will not report success.
    Relayed,
    /// Delivered to the mailbox (Maildir).
    Delivered,
}

impl Action {
    /// The name in the Action field and in `dsn_total{action}`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Delayed => "delayed",
            Self::Relayed => "relayed",
            Self::Delivered => "delivered",
        }
    }

    /// Whether NOTIFY asks for it. Without NOTIFY: failures and delays (RFC 3461 4.1).
    pub(crate) fn is_wanted(self, notify: Option<Notify>) -> bool {
        match (notify, self) {
            (Some(Notify::Never), _) => false,
            (None, Self::Failed | Self::Delayed) => true,
            (None, Self::Relayed | Self::Delivered) => false,
            (Some(Notify::On { failure, .. }), Self::Failed) => failure,
            (Some(Notify::On { delay, .. }), Self::Delayed) => delay,
            (Some(Notify::On { success, .. }), Self::Relayed | Self::Delivered) => success,
        }
    }
}

/// The result of [`make`].
#[derive(Debug)]
pub enum Made {
    /// None is due: the sender is null (as of all reports), or NOTIFY excludes it. Or it could not be routed, and is a
    /// dead letter now.
    Nothing,
    /// It must not be sent. That was logged; the caller counts it.
    NotSent(NotSent),
    /// To be committed in one record with the outcomes that it reports.
    Report(Box<(Draft, Entry)>),
}

/// Where reports are kept.
#[derive(Clone, Copy)]
pub struct Stores<'a> {
    pub spool: &'a dyn Spool,
    /// The reports that wait.
    pub waiting: &'a Waiting,
    pub dead_letters: &'a DeadLetters,
}

/// Makes the report that is due to the sender of `about`, as a routed message of its own.
///
/// A report that cannot be routed now is queued with the connector [`UNDECIDED`]. While many reports about strangers'
/// messages are waiting, further ones return less of the message.
///
/// # Errors
/// [`SpoolError`] if its content cannot be written.
pub async fn make(
    in_force: &InForce,
    stores: Stores<'_>,
    about: &Entry,
    reported: &[Reported],
    now: UnixTime,
) -> Result<Made, SpoolError> {
    let Stores { spool, waiting, dead_letters } = stores;
    let ReversePath::Address(to) = &about.sender.reverse_path else { return Ok(Made::Nothing) };
    let due = wanted(about, reported);
    if due.is_empty() || about.origin.relay == Relay::Report {
        return Ok(Made::Nothing);
    }
    if let Some(why) = NotSent::to(to) {
        tracing::info!(queue_id = %about.id, %to, reason = why.as_str(), "no report is sent");
        return Ok(Made::NotSent(why));
    }
    let (id, queue_time) = (spool.new_id(), spool.queue_time());
    let room = if about.origin.is_stranger() { waiting.room(about.content.size) } else { Room::Whole };
    let original = Original::read(spool, room, about, &due).await;
    let text =
        write(&in_force.config, &Letter { about, due: &due, to, id: &id.to_string(), now, queue_time }, &original);
    let route = route(in_force, to, Freshness::Any, now).await;
    let mut entry = Entry {
        id,
        received_at: now,
        queued_at: queue_time,
        origin: Origin::report_about(&about.origin),
        sender: sender(&text, &in_force.config.reports.from, to),
        content: text.content,
        stamps: Vec::new(),
        recipients: vec![recipient(to, &route, UnixTime::steady())],
    };
    match route {
        Err(reply) if reply.is_permanent() => {
            let failed = Outcome::Failed { next_hop: "".into(), reply };
            entry.recipients.iter_mut().for_each(|queued| queued.state = RecipientState::Done(failed.clone()));
            let state_dir = &in_force.config.server.state_dir;
            dead_letters.keep(state_dir, &entry, &mut text.bytes.as_slice()).map_err(|e| io("dead letter", id, &e))?;
            Ok(Made::Nothing)
        }
        Ok(_) | Err(_) => Ok(Made::Report(Box::new((spool.draft(id, text.bytes)?, entry)))),
    }
}

/// Routes a report: by `[reports] deliver_to`, else by the routing decision.
///
/// # Errors
/// Why it cannot be routed, temporarily (4xx) or for good (5xx).
pub async fn route(in_force: &InForce, to: &Address, freshness: Freshness, now: UnixTime) -> Result<Route, Reply> {
    if let Some(connector) = &in_force.config.reports.deliver_to {
        return Ok(straight(connector.clone(), to));
    }
    match in_force.resolver.resolve(&Origin::report(), to, freshness, now).await.verdict {
        Verdict::Accept(route) => Ok(route),
        Verdict::Refuse(reply) => Err(reply),
    }
}

fn straight(connector: Arc<str>, to: &Address) -> Route {
    Route { connector, rcpt_to: to.clone(), next_hop_domain: to.domain().clone(), way: RouteKind::External }
}

fn recipient(to: &Address, route: &Result<Route, Reply>, now: UnixTime) -> Queued {
    let route = route.clone().unwrap_or_else(|_| straight(UNDECIDED.into(), to));
    Queued { rcpt: RcptTo { address: to.clone(), notify: None, orcpt: None }, route, state: RecipientState::due(now) }
}

/// The items of `reported` that NOTIFY asks for.
fn wanted<'a>(about: &'a Entry, reported: &'a [Reported]) -> Vec<(&'a Queued, &'a Reported)> {
    let of_entry = |reported: &'a Reported| Some((about.recipients.get(reported.recipient)?, reported));
    let pairs = reported.iter().filter_map(of_entry);
    pairs.filter(|(queued, reported)| reported.action.is_wanted(queued.rcpt.notify)).collect()
}

/// The content of a report.
struct Letter<'a> {
    about: &'a Entry,
    due: &'a [(&'a Queued, &'a Reported)],
    to: &'a Address,
    id: &'a str,
    now: UnixTime,
    queue_time: QueueTime,
}

/// A report's bytes and their properties.
struct Text {
    bytes: Vec<u8>,
    content: Content,
}

fn write(config: &Config, letter: &Letter<'_>, original: &Original) -> Text {
    let about = letter.about;
    let hidden: Vec<Reply> = letter.due.iter().map(|(queued, reported)| hidden(config, queued, reported)).collect();
    let due = letter.due.iter().zip(&hidden);
    let recipients: Vec<_> = due.map(|(due, reply)| told(config, letter, (due, reply))).collect();
    let bytes = dsn::write(&dsn::Report {
        message_id: &format!("{}.{}@{}", letter.id, letter.now.0, config.server.hostname),
        boundary: &format!("=_{}.{}", letter.id, letter.now.0),
        now: letter.now,
        reporting_mta: &config.server.hostname,
        from: &config.reports.from,
        to: letter.to,
        about: dsn::About {
            id: &about.id.to_string(),
            arrived: about.received_at,
            envid: about.sender.envid.as_deref(),
            message_id: &original.message_id(),
            returned: original.returned(),
        },
        recipients: &recipients,
    });
    let content = content(&bytes);
    Text { bytes, content }
}

fn told<'a>(
    config: &'a Config,
    letter: &Letter<'_>,
    ((queued, reported), reply): (&(&'a Queued, &'a Reported), &'a Reply),
) -> dsn::Recipient<'a> {
    let connector = config.send_connector(&queued.route.connector);
    let give_up_after = connector.map_or(Retry::DEFAULT.give_up_after, |connector| connector.retry.give_up_after);
    let age = letter.queue_time.since(ages_from(letter.about, queued));
    dsn::Recipient {
        address: &queued.rcpt.address,
        orcpt: queued.rcpt.orcpt.as_deref(),
        action: reported.action,
        reply,
        speaker: connector.map_or(dsn::Speaker::Ourselves, |connector| speaker(connector, &reported.next_hop)),
        // An estimate: the age advances only while the program runs.
        retry_until: letter.now.plus(give_up_after.saturating_sub(age)),
    }
}

/// The start of a recipient's age.
fn ages_from(about: &Entry, queued: &Queued) -> QueueTime {
    let later = match &queued.state {
        RecipientState::Waiting(waiting) => waiting.ages_from,
        RecipientState::Held(_) | RecipientState::Done(_) => None,
    };
    later.unwrap_or(about.queued_at)
}

/// The last reply, with internal names removed (`hide_internal_hosts`). Replies of ours may contain names as well: an
/// expiry quotes the next hop's last reply.
fn hidden(config: &Config, queued: &Queued, reported: &Reported) -> Reply {
    let connector = config.send_connector(&queued.route.connector);
    let mut names = vec![host_name(&reported.next_hop)];
    let mut text = reported.reply.text.to_string();
    if let Some(Protocol::Smtp(smtp)) = connector.map(|connector| &connector.protocol) {
        if !smtp.hide_internal_hosts {
            return reported.reply.clone();
        }
        for smart_host in &smtp.smart_hosts {
            match &smart_host.host {
                Host::Name(name) => names.push(name),
                Host::Unix(_) => text = text.replace(&smart_host.to_string(), "[hidden]"),
                Host::Address(_) => {}
            }
        }
    }
    reported.reply.saying(hide(&text, &names))
}

/// The name in `name[address]:port`; empty for a Unix socket.
fn host_name(next_hop: &str) -> &str {
    if next_hop.starts_with("unix:") { "" } else { next_hop.split(['[', ':']).next().unwrap_or_default() }
}

/// The organisation, and the host unless the connector hides it. `next_hop` is `name[address]:port` or `unix:PATH`.
fn speaker<'a>(connector: &'a SendConnector, next_hop: &'a str) -> dsn::Speaker<'a> {
    match &connector.protocol {
        Protocol::Smtp(smtp) if !next_hop.is_empty() => {
            let host = if smtp.hide_internal_hosts { "" } else { host_name(next_hop) };
            dsn::Speaker::NextHop { organization: &connector.organization, host }
        }
        Protocol::Smtp(_) | Protocol::Maildir(_) => dsn::Speaker::Ourselves,
    }
}

/// The properties of a report's content. `dsn` writes no bare CR or LF.
fn content(bytes: &[u8]) -> Content {
    let end = memchr::memmem::find(bytes, b"\r\n\r\n").map_or(bytes.len(), |at| at + 2);
    let section = bytes.get(..end).unwrap_or_default();
    let facts = header::examine(section);
    Content {
        size: bytes.len() as u64,
        header_size: section.len() as u64,
        ascii_header: facts.ascii,
        eight_bit: !bytes.is_ascii(),
        bare_lf: false,
        identity: facts.identity,
        message_id: facts.message_id_shown(),
    }
}

fn sender(text: &Text, from: &Address, to: &Address) -> Sender {
    let international = !text.content.ascii_header || !from.is_ascii() || !to.is_ascii();
    Sender {
        reverse_path: ReversePath::Null,
        size: Some(text.content.size),
        body: if text.content.eight_bit { Body::EightBitMime } else { Body::SevenBit },
        smtputf8: international,
        ret: None,
        envid: None,
    }
}

fn io(what: &str, id: QueueId, error: &io::Error) -> SpoolError {
    SpoolError::Io(format!("{what} {id}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notify_decides_who_is_told() {
        use Action::{Delayed, Delivered, Failed, Relayed};
        let on = |success, failure, delay| Some(Notify::On { success, failure, delay });
        for (notify, told) in [
            (None, vec![Failed, Delayed]),
            (Some(Notify::Never), vec![]),
            (on(true, false, false), vec![Relayed, Delivered]),
            (on(false, true, false), vec![Failed]),
            (on(false, false, true), vec![Delayed]),
            (on(true, true, true), vec![Failed, Delayed, Relayed, Delivered]),
        ] {
            let all = [Failed, Delayed, Relayed, Delivered];
            let wanted: Vec<_> = all.into_iter().filter(|action| action.is_wanted(notify)).collect();
            assert_eq!(wanted, told, "{notify:?}");
        }
    }
}
