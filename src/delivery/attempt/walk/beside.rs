//! Tries hosts concurrently: if one does not greet, the next one is started, and the first that is ready is used.
//!
//! Each takes one of the connector's slots; if none is free, the second attempt replaces the first.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Found, HeldSlots, NextHop, Opened, Walk};
use crate::delivery::attempt::next_hop_error::{NO_ANSWER, NextHopError};
use crate::delivery::attempt::{WayOut, open};
use crate::delivery::slots::{HostSlot, Slot};

/// After another host was chosen, an attempt without a greeting keeps its slot for this long.
const LATE: Duration = Duration::from_secs(10);

impl Walk {
    pub(super) async fn dial_side_by_side(&mut self) -> Option<Found> {
        let (sender, mut ended) = mpsc::unbounded_channel::<Dialed>();
        let mut under_way: Vec<Dialing> = Vec::new();
        let mut next_at = Instant::now();
        let mut silent: Vec<NextHop> = Vec::new();
        loop {
            if under_way.is_empty() && self.ahead.is_empty() {
                return None;
            }
            tokio::select! {
                biased;
                Some(dialed) = ended.recv() => {
                    under_way.retain(|dialing| dialing.hop != dialed.hop);
                    silent.retain(|hop| *hop != dialed.hop);
                    if let Some(found) = self.dialed(dialed) {
                        self.passed_over(&silent);
                        return Some(found);
                    }
                    next_at = Instant::now();
                }
                () = sleep_until(next_at), if !self.ahead.is_empty() => {
                    for dialing in &under_way {
                        if !silent.contains(&dialing.hop) {
                            silent.push(dialing.hop.clone());
                        }
                    }
                    if let Some(found) = self.begin_beside(&mut under_way, &sender) {
                        self.passed_over(&silent);
                        return Some(found);
                    }
                    next_at = Instant::now() + self.out.waits.beside;
                }
            }
        }
    }

    /// These hosts had the full time and have not greeted; another host gets the message. That counts as a failure, so
    /// that the next message does not wait for them as well. They are up again as soon as they greet.
    fn passed_over(&self, silent: &[NextHop]) {
        for hop in silent {
            let text = format!(
                "{} has not greeted within {:?}, another host takes the mail",
                hop.name(),
                self.out.waits.beside
            );
            self.out.note(hop, Some(&NextHopError::unreached(NO_ANSWER, text)));
        }
    }

    /// Starts the next host; a connection in the pool is found at once.
    fn begin_beside(&mut self, under_way: &mut Vec<Dialing>, sender: &mpsc::UnboundedSender<Dialed>) -> Option<Found> {
        self.silent_last();
        let hop = self.ahead.pop_front()?;
        let key = hop.key(&self.out.connector.name);
        let Some(host) = self.host_slot(&key) else {
            self.full.push_back(hop);
            return None;
        };
        let Some(connector) = self.slot_beside(under_way) else {
            self.ahead.push_back(hop);
            return None;
        };
        if let Some(connection) = self.out.take_pooled(&key) {
            return Some(Found { hop, connection, slots: HeldSlots { connector, host } });
        }
        under_way.push(Dialing::begin(&self.out, hop, connector, host, sender.clone()));
        None
    }

    fn dialed(&mut self, dialed: Dialed) -> Option<Found> {
        let Dialed { hop, opened, connector } = dialed;
        match opened {
            Opened::Ready(connection, host) => {
                let connection = *connection;
                return Some(Found { hop, connection, slots: HeldSlots { connector, host } });
            }
            Opened::Full => self.full.push_back(hop),
            Opened::Failed(error) => self.last = Some(error),
        }
        self.slot = Some(connector);
        None
    }

    /// A slot for one more attempt: the walk's own, a free one, or that of an attempt which is given up for it.
    fn slot_beside(&mut self, under_way: &mut Vec<Dialing>) -> Option<Slot> {
        if let Some(slot) = self.slot.take() {
            return Some(slot);
        }
        let (name, limit) = (&self.out.connector.name, self.out.connector.max_connections);
        if let Some(slot) = self.out.shared.slots.try_take(name, limit, self.out.applicant) {
            return Some(slot);
        }
        // Without a slot it has just ended, and its result is waiting.
        if under_way.is_empty() { None } else { under_way.remove(0).give_up() }
    }
}

/// One of several concurrent attempts.
struct Dialing {
    hop: NextHop,
    connector: Arc<Mutex<Option<Slot>>>,
    task: tokio::task::AbortHandle,
}

/// The result of an attempt.
struct Dialed {
    hop: NextHop,
    opened: Opened,
    connector: Slot,
}

impl Dialing {
    fn begin(
        out: &WayOut,
        hop: NextHop,
        connector: Slot,
        host: HostSlot,
        ended: mpsc::UnboundedSender<Dialed>,
    ) -> Self {
        let connector = Arc::new(Mutex::new(Some(connector)));
        let dialing = {
            let (out, hop, connector) = (out.clone(), hop.clone(), connector.clone());
            async move {
                let too_late = async {
                    ended.closed().await;
                    sleep(LATE).await;
                };
                let opened: Result<_, NextHopError> = tokio::select! {
                    opened = open::open(&out, &hop) => opened,
                    () = too_late => return,
                };
                let opened = out.judge(&hop, opened, host);
                let Some(connector) = connector.lock().take() else { return };
                // Not needed any more: it goes into the pool.
                if let Err(late) = ended.send(Dialed { hop, opened, connector })
                    && let Dialed { hop, opened: Opened::Ready(connection, _), .. } = late.0
                {
                    out.keep(&hop, *connection);
                }
            }
        };
        Self { hop, connector, task: tokio::spawn(dialing).abort_handle() }
    }

    /// Ends the attempt and returns its slot.
    fn give_up(self) -> Option<Slot> {
        self.task.abort();
        self.connector.lock().take()
    }
}
