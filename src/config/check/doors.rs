//! Checks receive connectors: their networks, listeners that they share, and smart hosts that are listeners of ours.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use crate::config::file::ConfigTables;
use crate::config::network::Network;
use crate::config::source::{Item, Problems};
use crate::config::{Host, Protocol, ReceiveConnector, ReceiveTlsMode, SmartHost};
use crate::smtp::envelope::Relay;

use super::element;

/// Reports everything that is wrong with them.
pub(super) fn check(written: &ConfigTables, problems: &mut Problems) {
    if !written.names.contains("receive_connector") {
        problems.add(&written.main, "missing [[receive_connector]]; without one nothing listens");
    }
    for (at, item) in written.receive_connectors.iter().enumerate() {
        networks(item, problems);
        for other in &written.receive_connectors[..at] {
            shared(item, other, problems);
        }
    }
    admin(written, problems);
    own_listeners(written, problems);
}

/// Rights that are granted to too many clients.
fn networks(item: &Item<ReceiveConnector>, problems: &mut Problems) {
    let connector = &item.used;
    for (at, network) in connector.trusted_proxies.iter().enumerate().filter(|(_, network)| is_the_world(network)) {
        let place = item.places.at(&element("trusted_proxies", at));
        problems.add(&place, format!("whoever is in {network} could say that he is anybody; name the balancers"));
    }
    if !connector.client_names.is_empty() {
        return; // their certificates are trusted, wherever they come from
    }
    for (at, network) in connector.remote_networks.iter().enumerate() {
        let place = item.places.at(&element("remote_networks", at));
        if connector.relay_by_address() == Relay::Anywhere && is_the_world(network) {
            let cure = "name the networks of the hosts that may send anywhere";
            problems.add(&place, format!("relay = \"anywhere\" for {network} makes an open relay; {cure}"));
        }
        let widest = if network.is_v6() { 64 } else { 24 };
        if connector.resolves_first && network.prefix() < widest {
            let cure = "name the hosts of that organisation";
            problems.add(&place, format!("resolves_first for {network}, which is wider than /{widest}; {cure}"));
        }
    }
}

/// Whether a network is too large to belong to one organisation: more than 16 million addresses, or a sixteenth of
/// IPv6, except for unique local addresses (RFC 4193) and link-local ones.
fn is_the_world(network: &Network) -> bool {
    let own = ["fc00::/7", "fe80::/10"].iter().filter_map(|own| own.parse::<Network>().ok());
    let widest = if network.is_v6() { 16 } else { 8 };
    network.prefix() < widest && !own.into_iter().any(|own| own.overlaps(network) && own.prefix() <= network.prefix())
}

/// Two connectors on one listener: the client's network chooses between them, after the connection was accepted.
fn shared(item: &Item<ReceiveConnector>, other: &Item<ReceiveConnector>, problems: &mut Problems) {
    let (ours, theirs) = (&item.used, &other.used);
    for (at, bind) in ours.bind.iter().enumerate() {
        let place = item.places.at(&element("bind", at));
        if let Some(wider) = theirs.bind.iter().find(|wider| *wider != bind && covers(wider, bind)) {
            problems.add(
                &place,
                format!("{bind} cannot be bound beside {wider} of `{}`; write {wider} in both", theirs.name),
            );
        }
        if let Some(wider) = theirs.bind.iter().find(|narrow| *narrow != bind && covers(bind, narrow)) {
            problems.add(
                &place,
                format!("{bind} cannot be bound beside {wider} of `{}`; write {bind} in both", theirs.name),
            );
        }
        if !theirs.bind.contains(bind) {
            continue;
        }
        let implicit = |connector: &ReceiveConnector| connector.tls.mode == ReceiveTlsMode::Implicit;
        for key in shared_settings(ours, theirs) {
            let message = format!("{bind} is shared with `{}`; write the same `{key}` in both", theirs.name);
            problems.add(&place, message);
        }
        if implicit(ours) != implicit(theirs) {
            let message =
                format!("{bind} is shared with `{}`; both or neither have tls mode \"implicit\"", theirs.name);
            problems.add(&place, message);
        }
        // A certificate with several names may match both; then the first one in the configuration serves.
        let together = match (&*ours.client_names, &*theirs.client_names) {
            ([], []) => true,
            (ours, theirs) => ours.iter().any(|name| theirs.contains(name)),
        };
        let mut networks = ours.remote_networks.iter().filter(|_| together);
        if let Some(network) = networks.find(|network| theirs.remote_networks.contains(network)) {
            let message =
                format!("{bind} and {network} are those of `{}` too; nobody can say which serves", theirs.name);
            problems.add(&place, message);
        }
    }
}

/// Settings that apply before the client's network can choose between the two, and that differ.
fn shared_settings(ours: &ReceiveConnector, theirs: &ReceiveConnector) -> impl Iterator<Item = &'static str> {
    let within = |some: &[Network], all: &[Network]| some.iter().all(|network| all.contains(network));
    let proxies = (&ours.trusted_proxies, &theirs.trusted_proxies);
    let same_proxies = within(proxies.0, proxies.1) && within(proxies.1, proxies.0);
    let same_segments = ours.max_segment_size == theirs.max_segment_size;
    let settings = [("trusted_proxies", same_proxies), ("max_segment_size", same_segments)];
    settings.into_iter().filter(|(_, same)| !same).map(|(key, _)| key)
}

/// Whether listening at `wide` includes the address `narrow`.
fn covers(wide: &SocketAddr, narrow: &SocketAddr) -> bool {
    let family = wide.is_ipv4() == narrow.is_ipv4();
    // Port 0 means any free port.
    family && wide.port() == narrow.port() && wide.port() != 0 && (wide.ip().is_unspecified() || wide == narrow)
}

fn admin(written: &ConfigTables, problems: &mut Problems) {
    let admin = &written.admin;
    let binds = [("metrics_bind", admin.used.metrics_bind), ("bind", admin.used.bind)];
    if covers(&binds[0].1, &binds[1].1) {
        problems.add(admin.places.at("bind"), "`bind`: metrics_bind takes this address; use another port");
    }
    for item in &written.receive_connectors {
        for (key, bind) in binds {
            if item.used.bind.iter().any(|door| covers(door, &bind) || covers(&bind, door)) {
                let message = format!("`{key}`: {bind} is taken by receive connector `{}`", item.used.name);
                problems.add(admin.places.at(key), message);
            }
        }
    }
}

/// Smart hosts that are this server, as far as that can be known without the DNS.
fn own_listeners(written: &ConfigTables, problems: &mut Problems) {
    for item in &written.send_connectors {
        let Protocol::Smtp(smtp) = &item.used.protocol else { continue };
        for (at, smart_host) in smtp.smart_hosts.iter().enumerate() {
            let ours = |door: &SocketAddr| is_own(smart_host, door, written.server.used.hostname.as_str());
            let listener = written.receive_connectors.iter().find(|door| door.used.bind.iter().any(ours));
            if let Some(listener) = listener {
                let message = format!("`{smart_host}` is our own listener, receive connector `{}`", listener.used.name);
                problems.add(item.places.at(&element("smart_hosts", at)), message);
            }
        }
    }
}

fn is_own(smart_host: &SmartHost, door: &SocketAddr, hostname: &str) -> bool {
    if smart_host.port != door.port() {
        return false;
    }
    match &smart_host.host {
        Host::Address(address) if door.ip().is_unspecified() => {
            address.is_ipv4() == door.is_ipv4() && is_local(*address)
        }
        Host::Address(address) => *address == door.ip(),
        Host::Name(name) if name == "localhost" => door.ip().is_unspecified() || door.ip().is_loopback(),
        Host::Name(name) => name == hostname,
        Host::Unix(_) => false,
    }
}

/// Whether the address belongs to this host, by the source address that the kernel would choose. Nothing is sent.
fn is_local(address: IpAddr) -> bool {
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let from = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((address, 9))?;
        socket.local_addr()
    });
    address.is_loopback() || from.is_ok_and(|from| from.ip() == address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_world_is_known() {
        for (network, world) in [
            ("0.0.0.0/0", true),
            ("128.0.0.0/1", true),
            ("10.0.0.0/8", false),
            ("::/0", true),
            ("2000::/3", true),
            ("fc00::/7", false),
            ("fd00::/8", false),
            ("f000::/4", true),
            ("2001:db8::/32", false),
        ] {
            assert_eq!(is_the_world(&network.parse().unwrap()), world, "{network}");
        }
    }

    #[test]
    fn own_listeners_are_known() {
        let door = |text: &str| text.parse::<SocketAddr>().unwrap();
        let address = |text: &str, port| SmartHost::new(Host::Address(text.parse().unwrap()), port);
        let name = |text: &str, port| SmartHost::new(Host::Name(text.into()), port);
        for (smart_host, bind, own) in [
            (address("127.0.0.1", 25), "127.0.0.1:25", true),
            (address("127.0.0.1", 25), "0.0.0.0:25", true),
            (address("127.0.0.2", 25), "127.0.0.1:25", false),
            (address("127.0.0.1", 26), "127.0.0.1:25", false),
            (address("127.0.0.1", 25), "[::]:25", false),
            (address("::1", 25), "[::]:25", true),
            (address("192.0.2.7", 25), "0.0.0.0:25", false),
            (name("localhost", 25), "127.0.0.1:25", true),
            (name("mx.contoso.com", 25), "192.0.2.1:25", true),
            (name("ex.contoso.com", 25), "192.0.2.1:25", false),
        ] {
            assert_eq!(is_own(&smart_host, &door(bind), "mx.contoso.com"), own, "{smart_host:?} {bind}");
        }
    }
}
