//! Which clients get a slot, and whose.

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

fn slots() -> ConnectionSlots {
    ConnectionSlots::new(Metrics::new(), CancellationToken::new(), Arc::new(Semaphore::new(1)))
}

/// A slot for a client of its own, by number.
fn take(slots: &ConnectionSlots, connector: &ReceiveConnector, number: u8) -> Result<ConnectionPermit, NoSlot> {
    let permit = slots.take(connector, [192, 0, 2, number].into(), Behind::Nobody, Proof::Impossible, Sessions::Any)?;
    permit.turn.ends().unwrap();
    Ok(permit)
}

fn is_idle(permit: &ConnectionPermit, seconds: u64) {
    let since = permit.slots.start + Duration::from_secs(seconds);
    permit.turn.begins(since, Stage::BeforeMail, permit.whose());
}

impl ConnectionPermit {
    fn whose(&self) -> Whose {
        if &*self.connector == "internet" { Whose::Stranger } else { Whose::Known }
    }
}

#[test]
fn a_newcomer_gets_the_place_of_who_is_idle_and_only_his() {
    let config = load_text(CONFIG, std::path::Path::new("fingerpost.toml")).unwrap();
    let (slots, internet) = (slots(), &*config.receive_connectors[0]);
    let held: Vec<ConnectionPermit> = (0..10).map(|at| take(&slots, internet, at).ok().unwrap()).collect();
    assert_eq!(take(&slots, internet, 10).err(), Some(NoSlot::Full), "nobody is idle");
    (3..6).for_each(|at| is_idle(&held[at], 10 - at as u64));
    let own: Vec<ConnectionPermit> = (11..14).map(|at| take(&slots, internet, at).ok().unwrap()).collect();
    assert_eq!(take(&slots, internet, 10).err(), Some(NoSlot::Full));
    assert_eq!(slots.metrics.connections.with_label_values(&["internet"]).get(), 10);
    // A disconnected client frees nothing again when its session ends, and it may come again.
    drop(held);
    assert_eq!(slots.metrics.connections.with_label_values(&["internet"]).get(), 3);
    assert_eq!(slots.taken.lock().strangers, 3);
    let again: Vec<ConnectionPermit> = (0..7).map(|at| take(&slots, internet, at).ok().unwrap()).collect();
    assert_eq!(take(&slots, internet, 10).err(), Some(NoSlot::Full));
    drop((own, again));
    assert_eq!(slots.taken.lock().all, 0);
    assert_eq!(slots.metrics.sessions_sent_away.with_label_values(&["place-wanted"]).get(), 3);
}

#[test]
fn who_has_his_share_drives_nobody_out() {
    let config = load_text(CONFIG, std::path::Path::new("fingerpost.toml")).unwrap();
    let (slots, internet) = (slots(), &*config.receive_connectors[0]);
    let held: Vec<ConnectionPermit> = (0..10).map(|at| take(&slots, internet, at / 2).ok().unwrap()).collect();
    held.iter().for_each(|permit| is_idle(permit, 1));
    assert_eq!(take(&slots, internet, 0).err(), Some(NoSlot::FullForAddress));
    assert!(held.iter().all(|permit| permit.turn.sent_away().is_none()));
}

#[test]
fn strangers_leave_places_to_organizations_and_give_way_to_them() {
    let config = load_text(CONFIG, std::path::Path::new("fingerpost.toml")).unwrap();
    let [internet, secondary] = [0, 1].map(|at| &*config.receive_connectors[at]);
    let slots = slots();
    slots.set_room(Room { all: 9, strangers: 6 });
    let strangers: Vec<ConnectionPermit> = (0..6).map(|at| take(&slots, internet, at).ok().unwrap()).collect();
    assert_eq!(take(&slots, internet, 7).err(), Some(NoSlot::NoDescriptors), "nobody is idle");
    let own: Vec<ConnectionPermit> = (0..3).map(|at| take(&slots, secondary, at).ok().unwrap()).collect();
    own.iter().for_each(|permit| is_idle(permit, 0));
    assert_eq!(take(&slots, secondary, 7).err(), Some(NoSlot::NoDescriptors));
    is_idle(&strangers[4], 1);
    let fourth = take(&slots, secondary, 7).ok().unwrap();
    assert!(strangers[4].turn.sent_away().is_some() && own.iter().all(|permit| permit.turn.sent_away().is_none()));
    // A stranger never displaces an organization's client, however idle that is.
    assert_eq!(take(&slots, internet, 7).err(), Some(NoSlot::NoDescriptors));
    drop(fourth);
    assert!(take(&slots, internet, 7).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_crowd_of_strangers_leaves_an_organizations_clients_their_time() {
    let config = load_text(CONFIG, std::path::Path::new("fingerpost.toml")).unwrap();
    let [internet, secondary] = [0, 1].map(|at| &*config.receive_connectors[at]);
    let slots = slots();
    slots.set_room(Room { all: 200, strangers: 6 });
    let clearing = tokio::spawn(slots.clone().keep_clearing());
    let strangers: Vec<ConnectionPermit> = (0..6).map(|at| take(&slots, internet, at).ok().unwrap()).collect();
    let mut own: Vec<ConnectionPermit> = (0..80).map(|at| take(&slots, secondary, at).ok().unwrap()).collect();
    strangers[1].turn.begins(slots.start, Stage::AfterMail, Whose::Known); // it has authenticated
    own.iter().chain([&strangers[0]]).for_each(|permit| is_idle(permit, 0));
    let gone = |slots: &[ConnectionPermit]| slots.iter().filter(|permit| permit.turn.sent_away().is_some()).count();
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!((gone(&strangers), gone(&own)), (1, 0));
    // If there are too many clients of the organization, their time is short as well.
    own.push(take(&slots, secondary, 80).ok().unwrap());
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!((gone(&strangers), gone(&own)), (1, 80));
    clearing.abort();
}

#[test]
fn the_last_places_are_for_those_who_can_show_who_they_are() {
    let config = load_text(CONFIG, std::path::Path::new("fingerpost.toml")).unwrap();
    let (slots, internet) = (slots(), &*config.receive_connectors[0]);
    let take = |number: u8| {
        let client = [192, 0, 2, number].into();
        let permit = slots.take(internet, client, Behind::Nobody, Proof::Possible, Sessions::Any).ok()?;
        permit.turn.ends().unwrap();
        Some(permit)
    };
    let held: Vec<ConnectionPermit> = (0..10).map(|at| take(at).unwrap()).collect();
    let serves: Vec<bool> = held.iter().map(|permit| permit.turn.serves(Whose::Stranger)).collect();
    assert_eq!(serves, [[true; 5], [false; 5]].concat());
    assert!(held.iter().all(|permit| permit.turn.serves(Whose::Known)));
    assert!(take(10).is_none(), "full");
    // As many idle strangers are disconnected as are necessary for the new one's slot.
    held.iter().for_each(|permit| is_idle(permit, 1));
    let newcomer = take(10).unwrap();
    assert!(newcomer.turn.serves(Whose::Stranger));
    let staying: Vec<&ConnectionPermit> = held.iter().filter(|permit| permit.turn.sent_away().is_none()).collect();
    assert_eq!(staying.len(), 4);
    drop(newcomer);
    // Clients that have proven to be known do not count as strangers.
    staying.iter().for_each(|permit| permit.turn.begins(slots.start, Stage::AfterMail, Whose::Known));
    let others: Vec<ConnectionPermit> = (11..17).filter_map(take).collect();
    let serves: Vec<bool> = others.iter().map(|permit| permit.turn.serves(Whose::Stranger)).collect();
    assert_eq!(serves, [[true; 5].as_slice(), &[false]].concat());
}

#[tokio::test(start_paused = true)]
async fn idle_limits_shrink_in_a_crowd() {
    let config = load_text(CONFIG, std::path::Path::new("fingerpost.toml")).unwrap();
    let (slots, internet) = (slots(), &*config.receive_connectors[0]);
    let clearing = tokio::spawn(slots.clone().keep_clearing());
    let mut held: Vec<ConnectionPermit> = (0..8).map(|at| take(&slots, internet, at).ok().unwrap()).collect();
    held.iter().for_each(|permit| is_idle(permit, 0));
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert!(held.iter().all(|permit| permit.turn.sent_away().is_none()), "eight of ten are no crowd");
    held.push(take(&slots, internet, 8).ok().unwrap());
    tokio::time::sleep(Duration::from_secs(2)).await;
    let gone: Vec<Option<Why>> = held.iter().map(|permit| permit.turn.sent_away()).collect();
    assert_eq!((&gone[..8], gone[8]), (&[Some(Why::Idle); 8][..], None));
    assert_eq!(slots.metrics.sessions_sent_away.with_label_values(&["idle"]).get(), 8);
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
        let slots = slots();
        let take = |address: &str| {
            slots.take(connector, address.parse().unwrap(), Behind::Nobody, Proof::Impossible, Sessions::Any)
        };
        let (_first, second) = (take(first).ok().unwrap(), take(second).ok().unwrap());
        assert_eq!(take(third).err(), (!room).then_some(NoSlot::FullForAddress), "{third}");
        drop(second);
        assert!(take(third).is_ok(), "{third}: a slot is free again");
    }
}
