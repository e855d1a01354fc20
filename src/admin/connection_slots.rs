//! Connection slots of an HTTP server: each kind of connection has a limit, and none takes a slot of another kind. A
//! connection that waits, or reads, is closed if a newer one of its kind needs the slot, so that idle clients and slow
//! readers do not block short requests. Of waiting connections the oldest of the client with the most of them is
//! closed; never one whose first request has arrived, read or not. [`http`](super::http) uses it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::http::wire::Incoming;

/// The limits by kind.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// The server waits for the client: for the first request, the rest of one, or the next after a short response.
    pub(super) waiting: usize,
    /// A long response is being made.
    pub(super) working: usize,
    /// The client reads a long response.
    pub(super) reading: usize,
}

impl Limits {
    /// The usual limits.
    pub(super) const DEFAULT: Self = Self { waiting: 96, working: 64, reading: 32 };

    /// All connections together.
    pub(super) const fn sum(&self) -> usize {
        self.waiting + self.working + self.reading
    }
}

/// The state of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Waiting,
    Working,
    Reading,
}

/// The slots of a server.
#[derive(Clone)]
pub(super) struct ConnectionSlots(Arc<Slots>);

struct Slots {
    limits: Limits,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    /// Counts how often a slot was taken or changed its kind: the lowest is the oldest.
    turn: u64,
    connections: BTreeMap<u64, Held>,
}

struct Held {
    kind: Kind,
    since: u64,
    cut: CancellationToken,
    client: IpAddr,
    incoming: Arc<Incoming>,
}

/// A connection's slot; dropping it frees it.
pub(super) struct ConnectionPermit {
    places: ConnectionSlots,
    id: u64,
    cut: CancellationToken,
}

impl ConnectionSlots {
    /// All free.
    pub(super) fn new(limits: Limits) -> Self {
        Self(Arc::new(Slots { limits, table: Mutex::default() }))
    }

    /// Makes room for a new connection; if all slots are taken, a waiting connection is closed. `false`: there is none,
    /// because all have sent a request and will be answered soon.
    pub(super) fn make_room(&self) -> bool {
        self.0.table.lock().make_room(Kind::Waiting, self.0.limits.waiting)
    }

    /// A slot for a new connection.
    pub(super) fn enter(&self, client: IpAddr, incoming: Arc<Incoming>) -> ConnectionPermit {
        let mut table = self.0.table.lock();
        let (id, cut) = (table.next(), CancellationToken::new());
        let held = Held { kind: Kind::Waiting, since: id, cut: cut.clone(), client, incoming };
        table.connections.insert(id, held);
        ConnectionPermit { places: self.clone(), id, cut }
    }

    /// Closes a waiting connection, because its descriptor is needed.
    pub(super) fn cut_one(&self) {
        self.0.table.lock().cut_one(Kind::Waiting);
    }

    /// Closes all connections without a request.
    pub(super) fn cut_waiting(&self) {
        let mut table = self.0.table.lock();
        table.connections.retain(|_, held| {
            let stays = held.kind != Kind::Waiting;
            if !stays {
                held.cut.cancel();
            }
            stays
        });
    }
}

impl Table {
    fn next(&mut self) -> u64 {
        self.turn += 1;
        self.turn
    }

    fn count(&self, kind: Kind) -> usize {
        self.connections.values().filter(|held| held.kind == kind).count()
    }

    /// Makes room for one more; returns whether there is room.
    fn make_room(&mut self, kind: Kind, limit: usize) -> bool {
        while self.count(kind) >= limit {
            if !self.cut_one(kind) {
                return false;
            }
        }
        true
    }

    /// Closes one of this kind; `false`: there was none.
    fn cut_one(&mut self, kind: Kind) -> bool {
        let of_kind = || self.connections.iter().filter(|(_, held)| held.kind == kind);
        let mut each: HashMap<IpAddr, usize> = HashMap::new();
        let first = of_kind().next().map(|(_, held)| held.client);
        // A flood mostly comes from one client: then counting is not needed.
        if of_kind().any(|(_, held)| Some(held.client) != first) {
            of_kind().for_each(|(_, held)| *each.entry(held.client).or_default() += 1);
        }
        let order = |held: &Held| (Reverse(each.get(&held.client).copied().unwrap_or_default()), held.since);
        let mut passed = None;
        let id = loop {
            let behind = of_kind().filter(|(_, held)| passed.is_none_or(|passed| order(held) > passed));
            let Some((id, held)) = behind.min_by_key(|(_, held)| order(held)) else { return false };
            if kind != Kind::Waiting || !held.incoming.has_asked() {
                break *id;
            }
            passed = Some(order(held));
        };
        if let Some(held) = self.connections.remove(&id) {
            held.cut.cancel();
        }
        true
    }
}

impl ConnectionPermit {
    /// Completes when the slot was given to another connection.
    pub(super) async fn cut(&self) {
        self.cut.cancelled().await;
    }

    /// A long response is to be made; returns whether that is allowed now.
    pub(super) fn work(&self) -> bool {
        let may = self.places.0.table.lock().count(Kind::Working) < self.places.0.limits.working;
        if may {
            self.turn_to(Kind::Working, usize::MAX);
        }
        may
    }

    /// A long response was made, and the client reads it.
    pub(super) fn read(&self) {
        self.turn_to(Kind::Reading, self.places.0.limits.reading);
    }

    /// A short response was made, which counts as read.
    pub(super) fn wait(&self) {
        self.turn_to(Kind::Waiting, self.places.0.limits.waiting);
    }

    fn turn_to(&self, kind: Kind, limit: usize) {
        let mut table = self.places.0.table.lock();
        let Some(held) = table.connections.remove(&self.id) else { return }; // it was cut
        table.make_room(kind, limit); // where all have asked there are more for a moment
        held.incoming.answered();
        let since = table.next();
        table.connections.insert(self.id, Held { kind, since, ..held });
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.places.0.table.lock().connections.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    const FIRST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const SECOND: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    fn cut(places: &[ConnectionPermit]) -> Vec<bool> {
        places.iter().map(|place| place.cut.is_cancelled()).collect()
    }

    async fn connection(says: &str) -> Arc<Incoming> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.write_all(says.as_bytes()).await.unwrap();
        let incoming = Arc::new(Incoming::new(listener.accept().await.unwrap().0));
        while !says.is_empty() && !incoming.has_asked() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        incoming
    }

    async fn enters(places: &ConnectionSlots, client: IpAddr, says: &str) -> ConnectionPermit {
        let incoming = connection(says).await;
        assert!(places.make_room());
        places.enter(client, incoming)
    }

    #[tokio::test]
    async fn the_oldest_of_a_kind_goes_and_no_other() {
        let places = ConnectionSlots::new(Limits { waiting: 2, working: 1, reading: 1 });
        let enter = async || enters(&places, FIRST, "").await;
        let mut all = vec![enter().await, enter().await];
        all[0].wait(); // it has asked something short, and is the younger one now
        all.push(enter().await);
        assert_eq!(cut(&all), [false, true, false]);
        assert!(all[0].work());
        assert!(!all[2].work(), "there is one at work already");
        all.push(enter().await); // one is at work, there is room
        assert_eq!(cut(&all), [false, true, false, false]);
        all[0].read();
        assert!(all[2].work());
        all[2].read();
        assert_eq!(cut(&all), [true, true, false, false], "one reads at once");
        all[0].wait(); // too late
        all.push(enter().await);
        all.push(enter().await);
        assert_eq!(cut(&all), [true, true, false, true, false, false], "who reads is not asked to go by who waits");
        all.remove(4);
        assert_eq!(places.0.table.lock().count(Kind::Waiting), 1, "a place that is left is free");
        all.push(enter().await);
        places.cut_one();
        assert_eq!(cut(&all), [true, true, false, true, true, false]);
        places.cut_waiting();
        assert_eq!(cut(&all), [true, true, false, true, true, true]);
        assert_eq!(places.0.table.lock().connections.len(), 1);
    }

    #[tokio::test]
    async fn who_has_asked_stays_until_he_has_his_answer() {
        let places = ConnectionSlots::new(Limits { waiting: 3, ..Limits::DEFAULT });
        let mut all = Vec::new();
        for says in ["GET / HTTP/1.1\r\n\r\n", "", "GET / HTTP/1.1\r\n\r\n", ""] {
            all.push(enters(&places, FIRST, says).await);
        }
        assert_eq!(cut(&all), [false, true, false, false]);
        all.push(enters(&places, FIRST, "GET / HTTP/1.1\r\n\r\n").await);
        assert_eq!(cut(&all), [false, true, false, true, false]);
        assert!(!places.make_room(), "all have asked");
        all[2].wait();
        assert!(places.make_room());
        assert_eq!(cut(&all), [false, true, true, true, false]);
    }

    #[tokio::test]
    async fn the_client_goes_first_who_has_most() {
        let places = ConnectionSlots::new(Limits { waiting: 4, ..Limits::DEFAULT });
        let mut all = Vec::new();
        for client in [SECOND, FIRST, FIRST, FIRST, FIRST, FIRST, SECOND, SECOND, SECOND] {
            all.push(enters(&places, client, "").await);
        }
        assert_eq!(cut(&all), [true, true, true, true, true, false, false, false, false]);
    }

    #[tokio::test]
    async fn the_last_that_waits_goes_too_where_its_descriptor_is_needed() {
        let places = ConnectionSlots::new(Limits::DEFAULT);
        let place = enters(&places, FIRST, "").await;
        places.cut_one();
        assert!(place.cut.is_cancelled());
        assert!(!places.0.table.lock().cut_one(Kind::Waiting));
    }
}
