//! The walk over a branch's next hops until a connection is ready for MAIL; the queue and cut-through go the same way.
//!
//! A connection from the pool is taken first. Where several hosts are up and the first does not greet, the next one is begun
//! beside it: the first that is ready is taken, a latecomer goes into the pool. Hosts that are down come last and only by
//! a test of theirs.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::checkout::Checkout;
use super::connection::Connection;
use super::conversation::Ended;
use super::hops::{self, NextHop, NoHop};
use super::places::Place;
use super::trouble::{NO_ANSWER, Scope, Trouble};
use super::{WayOut, open};
use crate::delivery::health::{Key, Standing};
use crate::smtp::reply::Reply;

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum NoWay {
    /// The recipients' final reply, ours.
    Refused(Reply),
    /// For now.
    Trouble(Trouble),
}

/// A walk under way.
pub(crate) struct Walk {
    out: WayOut,
    /// Up, and not tried yet.
    ahead: VecDeque<NextHop>,
    /// Down when the walk began.
    down: Vec<NextHop>,
    /// The place for the connection, while nothing else has it.
    place: Option<Place>,
    last: Option<Trouble>,
}

impl WayOut {
    /// Begins a walk: finds the next hops, but for those in `tried`, and waits for a place.
    pub(crate) async fn walk(&self, tried: &[Key]) -> Result<Walk, NoWay> {
        let found = match timeout(self.waits.connect.max(self.waits.greeting), hops::hops(self)).await {
            Ok(found) => found,
            Err(_) => {
                let text = format!("DNS did not say within {:?} where to go", self.waits.connect);
                return Err(NoWay::Trouble(Trouble::ours(text)));
            }
        };
        let hops = match found {
            Ok(hops) => hops,
            Err(NoHop::Refused(reply)) => return Err(NoWay::Refused(reply)),
            Err(NoHop::Trouble(trouble)) => {
                trouble.log(&self.connector.name);
                return Err(NoWay::Trouble(trouble));
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
        let limit = self.connector.max_connections;
        let place = timeout(self.waits.slot, self.shared.places.take(name, limit)).await.map_err(|_| {
            NoWay::Trouble(Trouble::ours(format!("all {limit} connections were busy for {:?}", self.waits.slot)))
        })?;
        // Whether one that is down is well again is found out beside the others.
        down.iter().for_each(|hop| self.begin_test(hop));
        Ok(Walk { out: self.clone(), ahead, down, place: Some(place), last: None })
    }
}

impl Walk {
    /// A connection that is ready for MAIL; `None`: no next hop is left, and [`Walk::trouble`] says why.
    pub(crate) async fn next(&mut self) -> Option<Checkout> {
        loop {
            if self.ahead.is_empty() && !self.recovered().await {
                return None;
            }
            if let Some(checkout) = self.pooled() {
                return Some(checkout);
            }
            // Boxed: a message that finds a connection does not carry the room for making one.
            if let Some((hop, connection)) = Box::pin(self.dial()).await {
                return Some(self.checkout(hop, connection));
            }
        }
    }

    /// The connection came from the pool and was dead: the same next hop once more.
    pub(crate) fn again(&mut self, checkout: Checkout) {
        let (hop, place) = checkout.into_hop();
        self.ahead.push_front(hop);
        self.place = Some(place);
    }

    /// Nobody could be helped there: the next one.
    pub(crate) async fn failed(&mut self, checkout: Checkout, trouble: Trouble, ended: Result<(), Ended>) {
        self.place = Some(checkout.leave(ended).await);
        self.last = Some(trouble);
    }

    /// What kept the last next hop from being used.
    pub(crate) fn trouble(self) -> Trouble {
        self.last.unwrap_or_else(|| Trouble::ours("no next hop is left to be tried".to_owned()))
    }

    fn pooled(&mut self) -> Option<Checkout> {
        let key = self.ahead.front()?.key(&self.out.connector.name);
        let connection = self.out.shared.pool.take(&key, &self.out.terms)?;
        let hop = self.ahead.pop_front()?;
        Some(self.checkout(hop, connection))
    }

    fn checkout(&mut self, hop: NextHop, mut connection: Connection) -> Checkout {
        connection.patience = self.out.waits.reply;
        let place = self.place.take().unwrap_or_default();
        Checkout::new(self.out.clone(), hop, connection, place)
    }

    /// Waits for the tests of hosts that are down; those that are up again are ahead then.
    async fn recovered(&mut self) -> bool {
        let until = Instant::now() + self.out.waits.test;
        for hop in std::mem::take(&mut self.down) {
            let left = until.saturating_duration_since(Instant::now());
            if self.out.is_up_after_test(&hop, left).await {
                self.ahead.push_back(hop);
            } else if let Standing::Down(reason) = self.out.shared.health.standing(&hop.key(&self.out.connector.name)) {
                let text = format!("{} is down; last: {reason}", hop.name());
                self.last.get_or_insert(Trouble { scope: Scope::Ours, ..Trouble::unreached(NO_ANSWER, text) });
            }
        }
        !self.ahead.is_empty()
    }

    /// A new connection to the first host that is ahead, or where it does not greet to one of the others.
    async fn dial(&mut self) -> Option<(NextHop, Connection)> {
        if self.ahead.len() == 1 {
            let hop = self.ahead.pop_front()?;
            let opened = open::open(&self.out, &hop).await;
            self.out.note(&hop, opened.as_ref().err());
            return match opened {
                Ok(connection) => Some((hop, connection)),
                Err(trouble) => {
                    self.last = Some(trouble);
                    None
                }
            };
        }
        self.dial_side_by_side().await
    }

    async fn dial_side_by_side(&mut self) -> Option<(NextHop, Connection)> {
        let (sender, mut ready) = mpsc::unbounded_channel::<Dialed>();
        let mut under_way: Vec<Dialing> = Vec::new();
        let mut next_at = Instant::now();
        loop {
            if under_way.is_empty() && self.ahead.is_empty() {
                return None;
            }
            tokio::select! {
                biased;
                Some(dialed) = ready.recv(), if !under_way.is_empty() => {
                    under_way.retain(|dialing| dialing.hop != dialed.hop);
                    self.place = Some(dialed.place);
                    match dialed.result {
                        Ok(connection) => return Some((dialed.hop, connection)),
                        Err(trouble) => self.last = Some(trouble),
                    }
                    next_at = Instant::now();
                }
                () = sleep_until(next_at), if !self.ahead.is_empty() => {
                    if let Some(hop) = self.ahead.pop_front() {
                        if let Some(connection) = self.pooled_beside(&hop, &mut under_way) {
                            return Some((hop, connection));
                        }
                        let place = self.place_beside(&mut under_way);
                        under_way.push(Dialing::begin(&self.out, hop, place, sender.clone()));
                    }
                    next_at = Instant::now() + self.out.waits.beside;
                }
            }
        }
    }

    /// A host that is begun beside another may have a connection in the pool.
    fn pooled_beside(&mut self, hop: &NextHop, under_way: &mut Vec<Dialing>) -> Option<Connection> {
        let connection = self.out.shared.pool.take(&hop.key(&self.out.connector.name), &self.out.terms)?;
        if self.place.is_none() {
            self.place = Some(self.place_beside(under_way));
        }
        Some(connection)
    }

    /// A place for one more connection attempt: ours, a free one, or that of an attempt which is given up for it.
    fn place_beside(&mut self, under_way: &mut Vec<Dialing>) -> Place {
        if let Some(place) = self.place.take() {
            return place;
        }
        if let Some(place) =
            self.out.shared.places.try_take(&self.out.connector.name, self.out.connector.max_connections)
        {
            return place;
        }
        if under_way.is_empty() { Place::default() } else { under_way.remove(0).give_up() }
    }
}

/// A connection attempt beside others.
struct Dialing {
    hop: NextHop,
    place: Arc<Mutex<Option<Place>>>,
    task: tokio::task::AbortHandle,
}

/// How one ended.
struct Dialed {
    hop: NextHop,
    result: Result<Connection, Trouble>,
    place: Place,
}

impl Dialing {
    fn begin(out: &WayOut, hop: NextHop, place: Place, ready: mpsc::UnboundedSender<Dialed>) -> Self {
        let place = Arc::new(Mutex::new(Some(place)));
        let dialing = {
            let (out, hop, place) = (out.clone(), hop.clone(), place.clone());
            async move {
                let result = open::open(&out, &hop).await;
                out.note(&hop, result.as_ref().err());
                let Some(place) = place.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
                // Nobody waits any more: it is there for the next message.
                if let Err(late) = ready.send(Dialed { hop, result, place })
                    && let Dialed { hop, result: Ok(connection), .. } = late.0
                {
                    let key = hop.key(&out.connector.name);
                    out.shared.pool.put(key, connection, out.connector.max_connections);
                }
            }
        };
        Self { hop, place, task: tokio::spawn(dialing).abort_handle() }
    }

    /// Ends it; its place is free for another.
    fn give_up(self) -> Place {
        let place = self.place.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.task.abort();
        place.unwrap_or_default()
    }
}
