//! One transaction: the configuration it began with, its sender, and where its recipients go.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinError;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use super::content_buffer::Writing;
use super::loop_check::Passed;
use super::{Client, Services};
use crate::config::ReceiveConnector;
use crate::delivery::cut_through::Branches;
use crate::delivery::dispatch::UnderWay;
use crate::delivery::memory::Memory;
use crate::in_force::InForce;
use crate::lookup::{Behalf, Freshness, Standing};
use crate::message::received::With;
use crate::pressure::held::{Held, cost};
use crate::resolve::About;
use crate::routing::table::Table;
use crate::routing::verdict::{Answers, Decision, Reason, Route, Verdict};
use crate::smtp::address::{Address, ReversePath};
use crate::smtp::command::{ForwardPath, Rcpt};
use crate::smtp::envelope::{Origin, RcptTo, Relay, Sender};
use crate::smtp::reply::{self, Reply};
use crate::smtp::server::{Hello, Limits, Server};
use crate::time::UnixTime;
use crate::trace::{Event, What};

pub(super) struct Transaction {
    pub(super) in_force: Arc<InForce>,
    pub(super) connector: Arc<ReceiveConnector>,
    pub(super) origin: Arc<Origin>,
    pub(super) sender: Sender,
    /// On whose behalf directories are asked.
    pub(super) behalf: Behalf,
    /// The priority of its questions to directories.
    pub(super) standing: Standing,
    /// RCPTs that are being routed, oldest first; they are answered in this order.
    pub(super) asked: VecDeque<(RcptTo, Deciding)>,
    /// Replies that have not been sent yet.
    pub(super) answers: VecDeque<Answer>,
    /// The number of the last RCPT.
    pub(super) last_number: usize,
    pub(super) recipients: Vec<Accepted>,
    /// How many of these recipients were counted as accepted for the client.
    pub(super) counted: usize,
    /// The part of the transaction that is with next hops already.
    pub(super) branches: Branches,
    /// Branches whose next hops are not waited for any more: the queue gets their outcome.
    pub(super) under_way: Vec<UnderWay>,
    /// Whether its content is sent to next hops as it comes.
    pub(super) streams: bool,
    pub(super) began: Instant,
    pub(super) content: Option<(Passed, Writing)>,
    /// Its reservation of memory.
    pub(super) held: Held,
}

/// The reply to a RCPT, and its delay.
pub(super) struct Answer {
    pub(super) reply: Reply,
    pub(super) late: Duration,
}

impl From<Reply> for Answer {
    /// Without a delay.
    fn from(reply: Reply) -> Self {
        Self { reply, late: Duration::ZERO }
    }
}

/// A routing decision, in progress or made.
pub(super) enum Deciding {
    /// Made without asking a directory.
    Made(Decision),
    /// A directory is being asked.
    Asking(AbortOnDropHandle<Decision>),
}

impl Deciding {
    /// Whether it is made.
    pub(super) fn is_decided(&self) -> bool {
        match self {
            Self::Made(_) => true,
            Self::Asking(handle) => handle.is_finished(),
        }
    }

    /// Waits for the decision.
    ///
    /// # Errors
    /// The task panicked or was cancelled.
    pub(super) async fn decided(self) -> Result<Decision, JoinError> {
        match self {
            Self::Made(decision) => Ok(decision),
            Self::Asking(handle) => handle.await,
        }
    }
}

/// A recipient that RCPT accepted.
pub(super) struct Accepted {
    /// Its number among all RCPTs, by which branches identify it.
    pub(super) number: usize,
    pub(super) rcpt: RcptTo,
    pub(super) route: Route,
    /// The reasons for its route, for the trace.
    pub(super) reasons: Vec<Reason>,
}

impl Transaction {
    /// MAIL: takes the configuration in force, and replaces the client's receive connector by the one in it.
    pub(super) fn begin(
        services: &Services,
        client: &mut Client,
        sender: Sender,
        hello: Option<Hello>,
    ) -> Result<Box<Self>, Reply> {
        if !services.pressure.has_room(client.whose(), sender.size.unwrap_or_default()) {
            return Err(reply::INSUFFICIENT_STORAGE);
        }
        let in_force = services.current.load_full();
        let Some((connector, chosen_by)) = client.door(&in_force.config) else {
            tracing::info!("no receive connector serves the client any more");
            return Err(reply::SHUTTING_DOWN);
        };
        client.connector = connector.clone();
        let origin = client.origin(chosen_by, hello.as_ref());
        let ehlo = in_force.config.server.hostname.clone();
        let behalf = behalf(&connector, &origin, &sender);
        let standing = standing(&services.memory, &connector, &origin);
        Ok(Box::new(Self {
            connector,
            behalf,
            standing,
            branches: Branches::new(services.outbound.clone(), ehlo),
            under_way: Vec::new(),
            began: Instant::now(),
            streams: false,
            in_force,
            origin: Arc::new(origin),
            sender,
            asked: VecDeque::new(),
            answers: VecDeque::new(),
            last_number: 0,
            recipients: Vec::new(),
            counted: 0,
            content: None,
            held: services.pressure.hold(),
        }))
    }

    pub(super) fn limits(&self) -> Limits {
        Limits {
            max_message_size: self.connector.max_message_size,
            max_header_size: self.connector.max_header_size,
            max_recipients: self.connector.max_recipients,
        }
    }

    /// RCPT: starts the decision.
    pub(super) fn ask(&mut self, services: &Services, rcpt: Rcpt) {
        let address = match rcpt.to {
            ForwardPath::Mailbox(address) => address,
            ForwardPath::Postmaster => self.postmaster(),
        };
        let cost = cost(&address, rcpt.orcpt.as_deref());
        if self.origin.is_stranger() && !self.held.has_room(cost) {
            let verdict = Verdict::Refuse(reply::INSUFFICIENT_STORAGE);
            let decision = Decision { address: address.clone(), verdict, reasons: Vec::new() };
            return self.asked.push_back((RcptTo { address, notify: None, orcpt: None }, Deciding::Made(decision)));
        }
        let (freshness, now) = (Freshness::Any, UnixTime::now());
        let is_good = || services.memory.good().is_good(&address, services.memory.queue_time());
        let standing = if self.standing != Standing::Known && is_good() { Standing::Known } else { self.standing };
        let about = About { origin: &self.origin, address: &address, freshness, now, behalf: &self.behalf, standing };
        let deciding = match self.in_force.resolver.at_once(&about) {
            Ok(decision) => Deciding::Made(decision),
            Err(answers) => {
                let (in_force, origin, asked) = (self.in_force.clone(), self.origin.clone(), address.clone());
                let behalf = self.behalf.clone();
                let asking = async move {
                    let about = About { origin: &origin, address: &asked, freshness, now, behalf: &behalf, standing };
                    in_force.resolver.go_on(&about, answers).await
                };
                Deciding::Asking(AbortOnDropHandle::new(tokio::spawn(asking.in_current_span())))
            }
        };
        self.asked.push_back((RcptTo { address, notify: rcpt.notify, orcpt: rcpt.orcpt }, deciding));
    }

    /// Reserves memory for a header section of this many octets that is incomplete. `false`: there is none; strangers
    /// may not use all of it.
    pub(super) fn collects(&mut self, octets: usize) -> bool {
        self.held.content(octets as u64);
        !self.origin.is_stranger() || self.held.has_room(0)
    }

    /// The address that `<postmaster>` without a domain stands for (RFC 5321 4.5.1).
    fn postmaster(&self) -> Address {
        let config = &self.in_force.config;
        Address::postmaster(&config.routing.accepted.postmaster(&config.server.hostname))
    }

    /// Routes a recipient again with live answers.
    pub(super) async fn resolve_live(&self, address: &Address, now: UnixTime) -> Decision {
        let freshness = Freshness::Live;
        let (behalf, standing) = (&self.behalf, self.standing);
        let about = About { origin: &self.origin, address, freshness, now, behalf, standing };
        self.in_force.resolver.go_on(&about, Answers::default()).await
    }

    /// Starts storing content after the header section was accepted: our Received field comes first, then the header
    /// section.
    pub(super) async fn start_content(&mut self, services: &Services, with: With, mut passed: Passed) {
        let most = self.connector.max_message_size;
        let share = services.pressure.share(self.sender.size.map_or(most, |size| size.min(most)));
        let mut writing = Writing::new(services.spool.clone(), &self.origin, with, &self.in_force, share);
        writing.append(&std::mem::take(&mut passed.section)).await;
        self.held.content(writing.in_memory());
        self.content = Some((passed, writing));
    }

    /// A trace event of this transaction, to be completed.
    pub(super) fn event<'a>(&'a self, session: &'a str, what: What) -> Event<'a> {
        Event {
            at: UnixTime::now(),
            id: "".into(),
            session: session.into(),
            what,
            sender: self.sender.reverse_path.as_str().into(),
            recipient: "".into(),
            message_id: "".into(),
            connector: (&*self.connector.name).into(),
            detail: "".into(),
            sum: None,
            attempt: None,
        }
    }
}

/// On whose behalf a client asks. A client that is not a stranger, or is known by its network, may bring many
/// strangers' mail.
fn behalf(connector: &ReceiveConnector, origin: &Origin, sender: &Sender) -> Behalf {
    let trusted =
        !connector.organization.is_empty() || origin.relay == Relay::Anywhere || connector.is_for_known_networks();
    match origin.client.filter(|_| !trusted) {
        Some(client) => Behalf::client(client),
        None => Behalf::Sender(match &sender.reverse_path {
            ReversePath::Null => "".into(),
            ReversePath::Address(address) => address.domain().as_str().to_lowercase().into(),
        }),
    }
}

/// The priority of its questions to directories.
fn standing(memory: &Memory, connector: &ReceiveConnector, origin: &Origin) -> Standing {
    let sent_mail = || origin.client.is_some_and(|client| memory.clients().knows(client, UnixTime::steady()));
    if !origin.is_stranger() || origin.relay == Relay::Anywhere {
        Standing::Known
    } else if !connector.organization.is_empty() || connector.is_for_known_networks() || sent_mail() {
        Standing::Network
    } else {
        Standing::Stranger
    }
}

/// The `with` clause of our Received field.
pub(super) fn with(machine: &Server, sender: &Sender) -> With {
    match (machine.hello(), machine.is_encrypted()) {
        (Some(Hello::Ehlo(_)), true) if machine.is_authenticated() && sender.smtputf8 => With::Utf8Smtpsa,
        (Some(Hello::Ehlo(_)), true) if machine.is_authenticated() => With::Esmtpsa,
        (Some(Hello::Ehlo(_)), true) if sender.smtputf8 => With::Utf8Smtps,
        (Some(Hello::Ehlo(_)), false) if sender.smtputf8 => With::Utf8Smtp,
        (Some(Hello::Ehlo(_)), true) => With::Esmtps,
        (Some(Hello::Ehlo(_)), false) => With::Esmtp,
        (Some(Hello::Helo(_)) | None, _) => With::Smtp,
    }
}

/// All reasons on one line.
pub(super) fn join_reasons(reasons: &[Reason]) -> String {
    let mut text = String::with_capacity(reasons.len() * 100);
    for reason in reasons {
        text.push_str(if text.is_empty() { "" } else { "; " });
        let _ = write!(text, "{reason}"); // writing to a String cannot fail
    }
    text
}

/// Whether a refusal comes from a row that breaks a loop before anything is sent (DESIGN section 6, rule 1).
pub(super) fn is_loop(row: Option<u8>, refusal: &Reply) -> bool {
    row == Some(10) || *refusal == reply::ROUTING_LOOP
}

/// The label of `recipients_total{domain}`: the accepted domain's pattern, or `other`.
pub(super) fn domain_label(table: &Table, address: &Address) -> String {
    table.accepted.find(address.domain()).map_or_else(|| "other".to_owned(), |accepted| accepted.pattern.to_string())
}
