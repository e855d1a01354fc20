//! Chooses the receive connector for a client that presents a certificate.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::identity::Believed;
use crate::config::door::most_specific;
use crate::config::{Config, ReceiveConnector};

/// The receive connector that a client's certificate selects, and the name by which: among those of the listener that
/// accept the client's address, the one with the most specific network ([`choose`](crate::config::door::choose)).
#[must_use]
pub fn choose_by_certificate<'a>(
    config: &'a Config,
    bind: SocketAddr,
    client: IpAddr,
    shown: &'a Believed,
) -> Option<(&'a Arc<ReceiveConnector>, &'a str)> {
    let at_bind = config.receive_connectors.iter().filter(|connector| connector.bind.contains(&bind));
    let connector = most_specific(at_bind.filter(|connector| shown.selects(connector).is_some()), client)?;
    Some((connector, shown.selects(connector)?))
}
