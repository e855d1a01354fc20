//! Connections from balancers that say who the client is: the PROXY header is read, and not a byte more.
//!
//! `listener` asks here before it looks for a receive connector. [`proxy_protocol`](crate::smtp::proxy_protocol) reads
//! the bytes; who is trusted stands in the configuration, the same for all connectors of a bind.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::Config;
use crate::smtp::proxy_protocol::{LONGEST, Parsed, ProxyError, parse};

/// How long a balancer may take: it has all of the header before it connects.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a balancer's connection is closed.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoHeader {
    /// A health check that only connects.
    #[error("closed before a PROXY header came")]
    Closed,
    /// Nothing, or only a part.
    #[error("no whole PROXY header within {PATIENCE:?}; is the balancer set to send it?")]
    Late,
    /// Something else.
    #[error("{0}; is the balancer set to send it?")]
    Malformed(#[from] ProxyError),
    /// The network failed.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Whether this peer says in a PROXY header who the client is.
pub(super) fn is_trusted(config: &Config, bind: SocketAddr, peer: IpAddr) -> bool {
    let mut connectors = config.receive_connectors.iter().filter(|connector| connector.bind.contains(&bind));
    connectors.any(|connector| connector.trusted_proxies.iter().any(|network| network.contains(peer)))
}

/// Reads the header: the client's address, `None` where it names none. Nothing behind it is read.
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
