//! Which receive connector serves a client.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::identity::Believed;
use crate::config::{Config, ReceiveConnector};

/// The receive connector that a client's address chooses: of those that share the bind the one whose network around
/// the client is the most specific, the first written among equals. `bind` is as configured. Connectors with
/// `client_names` are for those who show such a name.
#[must_use]
pub fn choose(config: &Config, bind: SocketAddr, client: IpAddr) -> Option<&Arc<ReceiveConnector>> {
    let at_bind = config.receive_connectors.iter().filter(|connector| connector.bind.contains(&bind));
    most_specific(at_bind.filter(|connector| connector.client_names.is_empty()), client)
}

/// The receive connector that a client's certificate chooses, and the name that did: among those of the bind that take
/// clients from its address the same rule as for [`choose`].
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

fn most_specific<'a>(
    connectors: impl Iterator<Item = &'a Arc<ReceiveConnector>>,
    client: IpAddr,
) -> Option<&'a Arc<ReceiveConnector>> {
    let mut best: Option<(u8, &Arc<ReceiveConnector>)> = None;
    for connector in connectors {
        let networks = connector.remote_networks.iter().filter(|network| network.contains(client));
        let Some(prefix) = networks.map(|network| network.prefix()).max() else { continue };
        if best.is_none_or(|(known, _)| prefix > known) {
            best = Some((prefix, connector));
        }
    }
    best.map(|(_, connector)| connector)
}
