//! Which receive connector serves a client: of those whose networks have its address the one whose network is the most
//! specific, the first written among equals.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::{Config, ReceiveConnector};

/// The receive connector that a client's address chooses: of those that share the bind, as configured, or of all where
/// nobody asks at which bind (`fingerpost route --from`). Connectors with `client_names` are for those who show such a
/// name.
#[must_use]
pub fn choose(config: &Config, bind: Option<SocketAddr>, client: IpAddr) -> Option<&Arc<ReceiveConnector>> {
    let here = |connector: &&Arc<ReceiveConnector>| bind.is_none_or(|bind| connector.bind.contains(&bind));
    let by_address = config.receive_connectors.iter().filter(|connector| connector.client_names.is_empty());
    most_specific(by_address.filter(here), client)
}

/// The one with the most specific network around the client, the first among equals.
#[must_use]
pub fn most_specific<'a>(
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
