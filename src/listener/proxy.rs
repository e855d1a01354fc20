//! Reads the PROXY header on connections from load balancers, and not a byte more.
//!
//! `listener` calls it before it chooses a receive connector. [`proxy_protocol`](crate::smtp::proxy_protocol) parses
//! the bytes; trusted addresses are in the configuration, the same for all connectors of a listener.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::Config;
use crate::smtp::proxy_protocol::{LONGEST, Parsed, ProxyError, parse};

/// How long a load balancer may take: it has the whole header before it connects.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a load balancer's connection is closed.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoHeader {
    /// A health check that only connects.
    #[error("closed before a PROXY header came")]
    Closed,
    /// The header was not complete in time.
    #[error("no whole PROXY header within {PATIENCE:?}; is the balancer set to send it?")]
    Late,
    #[error("{0}; is the balancer set to send it?")]
    Malformed(#[from] ProxyError),
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Whether this peer sends a PROXY header.
pub(super) fn is_trusted(config: &Config, bind: SocketAddr, peer: IpAddr) -> bool {
    let mut connectors = config.receive_connectors.iter().filter(|connector| connector.bind.contains(&bind));
    connectors.any(|connector| connector.trusted_proxies.iter().any(|network| network.contains(peer)))
}

/// Reads the header: the client's address; `None`: it has none. Nothing after it is read.
pub(super) async fn client(socket: &mut TcpStream) -> Result<Option<SocketAddr>, NoHeader> {
    timeout(PATIENCE, read(socket)).await.map_err(|_| NoHeader::Late)?
}

async fn read(socket: &mut TcpStream) -> Result<Option<SocketAddr>, NoHeader> {
    let mut header = Vec::new();
    loop {
        let known = header.len();
        header.resize(LONGEST, 0);
        let seen = known + socket.peek(&mut header[known..]).await?;
        if seen == known {
            return Err(if known == 0 {
                NoHeader::Closed
            } else {
                io::Error::from(io::ErrorKind::UnexpectedEof).into()
            });
        }
        header.truncate(seen);
        let parsed = parse(&header)?;
        let taken = if let Parsed::Whole { length, .. } = parsed { length } else { seen };
        socket.read_exact(&mut header[known..taken]).await?;
        if let Parsed::Whole { client, .. } = parsed {
            return Ok(client);
        }
    }
}
