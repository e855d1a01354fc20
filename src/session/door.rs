//! Which receive connector serves a client.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::config::{Config, ReceiveConnector};

/// The receive connector that serves a client: of those that share the bind the one whose network around the client
/// is the most specific, the first written among equals. `bind` is as configured.
#[must_use]
pub fn choose(config: &Config, bind: SocketAddr, client: IpAddr) -> Option<&Arc<ReceiveConnector>> {
    let mut best: Option<(u8, &Arc<ReceiveConnector>)> = None;
    for connector in config.receive_connectors.iter().filter(|connector| connector.bind.contains(&bind)) {
        let networks = connector.remote_networks.iter().filter(|network| network.contains(client));
        let Some(prefix) = networks.map(|network| network.prefix()).max() else { continue };
        if best.is_none_or(|(known, _)| prefix > known) {
            best = Some((prefix, connector));
        }
    }
    best.map(|(_, connector)| connector)
}
