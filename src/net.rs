//! Listening sockets with the options that we want. `listener` opens them.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

/// Connections that the kernel holds for us while we are busy.
const BACKLOG: i32 = 1024;

/// Opens a listening socket. An IPv6 one takes IPv6 only, so that `0.0.0.0:25` and `[::]:25` can stand side by side.
///
/// # Errors
/// As the system reports them.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?; // connections of our last run may linger in TIME_WAIT
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_families_share_a_port_and_a_taken_one_is_an_error() {
        let six = listen("[::]:0".parse().unwrap()).unwrap();
        let port = six.local_addr().unwrap().port();
        let four = listen(format!("0.0.0.0:{port}").parse().unwrap()).unwrap();
        assert_eq!(four.local_addr().unwrap().port(), port);
        let taken = listen(format!("0.0.0.0:{port}").parse().unwrap()).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
    }
}
