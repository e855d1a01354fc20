//! TCP sockets and their options, and the kernel's information about a connection. `listener` opens its sockets here,
//! `delivery` sets options of its own.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;

use rustix::net::sockopt::{self, Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::TcpListener;

pub(crate) mod staggered;
pub mod tcp_info;

/// The backlog: connections that the kernel queues for us.
const BACKLOG: i32 = 1024;

/// Opens a listening socket. An IPv6 one accepts IPv6 only, so that `0.0.0.0:25` and `[::]:25` can both be open.
/// `segment_size`: see [`set_segment_size`]; it is sent in the handshake, so it is set before listening.
///
/// # Errors
/// Those of the system.
pub fn listen(address: SocketAddr, segment_size: Option<u16>) -> io::Result<TcpListener> {
    TcpListener::from_std(open(address, segment_size, Port::Alone)?.into())
}

/// The same while listeners of ours with the same port are still open and about to be closed: so `0.0.0.0:25` can
/// become `10.0.0.1:25` without a gap. Other processes, such as a second Fingerpost, cannot share the port.
///
/// # Errors
/// Those of the system.
pub fn listen_beside(
    address: SocketAddr,
    segment_size: Option<u16>,
    leaving: &[&TcpListener],
) -> io::Result<TcpListener> {
    if leaving.is_empty() {
        return listen(address, segment_size);
    }
    let let_share = |shared| leaving.iter().try_for_each(|listener| SockRef::from(*listener).set_reuse_port(shared));
    let opened = let_share(true).and_then(|()| open(address, segment_size, Port::Shared));
    let alone_again = let_share(false);
    let socket = opened?;
    alone_again?;
    socket.set_reuse_port(false)?;
    TcpListener::from_std(socket.into())
}

/// Whether the port may be shared with other listeners of ours.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Port {
    Alone,
    /// It may, if they allow it as well (SO_REUSEPORT).
    Shared,
}

fn open(address: SocketAddr, segment_size: Option<u16>, port: Port) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?; // connections of our last run may linger in TIME_WAIT
    socket.set_reuse_port(port == Port::Shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    set_segment_size(&socket, segment_size)?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// The longest TCP segment in either direction, bytes (TCP_MAXSEG); `None`: chosen by the system. It applies to later
/// connections, including those of a listening socket.
///
/// # Errors
/// Those of the system.
pub fn set_segment_size(socket: impl AsFd, size: Option<u16>) -> io::Result<()> {
    SockRef::from(&socket).set_tcp_mss(size.unwrap_or_default().into())
}

/// Clears the DF bit, so that routers may fragment packets that are too large (ip(7)). `address` is the destination. On
/// IPv6 routers never fragment: use a smaller segment size there.
///
/// # Errors
/// Those of the system.
pub fn leave_path_mtu_alone(socket: impl AsFd, address: SocketAddr) -> io::Result<()> {
    match address {
        SocketAddr::V4(_) => sockopt::set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::DONT)?,
        SocketAddr::V6(_) => sockopt::set_ipv6_mtu_discover(socket, Ipv6PathMtuDiscovery::DONT)?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_families_share_a_port_and_a_taken_one_is_an_error() {
        let six = listen("[::]:0".parse().unwrap(), None).unwrap();
        let port = six.local_addr().unwrap().port();
        let four = listen(format!("0.0.0.0:{port}").parse().unwrap(), None).unwrap();
        assert_eq!(four.local_addr().unwrap().port(), port);
        let taken = listen(format!("0.0.0.0:{port}").parse().unwrap(), None).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
    }

    #[tokio::test]
    async fn clients_of_a_listener_keep_to_its_segment_size() {
        let listener = listen("127.0.0.1:0".parse().unwrap(), Some(500)).unwrap();
        let mss = |client: &tokio::net::TcpStream| SockRef::from(client).tcp_mss().unwrap();
        let connect = || tokio::net::TcpStream::connect(listener.local_addr().unwrap());
        let clamped = connect().await.unwrap();
        assert!(mss(&clamped) <= 500, "{}", mss(&clamped));
        set_segment_size(&listener, None).unwrap();
        let free = connect().await.unwrap();
        assert!(mss(&free) > 1000, "{}", mss(&free));
    }

    #[tokio::test]
    async fn df_is_left_out_on_either_family() {
        for address in ["127.0.0.1:25", "[::1]:25"] {
            let address: SocketAddr = address.parse().unwrap();
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
            leave_path_mtu_alone(&socket, address).unwrap();
            match address {
                SocketAddr::V4(_) => {
                    assert_eq!(sockopt::ip_mtu_discover(&socket).unwrap(), Ipv4PathMtuDiscovery::DONT);
                }
                SocketAddr::V6(_) => {
                    assert_eq!(sockopt::ipv6_mtu_discover(&socket).unwrap(), Ipv6PathMtuDiscovery::DONT);
                }
            }
        }
    }
}
