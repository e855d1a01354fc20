//! Chooses the receive connector for a client by its address: the one with the most specific network, and the first in
//! the configuration among equals.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::{Config, ReceiveConnector};

/// The receive connector for a client's address: among those of the listener `bind`, or among all where no listener is
/// given (`fingerpost route --from`). Connectors with `client_names` serve only clients with such a name.
#[must_use]
pub fn choose(config: &Config, bind: Option<SocketAddr>, client: IpAddr) -> Option<&Arc<ReceiveConnector>> {
    let here = |connector: &&Arc<ReceiveConnector>| bind.is_none_or(|bind| connector.bind.contains(&bind));
    let by_address = config.receive_connectors.iter().filter(|connector| connector.client_names.is_empty());
    most_specific(by_address.filter(here), client)
}

/// The one with the most specific network that contains the client; the first among equals.
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
