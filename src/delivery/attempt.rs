//! One attempt to hand one branch to one send connector's next hops, by SMTP (DESIGN section 7, "Queue").
//!
//! `dispatch` calls [`Outbound::send`] and acts on what each recipient was told. [`hops`] says where to go, [`open`]
//! makes a connection, [`transaction`] speaks over it; `pool`, `health` and `dns` are shared by all attempts.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

pub(crate) mod answer;
pub(crate) mod black_hole;
mod body;
pub(crate) mod connection;
mod conversation;
pub(crate) mod fit;
mod hops;
mod introduce;
mod known;
pub(crate) mod lend;
pub(crate) mod loan;
mod login;
mod open;
mod places;
mod probe;
mod progress;
mod socket;
mod transaction;
pub(crate) mod trouble;
pub mod visit;

use answer::Ended;
use connection::{History, Terms};
use hops::{NextHop, NoHop, Turns};
use progress::Progress;
use trouble::{NO_ANSWER, Scope, Trouble};

use super::dns::{Dns, DnsError};
use super::health::{Change, Health, Key, Pass, Standing};
use super::pool::Pool;
use super::refused_in_a_row::RefusedInARow;
use crate::config::{SendConnector, SmtpOut};
use crate::message::envelope::{Origin, RcptTo, Sender};
use crate::metrics::Metrics;
use crate::smtp::address::Address;
use crate::smtp::domain::Domain;
use crate::smtp::reply::Reply;
use crate::spool::Stored;
use crate::spool::entry::Content;
use crate::tls::connect::TlsClients;

/// Recipients of one transaction; every server takes as many (RFC 5321 4.5.3.1.8).
const MAX_RECIPIENTS: usize = 100;

/// One branch to be sent.
pub struct Branch<'a> {
    /// The way out.
    pub connector: &'a SendConnector,
    /// Its protocol's settings.
    pub smtp: &'a Arc<SmtpOut>,
    /// The domain whose MX is asked where there are no smart hosts.
    pub next_hop_domain: &'a Domain,
    /// Where it came from.
    pub origin: &'a Origin,
    /// What MAIL said to us.
    pub sender: &'a Sender,
    /// What is known of the content.
    pub content: &'a Content,
    /// Header fields that go before the content: our stamp, or nothing. CRLF line ends.
    pub prefix: &'a [u8],
    /// The content.
    pub body: Stored,
    /// The recipients.
    pub recipients: &'a [Target<'a>],
}

/// One recipient of a branch.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// What RCPT TO carries.
    pub rcpt_to: &'a Address,
    /// What RCPT said to us.
    pub rcpt: &'a RcptTo,
}

/// What became of one recipient of a branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handed {
    /// Which next hop answered: `name[address]:port`; empty if none was reached.
    pub next_hop: Arc<str>,
    /// How.
    pub result: HandedResult,
}

/// How one recipient's attempt ended, after the table "what the next hop says".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HandedResult {
    /// The next hop took it.
    Accepted {
        /// What it said to the final dot.
        reply: Reply,
        /// Whether it offers DSN, so that NOTIFY=SUCCESS is its business now.
        dsn: bool,
    },
    /// Not now: 4xx, unreachable, or a fault between us and the next hop. The reply is what the queue shows.
    Deferred(Reply),
    /// The next hop does not know the recipient: the directory is asked live before this is believed.
    UnknownRecipient(Reply),
    /// Refused for good, by the next hop or, where its extensions do not allow the message, by us.
    Refused(Reply),
}

/// The way out by SMTP: pools, health of next hops, DNS. Cloning shares it.
#[derive(Clone)]
pub struct Outbound {
    shared: Arc<Shared>,
}

/// What all attempts share.
struct Shared {
    dns: Dns,
    health: Health,
    pool: Arc<Pool>,
    places: places::Places,
    refusals: Mutex<HashMap<Key, RefusedInARow>>,
    turns: Turns,
    tls: TlsClients,
    own_listeners: Mutex<Arc<[SocketAddr]>>,
    metrics: Metrics,
}

impl Shared {
    fn own_listeners(&self) -> Arc<[SocketAddr]> {
        self.own_listeners.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// One branch's way out.
struct Attempt<'a> {
    shared: Arc<Shared>,
    terms: Arc<Terms>,
    connector: &'a SendConnector,
    next_hop_domain: &'a Domain,
}

/// What is sent, and to whom.
struct Message<'a> {
    origin: &'a Origin,
    sender: &'a Sender,
    content: &'a Content,
    /// Header fields of ours, before the content.
    prefix: &'a [u8],
    body: Stored,
    recipients: &'a [Target<'a>],
}

impl Outbound {
    /// A way out without connections yet.
    #[must_use]
    pub fn new(metrics: Metrics) -> Self {
        let shared = Shared {
            dns: Dns::default(),
            health: Health::default(),
            pool: Arc::new(Pool::default()),
            places: places::Places::default(),
            refusals: Mutex::default(),
            turns: Turns::default(),
            tls: TlsClients::default(),
            own_listeners: Mutex::new(Arc::new([])),
            metrics,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Tells it our own listeners, which are never a next hop.
    pub fn set_own_listeners(&self, listeners: Vec<SocketAddr>) {
        *self.shared.own_listeners.lock().unwrap_or_else(PoisonError::into_inner) = listeners.into();
    }

    /// Sends one branch, over as many transactions and next hops as it takes, and returns what became of each
    /// recipient, in their order. `ehlo` is our host name.
    pub async fn send(&self, ehlo: &Domain, branch: Branch<'_>) -> Vec<Handed> {
        let attempt = Attempt {
            shared: self.shared.clone(),
            terms: Arc::new(Terms { ehlo: ehlo.clone(), smtp: branch.smtp.clone() }),
            connector: branch.connector,
            next_hop_domain: branch.next_hop_domain,
        };
        let message = Message {
            origin: branch.origin,
            sender: branch.sender,
            content: branch.content,
            prefix: branch.prefix,
            body: branch.body,
            recipients: branch.recipients,
        };
        attempt.send(&message).await
    }
}

impl Attempt<'_> {
    /// Next hop by next hop, until every recipient has an answer.
    async fn send(&self, message: &Message<'_>) -> Vec<Handed> {
        let mut progress = Progress::new(message.recipients.len());
        match hops::hops(self).await {
            Ok(hops) => {
                let mut barred = Vec::new();
                let limit = self.connector.max_connections;
                let _place = self.shared.places.take(&self.connector.name, limit).await;
                for hop in &hops {
                    if progress.pending.is_empty() {
                        break;
                    }
                    match self.shared.health.enter(hop.key(&self.connector.name)) {
                        Ok(pass) => self.try_hop(hop, pass, (message, &mut progress)).await,
                        Err(_) => barred.push(hop),
                    }
                }
                self.wait_for_probes(&barred, message, &mut progress).await;
            }
            Err(NoHop::Refused(reply)) => {
                let refused = Handed { next_hop: "".into(), result: HandedResult::Refused(reply) };
                return vec![refused; message.recipients.len()];
            }
            Err(NoHop::Trouble(trouble)) => {
                self.log(&trouble);
                progress.last = Some(trouble);
            }
        }
        progress.finish()
    }

    /// The next hops that others are probing or have just found down.
    async fn wait_for_probes(&self, barred: &[&NextHop], message: &Message<'_>, progress: &mut Progress) {
        for hop in barred {
            if progress.pending.is_empty() {
                return;
            }
            match self.shared.health.enter_after_probe(hop.key(&self.connector.name)).await {
                Ok(pass) => self.try_hop(hop, pass, (message, &mut *progress)).await,
                Err(barred) => {
                    let text = format!("{} is down; last: {}", hop.name(), barred.reason);
                    progress.last.get_or_insert(Trouble::unreached(NO_ANSWER, text));
                }
            }
        }
    }

    /// One next hop, and what it shows of its health.
    async fn try_hop(&self, hop: &NextHop, pass: Pass<'_>, (message, progress): (&Message<'_>, &mut Progress)) {
        let result = self.converse(hop, pass.key(), message, progress).await;
        self.note_health(hop, pass, result.as_ref().err());
        if let Err(trouble) = result {
            progress.last = Some(trouble);
        }
    }

    /// What a next hop has shown of its health; `None`: it answers.
    fn note_health(&self, hop: &NextHop, pass: Pass<'_>, trouble: Option<&Trouble>) {
        let key = pass.key().clone();
        match trouble {
            None => {
                if pass.answers() == Change::News {
                    tracing::info!(send_connector = %self.connector.name, next_hop = hop.name(), "next hop answers again");
                }
            }
            Some(trouble) => {
                if pass.fails(&trouble.reply.text) == Change::News {
                    self.log(trouble);
                }
            }
        }
        if let Some(label) = &hop.label {
            let up = self.shared.metrics.next_hop_up.with_label_values(&[&*self.connector.name, label]);
            up.set(i64::from(self.shared.health.standing(&key) == Standing::Up));
        }
    }

    /// Transaction by transaction, until nobody is left who can be helped here.
    ///
    /// # Errors
    /// The next hop as a whole is in trouble.
    async fn converse(
        &self,
        hop: &NextHop,
        key: &Key,
        message: &Message<'_>,
        progress: &mut Progress,
    ) -> Result<(), Trouble> {
        let mut ready = self.shared.pool.take(key, &self.terms);
        let mut elsewhere = Vec::new();
        let result = loop {
            if progress.pending.is_empty() {
                break Ok(());
            }
            let connection = match ready.take() {
                Some(connection) => connection,
                None => match Box::pin(open::open(self, hop)).await {
                    Ok(connection) => connection,
                    Err(trouble) => break Err(trouble),
                },
            };
            let batch = progress.pending.iter().take(MAX_RECIPIENTS).copied().collect::<Vec<_>>();
            let (mut connection, told, ended) = transaction::run(connection, message, &batch).await;
            let troubles = progress.note(told, &connection, &mut elsewhere);
            if ended == Ended::Ready {
                // It may be refused another message: 421 is then no failure.
                connection.history = History::Reused;
                ready = Some(connection);
            }
            if let Some(trouble) = self.worst(troubles) {
                break Err(trouble);
            }
        };
        progress.pending.append(&mut elsewhere);
        if let (Ok(()), Some(connection)) = (&result, ready) {
            self.shared.pool.put(key.clone(), connection, self.connector.max_connections);
        }
        result
    }

    /// Logs what concerns single messages, and returns what concerns the next hop as a whole.
    fn worst(&self, troubles: Vec<Trouble>) -> Option<Trouble> {
        let (whole, single): (Vec<_>, Vec<_>) = troubles.into_iter().partition(|t| t.scope == Scope::NextHop);
        single.iter().for_each(|trouble| self.log(trouble));
        whole.into_iter().next()
    }

    fn log(&self, trouble: &Trouble) {
        trouble.log(&self.connector.name);
    }
}
