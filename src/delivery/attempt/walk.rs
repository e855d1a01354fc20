//! Tries a branch's next hops until a connection is ready for MAIL; used by the queue and cut-through.
//!
//! A connection from the pool comes first. If several hosts are up and the first does not greet, the next one is tried
//! concurrently ([`beside`]): the first that is ready is used, a later one goes into the pool. If all others have
//! failed, hosts that are full are waited for; hosts that are down come last, and only after a successful test.

use std::collections::VecDeque;

use tokio::time::{Instant, timeout};

mod beside;

use super::checkout::{Checkout, HeldSlots, Others};
use super::connection::Connection;
use super::conversation::Reuse;
use super::next_hop_error::{NO_ANSWER, NextHopError, Scope};
use super::next_hops::{self, NextHop, NoHop};
use super::{WayOut, open};
use crate::delivery::health::{Key, Standing};
use crate::delivery::slots::{AtGreeting, HostSlot, Slot, Vouched};
use crate::smtp::reply::Reply;

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum NoWay {
    /// Our refusal of the recipients.
    Refused(Reply),
    /// A temporary failure.
    NextHopError(NextHopError),
}

/// The state of the walk.
pub(crate) struct Walk {
    out: WayOut,
    /// Hosts that are up and not tried yet.
    ahead: VecDeque<NextHop>,
    /// Hosts that are up and accept no further connection.
    full: VecDeque<NextHop>,
    /// Hosts that were down when the walk began.
    down: Vec<NextHop>,
    /// The connector's slot, while no connection has it.
    slot: Option<Slot>,
    last: Option<NextHopError>,
}

/// A connection that was opened, or found in the pool.
struct Found {
    hop: NextHop,
    connection: Connection,
    slots: HeldSlots,
}

impl WayOut {
    /// Lists the next hops, except those in `tried`, and waits for a slot.
    pub(crate) async fn walk(&self, tried: &[Key]) -> Result<Walk, NoWay> {
        let found = match timeout(self.waits.connect.max(self.waits.greeting), next_hops::hops(self)).await {
            Ok(found) => found,
            Err(_) => {
                self.tried();
                let text = format!("DNS did not say within {:?} where to go", self.waits.connect);
                return Err(NoWay::NextHopError(NextHopError::ours(text)));
            }
        };
        let hops = match found {
            Ok(hops) => hops,
            Err(NoHop::Refused(reply)) => return Err(NoWay::Refused(reply)),
            Err(NoHop::NextHopError(error)) => {
                self.tried();
                self.log(&error);
                return Err(NoWay::NextHopError(error));
            }
        };
        let name = &self.connector.name;
        let is_new = |hop: &NextHop| tried.is_empty() || !tried.contains(&hop.key(name));
        let (mut ahead, mut down) = (VecDeque::new(), Vec::new());
        for hop in hops.into_iter().filter(is_new) {
            match self.shared.health.standing(&hop.key(name)) {
                Standing::Up => ahead.push_back(hop),
                Standing::Down(_) => down.push(hop),
            }
        }
        // Hosts that are down are tested at the same time.
        down.iter().for_each(|hop| self.begin_test(hop));
        let slot = Some(self.slot().await.map_err(NoWay::NextHopError)?);
        // Others may have found out meanwhile.
        let is_down = |hop: &NextHop| matches!(self.shared.health.standing(&hop.key(name)), Standing::Down(_));
        down.extend(ahead.iter().filter(|hop| is_down(hop)).cloned());
        ahead.retain(|hop| !is_down(hop));
        Ok(Walk { out: self.clone(), ahead, full: VecDeque::new(), down, slot, last: None })
    }

    /// Waits for one of the connector's connection slots, unless other nodes have all of them for longer than that.
    async fn slot(&self) -> Result<Slot, NextHopError> {
        let max = self.connector.max_connections;
        if self.shared.slots.share().wait_for(max) > self.waits.slot {
            return Err(NextHopError::ours(format!("other nodes have the {max} connections now")));
        }
        let taking = self.shared.slots.take(&self.connector.name, max, self.applicant);
        let waited = || {
            let limit = self.limit();
            let whose = match self.applicant.vouched {
                Vouched::Yes => "",
                Vouched::No => " that recipients may have for whom nobody vouches, half of them,",
            };
            NextHopError::ours(format!("all {limit} connections{whose} were busy for {:?}", self.waits.slot))
        };
        timeout(self.waits.slot, taking).await.map_err(|_| waited())
    }

    /// Keeps a connection for the next message, unless the next hop may soon close it.
    pub(super) fn keep(&self, hop: &NextHop, connection: Connection) {
        if connection.refusals >= RETIRED {
            tokio::spawn(connection.quit());
            return;
        }
        self.shared.pool.put(hop.key(&self.connector.name), connection, self.idle_limit());
    }
}

/// A connection with this many refusals is not used again: servers slow it down and finally close it (Postfix:
/// smtpd_soft_error_limit 10, smtpd_hard_error_limit 20; Exchange: MaxProtocolErrors 5).
const RETIRED: u32 = 3;

impl Walk {
    /// A connection that is ready for MAIL; `None`: no next hop is left, and [`Walk::error`] has the reason.
    pub(crate) async fn next(&mut self) -> Option<Box<Checkout>> {
        loop {
            if self.ahead.is_empty() {
                if let Some(found) = Box::pin(self.wait_for_a_full_one()).await {
                    return Some(self.checkout(found));
                }
                if self.ahead.is_empty() && !Box::pin(self.recovered()).await {
                    return None;
                }
                continue;
            }
            if self.slot.is_none() {
                match self.out.slot().await {
                    Ok(slot) => self.slot = Some(slot),
                    Err(error) => {
                        self.last = Some(error);
                        return None;
                    }
                }
            }
            self.silent_last();
            if let Some(found) = self.pooled() {
                return Some(self.checkout(found));
            }
            // Boxed, so that messages which find a connection in the pool do not carry this future.
            if let Some(found) = Box::pin(self.dial()).await {
                return Some(self.checkout(found));
            }
        }
    }

    /// The connection came from the pool and was closed, or has too many errors: tries the same next hop again.
    pub(crate) fn again(&mut self, checkout: Box<Checkout>) {
        let (hop, slot) = checkout.into_hop();
        self.ahead.push_front(hop);
        self.slot = Some(slot);
    }

    /// The next hop failed: goes on to the next one.
    pub(crate) async fn failed(&mut self, checkout: Box<Checkout>, error: NextHopError, ended: Result<(), Reuse>) {
        self.slot = Some(checkout.leave(ended).await);
        self.last = Some(error);
    }

    /// The last next hop's error.
    pub(crate) fn error(self) -> NextHopError {
        self.last.unwrap_or_else(|| NextHopError::ours("no next hop is left to be tried".to_owned()))
    }

    fn checkout(&self, found: Found) -> Box<Checkout> {
        let Found { hop, mut connection, slots } = found;
        self.out.reached();
        connection.patience = self.out.waits.reply;
        Box::new(Checkout::new(self.out.clone(), hop, connection, slots).beside(self.others()))
    }

    /// Whether another host is left that answers, as far as is known.
    fn others(&self) -> Others {
        let (silence, name) = (&self.out.shared.silence, &self.out.connector.name);
        let answers = |hop: &NextHop| !silence.is_any() || !silence.is_silent(&hop.key(name));
        if self.ahead.iter().any(answers) { Others::Left } else { Others::None }
    }

    /// Puts silent hosts last; but a few messages at a time find out whether they still are silent.
    fn silent_last(&mut self) {
        let shared = &self.out.shared;
        if self.ahead.len() < 2 || !shared.silence.is_any() {
            return;
        }
        let (name, limit) = (&self.out.connector.name, self.out.limit());
        let (mut first, last): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.ahead).into_iter().partition(|hop| {
                let key = hop.key(name);
                !shared.silence.is_avoided(&key, shared.hosts.in_use(&key), limit)
            });
        first.extend(last);
        self.ahead = first;
    }

    /// A connection to the first host from the pool, if the host's limit allows one more in use.
    fn pooled(&mut self) -> Option<Found> {
        let key = self.ahead.front()?.key(&self.out.connector.name);
        let host = self.host_slot(&key)?;
        let connection = self.out.take_pooled(&key)?;
        let (hop, connector) = (self.ahead.pop_front()?, self.slot.take()?);
        Some(Found { hop, connection, slots: HeldSlots { connector, host } })
    }

    fn host_slot(&self, key: &Key) -> Option<HostSlot> {
        self.out.shared.hosts.try_take(key, self.out.connector.max_connections, self.out.applicant)
    }

    /// Opens a connection to the first host, or to another one if it does not greet.
    async fn dial(&mut self) -> Option<Found> {
        if self.ahead.len() > 1 {
            return self.dial_side_by_side().await;
        }
        let hop = self.ahead.pop_front()?;
        let Some(host) = self.host_slot(&hop.key(&self.out.connector.name)) else {
            self.full.push_back(hop);
            return None;
        };
        let opened = open::open(&self.out, &hop).await;
        self.opened(hop, opened, host)
    }

    /// Handles the result of opening a connection.
    fn opened(&mut self, hop: NextHop, opened: Result<Connection, NextHopError>, host: HostSlot) -> Option<Found> {
        match self.out.judge(&hop, opened, host) {
            Opened::Ready(connection, host) => {
                let connector = self.slot.take()?;
                let connection = *connection;
                Some(Found { hop, connection, slots: HeldSlots { connector, host } })
            }
            Opened::Full => {
                self.full.push_back(hop);
                None
            }
            Opened::Failed(error) => {
                self.last = Some(error);
                None
            }
        }
    }

    /// All hosts that are up are full. The connector's slot is freed during the wait, since transactions with a host's
    /// slot may need it.
    async fn wait_for_a_full_one(&mut self) -> Option<Found> {
        let hop = self.full.pop_front()?;
        self.slot = None;
        let (key, limit) = (hop.key(&self.out.connector.name), self.out.connector.max_connections);
        let waiting = self.out.shared.hosts.take(&key, limit, self.out.applicant);
        let Ok(host) = timeout(self.out.waits.slot, waiting).await else {
            let text = format!("{} had no room for another connection for {:?}", hop.name(), self.out.waits.slot);
            self.last = Some(NextHopError::ours(text));
            return None;
        };
        match self.out.slot().await {
            Ok(slot) => self.slot = Some(slot),
            Err(error) => {
                self.last = Some(error);
                return None;
            }
        }
        if let Some(connection) = self.out.take_pooled(&key) {
            let connector = self.slot.take()?;
            return Some(Found { hop, connection, slots: HeldSlots { connector, host } });
        }
        let opened = open::open(&self.out, &hop).await;
        self.opened(hop, opened, host)
    }

    /// Waits for the tests of hosts that are down; those that are up again are tried next.
    async fn recovered(&mut self) -> bool {
        let until = Instant::now() + self.out.waits.test;
        for hop in std::mem::take(&mut self.down) {
            let left = until.saturating_duration_since(Instant::now());
            if self.out.is_up_after_test(&hop, left).await {
                self.ahead.push_back(hop);
            } else if let Standing::Down(reason) = self.out.shared.health.standing(&hop.key(&self.out.connector.name)) {
                let text = format!("{} is down; last: {}", hop.name(), reason.text);
                let enhanced = reason.enhanced.unwrap_or(NO_ANSWER);
                self.last.get_or_insert(NextHopError { scope: Scope::Ours, ..NextHopError::unreached(enhanced, text) });
            }
        }
        !self.ahead.is_empty()
    }
}

/// The result of opening a connection.
enum Opened {
    Ready(Box<Connection>, HostSlot),
    /// The host accepts no more than its present connections.
    Full,
    Failed(NextHopError),
}

impl WayOut {
    /// Logs that a host accepts fewer concurrent connections than the connector allows.
    pub(super) fn tell_fewer(&self, hop: &NextHop, allowed: usize, reason: &Reply) {
        let (send_connector, next_hop) = (&self.connector.name, hop.name());
        if let Some(untold) = self.shared.alerts.line(&next_hop, "fewer") {
            tracing::info!(%send_connector, next_hop, allowed, %reason, untold, "fewer connections at once");
        }
    }

    /// Records the host's health by the result.
    fn judge(&self, hop: &NextHop, opened: Result<Connection, NextHopError>, host: HostSlot) -> Opened {
        let error = match opened {
            Ok(connection) => {
                self.note(hop, None);
                return Opened::Ready(Box::new(connection), host);
            }
            Err(error) => error,
        };
        let key = hop.key(&self.connector.name);
        let idle = self.shared.pool.has(&key);
        let error = match error.scope {
            Scope::Crowded => match host.refused() {
                AtGreeting::Fewer(allowed) => {
                    self.tell_fewer(hop, allowed, &error.reply);
                    return Opened::Full;
                }
                // One of its connections has become free meanwhile and can be used.
                AtGreeting::Alone if idle || self.shared.pool.has(&key) => return Opened::Full,
                AtGreeting::Alone => NextHopError { scope: Scope::Host, ..error },
            },
            Scope::Host | Scope::Suspect | Scope::Message | Scope::Ours => error,
        };
        self.note(hop, Some(&error));
        Opened::Failed(error)
    }
}
