//! How many connections each receive connector has, in all and from each client: an IPv4 address, or an IPv6 /64; and how
//! many there may be in all. Where a place is wanted and there is none, the stranger leaves who has been idle longest.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::crowd::{Crowd, Seated};
use super::eviction::is_crowded;
use crate::config::ReceiveConnector;
use crate::descriptors::{Room, reserved};
use crate::metrics::Metrics;
use crate::one_client::one_client;
use crate::session::turn::{Place, Stage, Turn, Whose, Why};

/// How often idle clients of a crowd are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Counts connections. Cloning shares the counts.
#[derive(Clone)]
pub(super) struct Seats {
    taken: Arc<Mutex<Taken>>,
    metrics: Metrics,
    /// What idleness is counted from.
    start: Instant,
    draining: CancellationToken,
    farewells: Arc<Semaphore>,
}

/// All connections.
struct Taken {
    connectors: HashMap<Arc<str>, Crowd>,
    all: usize,
    /// Those of connectors without an organization.
    strangers: usize,
    room: Room,
}

/// Who connected for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behind {
    /// It came itself.
    Nobody,
    /// A trusted balancer, which has limits of its own.
    Balancer,
}

/// How many sessions a client may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sessions {
    /// As many as its address.
    Any,
    /// It looks for addresses.
    One,
}

/// Whether a client may still show that it is no stranger: by a certificate, or by AUTH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    Possible,
    Impossible,
}

/// Why there is no seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoSeat {
    /// `max_connections`.
    Full,
    /// `max_connections_per_ip`.
    FullForAddress,
    /// It looks for addresses, and has a session.
    OneOnly,
    /// What is left of the descriptors is for others.
    NoDescriptors,
}

/// One connection's seat; free again when dropped, unless somebody else has got it.
pub(super) struct Seat {
    seats: Seats,
    connector: Arc<str>,
    at: usize,
    /// What its session writes down.
    pub(super) turn: Turn,
}

impl Seats {
    /// Sessions end with `draining`; of those who are sent away so many as `farewells` lets wait until it is read.
    pub(super) fn new(metrics: Metrics, draining: CancellationToken, farewells: Arc<Semaphore>) -> Self {
        let room = Room { all: usize::MAX, strangers: usize::MAX };
        let taken = Taken { connectors: HashMap::new(), all: 0, strangers: 0, room };
        Self { taken: Arc::new(Mutex::new(taken)), metrics, start: Instant::now(), draining, farewells }
    }

    /// So many there may be in all.
    pub(super) fn set_room(&self, room: Room) {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).room = room;
    }

    /// Takes a seat. A connector with an organization has no limit for an address: its few hosts send everything. Nor
    /// has a client behind a balancer (DESIGN section 4). Where clients can show that they are no strangers, the last
    /// places are for those who will.
    pub(super) fn take(
        &self,
        connector: &ReceiveConnector,
        address: IpAddr,
        (behind, proof, sessions): (Behind, Proof, Sessions),
    ) -> Result<Seat, NoSeat> {
        let (client, now) = (one_client(address), self.start.elapsed());
        let whose = if connector.organization.is_empty() { Whose::Stranger } else { Whose::Known };
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let crowd = taken.connectors.entry(connector.name.clone()).or_default();
        crowd.most = connector.max_connections;
        if sessions == Sessions::One && crowd.of(client) > 0 {
            return Err(NoSeat::OneOnly);
        }
        let limited = whose == Whose::Stranger && behind == Behind::Nobody;
        if limited && crowd.of(client) >= connector.max_connections_per_ip {
            return Err(NoSeat::FullForAddress);
        }
        let share = match proof {
            Proof::Possible if whose == Whose::Stranger => crowd.most - reserved(crowd.most),
            _ => crowd.most,
        };
        while taken.has_more_than(&connector.name, share, now) {
            let Some(gone) = taken.evict_from(&connector.name, now) else { break };
            self.count(&connector.name, gone.turn.sent_away());
        }
        if taken.has_more_than(&connector.name, usize::MAX, now) {
            return Err(NoSeat::Full);
        }
        let is_reserved = taken.has_more_than(&connector.name, share, now);
        let place = if is_reserved { Place::Reserved } else { Place::Free };
        while !taken.has_room_for(whose) {
            let (name, gone) = taken.evict(now).ok_or(NoSeat::NoDescriptors)?;
            self.count(&name, gone.turn.sent_away());
        }
        let turn = Turn::new(self.start, self.draining.child_token(), self.farewells.clone(), place);
        // The newest stays: a crowd that comes at once does not keep out who comes behind it.
        turn.begins(Instant::now(), Stage::BeforeMail, whose);
        let at = taken.seat(&connector.name, Seated { turn: turn.clone(), client, whose });
        let name = [&*connector.name];
        self.metrics.connections.with_label_values(&name).inc();
        self.metrics.connections_total.with_label_values(&name).inc();
        Ok(Seat { seats: self.clone(), connector: connector.name.clone(), at, turn })
    }

    /// Sends away who is idle for too long where connections are short, again and again.
    pub(super) async fn keep_clearing(self) {
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
            for (name, gone) in taken.send_overdue_away(self.start.elapsed()) {
                self.count(&name, gone.turn.sent_away());
            }
        }
    }

    /// A connection of this connector's is gone; `why`: it was sent away.
    fn count(&self, connector: &str, why: Option<Why>) {
        self.metrics.connections.with_label_values(&[connector]).dec();
        let Some(why) = why else { return };
        let reason = match why {
            Why::Wanted => "place-wanted",
            Why::Idle => "idle",
        };
        self.metrics.sessions_sent_away.with_label_values(&[reason]).inc();
    }
}

impl Taken {
    /// Whether the connector is full, or one more of its strangers would be more than their share.
    fn has_more_than(&mut self, connector: &str, share: usize, now: Duration) -> bool {
        let Some(crowd) = self.connectors.get_mut(connector) else { return false };
        crowd.all >= crowd.most || (crowd.all >= share && crowd.strangers(now) >= share)
    }

    fn has_room_for(&self, whose: Whose) -> bool {
        self.all < self.room.all && (whose == Whose::Known || self.strangers < self.room.strangers)
    }

    fn seat(&mut self, connector: &Arc<str>, seated: Seated) -> usize {
        self.all += 1;
        self.strangers += usize::from(seated.whose == Whose::Stranger);
        self.connectors.entry(connector.clone()).or_default().seat(seated)
    }

    fn leave(&mut self, connector: &str, at: usize) {
        if let Some(gone) = self.connectors.get_mut(connector).and_then(|crowd| crowd.leave(at)) {
            self.is_gone(&gone);
        }
    }

    fn is_gone(&mut self, gone: &Seated) {
        self.all = self.all.saturating_sub(1);
        self.strangers = self.strangers.saturating_sub(usize::from(gone.whose == Whose::Stranger));
    }

    /// Sends away who has been idle longest of this connector's strangers.
    fn evict_from(&mut self, connector: &str, now: Duration) -> Option<Seated> {
        let gone = self.connectors.get_mut(connector)?.evict(now)?;
        self.is_gone(&gone);
        Some(gone)
    }

    /// The same of all strangers.
    fn evict(&mut self, now: Duration) -> Option<(Arc<str>, Seated)> {
        let of = |(name, crowd): (&Arc<str>, &mut Crowd)| Some((crowd.longest_idle(now)?, name.clone()));
        let (_, name) = self.connectors.iter_mut().filter_map(of).min()?;
        let gone = self.evict_from(&name, now)?;
        Some((name, gone))
    }

    /// Sends away who has been idle too long where it is crowded.
    fn send_overdue_away(&mut self, now: Duration) -> Vec<(Arc<str>, Seated)> {
        let all_are_many = is_crowded(self.strangers, self.room.strangers);
        let mut gone = Vec::new();
        for (name, crowd) in &mut self.connectors {
            if all_are_many || is_crowded(crowd.all, crowd.most) {
                gone.extend(crowd.send_overdue_away(now).into_iter().map(|seated| (name.clone(), seated)));
            }
        }
        gone.iter().for_each(|(_, seated)| self.is_gone(seated));
        gone
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken.lock().unwrap_or_else(PoisonError::into_inner);
        // Who was sent away left with it.
        if self.turn.sent_away().is_none() {
            taken.leave(&self.connector, self.at);
            self.seats.count(&self.connector, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::check::load_text;

    const CONFIG: &str = r#"
[server]
hostname = "mx.contoso.com"
[[receive_connector]]
name = "internet"
max_connections_per_ip = 2
max_connections = 10
[[receive_connector]]
name = "secondary"
remote_networks = ["10.0.0.0/24"]
organization = "secondary"
max_connections = 100
[[accepted_domain]]
domain = "contoso.com"
type = "authoritative"
deliver_to = "exchange"
[[directory]]
name = "users"
kind = "file"
path = "users.csv"
[[send_connector]]
name = "exchange"
organization = "secondary"
smart_hosts = ["[10.0.0.5]"]
"#;

    fn seats() -> Seats {
        Seats::new(Metrics::new(), CancellationToken::new(), Arc::new(Semaphore::new(1)))
    }

    /// The seat of a client of its own, by number.
    fn take(seats: &Seats, connector: &ReceiveConnector, number: u8) -> Result<Seat, NoSeat> {
        let seat =
            seats.take(connector, [192, 0, 2, number].into(), (Behind::Nobody, Proof::Impossible, Sessions::Any))?;
        seat.turn.ends().unwrap();
        Ok(seat)
    }

    fn is_idle(seat: &Seat, seconds: u64) {
        let since = seat.seats.start + Duration::from_secs(seconds);
        seat.turn.begins(since, Stage::BeforeMail, seat.whose());
    }

    impl Seat {
        fn whose(&self) -> Whose {
            if &*self.connector == "internet" { Whose::Stranger } else { Whose::Known }
        }
    }

    #[test]
    fn a_newcomer_gets_the_place_of_who_is_idle_and_only_his() {
        let config = load_text(CONFIG, std::path::Path::new("fingerpost.toml")).unwrap();
        let (seats, internet) = (seats(), &*config.receive_connectors[0]);
        let held: Vec<Seat> = (0..10).map(|at| take(&seats, internet, at).ok().unwrap()).collect();
        assert_eq!(take(&seats, internet, 10).err(), Some(NoSeat::Full), "nobody is idle");
        (3..6).for_each(|at| is_idle(&held[at], 10 - at as u64));
        let own: Vec<Seat> = (11..14).map(|at| take(&seats, internet, at).ok().unwrap()).collect();
        assert_eq!(take(&seats, internet, 10).err(), Some(NoSeat::Full));
        assert_eq!(seats.metrics.connections.with_label_values(&["internet"]).get(), 10);
        // Who was sent away frees nothing once more when he has gone, and his client may come again.
        drop(held);
        assert_eq!(seats.metrics.connections.with_label_values(&["internet"]).get(), 3);
        assert_eq!(seats.taken.lock().unwrap().strangers, 3);
        let again: Vec<Seat> = (0..7).map(|at| take(&seats, internet, at).ok().unwrap()).collect();
        assert_eq!(take(&seats, internet, 10).err(), Some(NoSeat::Full));
        drop((own, again));
        assert_eq!(seats.taken.lock().unwrap().all, 0);
        assert_eq!(seats.metrics.sessions_sent_away.with_label_values(&["place-wanted"]).get(), 3);
    }

    #[test]
    fn who_has_his_share_drives_nobody_out() {
        let config = load_text(CONFIG, std::path::Path::new("fingerpost.toml")).unwrap();
        let (seats, internet) = (seats(), &*config.receive_connectors[0]);
        let held: Vec<Seat> = (0..10).map(|at| take(&seats, internet, at / 2).ok().unwrap()).collect();
        held.iter().for_each(|seat| is_idle(seat, 1));
        assert_eq!(take(&seats, internet, 0).err(), Some(NoSeat::FullForAddress));
        assert!(held.iter().all(|seat| seat.turn.sent_away().is_none()));
    }

    #[test]
    fn strangers_leave_places_to_organizations_and_give_way_to_them() {
        let config = load_text(CONFIG, std::path::Path::new("fingerpost.toml")).unwrap();
        let [internet, secondary] = [0, 1].map(|at| &*config.receive_connectors[at]);
        let seats = seats();
        seats.set_room(Room { all: 9, strangers: 6 });
        let strangers: Vec<Seat> = (0..6).map(|at| take(&seats, internet, at).ok().unwrap()).collect();
        assert_eq!(take(&seats, internet, 7).err(), Some(NoSeat::NoDescriptors), "nobody is idle");
        let own: Vec<Seat> = (0..3).map(|at| take(&seats, secondary, at).ok().unwrap()).collect();
        own.iter().for_each(|seat| is_idle(seat, 0));
        assert_eq!(take(&seats, secondary, 7).err(), Some(NoSeat::NoDescriptors));
        is_idle(&strangers[4], 1);
        let fourth = take(&seats, secondary, 7).ok().unwrap();
        assert!(strangers[4].turn.sent_away().is_some() && own.iter().all(|seat| seat.turn.sent_away().is_none()));
        // No stranger drives out one of an organization, however idle he is.
        assert_eq!(take(&seats, internet, 7).err(), Some(NoSeat::NoDescriptors));
        drop(fourth);
        assert!(take(&seats, internet, 7).is_ok());
    }

    #[test]
    fn the_last_places_are_for_those_who_can_show_who_they_are() {
        let config = load_text(CONFIG, std::path::Path::new("fingerpost.toml")).unwrap();
        let (seats, internet) = (seats(), &*config.receive_connectors[0]);
        let take = |number: u8| {
            let client = [192, 0, 2, number].into();
            let seat = seats.take(internet, client, (Behind::Nobody, Proof::Possible, Sessions::Any)).ok()?;
            seat.turn.ends().unwrap();
            Some(seat)
        };
        let held: Vec<Seat> = (0..10).map(|at| take(at).unwrap()).collect();
        let serves: Vec<bool> = held.iter().map(|seat| seat.turn.serves(Whose::Stranger)).collect();
        assert_eq!(serves, [[true; 5], [false; 5]].concat());
        assert!(held.iter().all(|seat| seat.turn.serves(Whose::Known)));
        assert!(take(10).is_none(), "full");
        // Of strangers who are idle so many go that the newcomer has a place like any other.
        held.iter().for_each(|seat| is_idle(seat, 1));
        let newcomer = take(10).unwrap();
        assert!(newcomer.turn.serves(Whose::Stranger));
        let staying: Vec<&Seat> = held.iter().filter(|seat| seat.turn.sent_away().is_none()).collect();
        assert_eq!(staying.len(), 4);
        drop(newcomer);
        // Those who have shown it are not counted against strangers.
        staying.iter().for_each(|seat| seat.turn.begins(seats.start, Stage::AfterMail, Whose::Known));
        let others: Vec<Seat> = (11..17).filter_map(take).collect();
        let serves: Vec<bool> = others.iter().map(|seat| seat.turn.serves(Whose::Stranger)).collect();
        assert_eq!(serves, [[true; 5].as_slice(), &[false]].concat());
    }

    #[tokio::test(start_paused = true)]
    async fn idle_limits_shrink_in_a_crowd() {
        let config = load_text(CONFIG, std::path::Path::new("fingerpost.toml")).unwrap();
        let (seats, internet) = (seats(), &*config.receive_connectors[0]);
        let clearing = tokio::spawn(seats.clone().keep_clearing());
        let mut held: Vec<Seat> = (0..8).map(|at| take(&seats, internet, at).ok().unwrap()).collect();
        held.iter().for_each(|seat| is_idle(seat, 0));
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert!(held.iter().all(|seat| seat.turn.sent_away().is_none()), "eight of ten are no crowd");
        held.push(take(&seats, internet, 8).ok().unwrap());
        tokio::time::sleep(Duration::from_secs(2)).await;
        let gone: Vec<Option<Why>> = held.iter().map(|seat| seat.turn.sent_away()).collect();
        assert_eq!((&gone[..8], gone[8]), (&[Some(Why::Idle); 8][..], None));
        assert_eq!(seats.metrics.sessions_sent_away.with_label_values(&["idle"]).get(), 8);
        clearing.abort();
    }

    #[test]
    fn a_client_is_an_ipv4_address_or_an_ipv6_network() {
        let config = load_text(CONFIG, std::path::Path::new("fingerpost.toml")).unwrap();
        let connector = &config.receive_connectors[0];
        for (first, second, third, room) in [
            ("192.0.2.1", "192.0.2.1", "192.0.2.1", false),
            ("192.0.2.1", "192.0.2.1", "192.0.2.2", true),
            ("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.1", false),
            ("2001:db8:0:1::1", "2001:db8:0:1::2", "2001:db8:0:1:ffff::3", false),
            ("2001:db8:0:1::1", "2001:db8:0:1::2", "2001:db8:0:2::1", true),
        ] {
            let seats = seats();
            let whose = (Behind::Nobody, Proof::Impossible, Sessions::Any);
            let take = |address: &str| seats.take(connector, address.parse().unwrap(), whose);
            let (_first, second) = (take(first).ok().unwrap(), take(second).ok().unwrap());
            assert_eq!(take(third).err(), (!room).then_some(NoSeat::FullForAddress), "{third}");
            drop(second);
            assert!(take(third).is_ok(), "{third}: a seat is free again");
        }
    }
}
