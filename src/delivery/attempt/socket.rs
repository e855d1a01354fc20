//! A TCP connection to a next hop with the connector's options, which are set before it connects because they affect
//! the handshake.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpSocket, TcpStream};

use crate::config::SmtpOut;
use crate::net;

/// Connects. The caller limits the time.
///
/// # Errors
/// Those of the system.
pub(super) async fn connect(smtp: &SmtpOut, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if let Some(source) = smtp.source_address {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    if smtp.max_segment_size.is_some() {
        net::set_segment_size(&socket, smtp.max_segment_size)?;
    }
    if !smtp.path_mtu_discovery {
        net::leave_path_mtu_alone(&socket, address)?;
    }
    let socket = socket.connect(address).await?;
    socket.set_nodelay(true)?;
    Ok(socket)
}
