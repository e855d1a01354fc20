//! The kernel's information about a TCP connection (TCP_INFO, tcp(7)), and whether it looks like a path MTU black hole
//! (RFC 2923 2.1): small segments pass, and the first full one is retransmitted repeatedly.
//!
//! `delivery/attempt` uses it when a next hop has accepted nothing for a while.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Unanswered retransmissions, each after twice the time of the one before: a single one may be due to a lost packet.
const REPEATED: u8 = 2;

/// A payload that every path carries: a packet of 576 bytes less the headers of IPv4 and TCP (RFC 1122 3.3.2).
const SMALL: u64 = 536;

/// In bytes without headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpInfo {
    /// The longest segment that we send.
    pub segment: u64,
    pub acked: u64,
    pub delivered: u64,
    pub in_flight: u64,
    /// Retransmissions of the oldest of them since the last acknowledgement.
    pub repeated: u8,
}

impl TcpInfo {
    /// Reads TCP_INFO.
    ///
    /// # Errors
    /// Those of the system: it is not a TCP socket.
    pub fn of(socket: impl AsFd) -> io::Result<Self> {
        let info = get(&socket)?;
        Ok(Self {
            segment: info.tcpi_snd_mss.into(),
            acked: info.tcpi_bytes_acked,
            delivered: info.tcpi_delivered.into(),
            in_flight: info.tcpi_bytes_sent.saturating_sub(info.tcpi_bytes_retrans + info.tcpi_bytes_acked),
            repeated: info.tcpi_retransmits,
        })
    }

    /// Whether data larger than any path is sure to carry is retransmitted repeatedly, while everything that arrived so
    /// far was small. A peer that does not read still acknowledges; and if full segments have arrived the path carries
    /// them.
    #[must_use]
    pub fn is_black_hole(&self) -> bool {
        let all_small = self.acked < self.delivered.saturating_mul(self.segment / 2);
        self.repeated >= REPEATED && self.in_flight > SMALL.min(self.segment) && all_small
    }
}

#[expect(unsafe_code, reason = "neither socket2 nor rustix has TCP_INFO")]
fn get(socket: &impl AsFd) -> io::Result<libc::tcp_info> {
    // SAFETY: `tcp_info` has integers only, for which all zeros is valid; older kernels fill less of it.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = libc::socklen_t::try_from(size_of_val(&info)).map_err(io::Error::other)?;
    let (fd, pointer) = (socket.as_fd().as_raw_fd(), (&raw mut info).cast());
    // SAFETY: the descriptor is open while it is borrowed; `pointer` is valid for `length` bytes, and the kernel
    // writes no more than that.
    let result = unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, pointer, &raw mut length) };
    if result == 0 { Ok(info) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_black_hole_is_known_by_what_passes_and_what_does_not() {
        let hole = TcpInfo { segment: 1448, acked: 160, delivered: 5, in_flight: 14_480, repeated: 5 };
        for (what, info, is) in [
            ("the first full segments of DATA", hole, true),
            ("a message of one segment", TcpInfo { in_flight: 900, ..hole }, true),
            ("a lost packet", TcpInfo { repeated: 1, ..hole }, false),
            ("a peer that acknowledges and takes nothing", TcpInfo { repeated: 0, in_flight: 0, ..hole }, false),
            ("a peer that is gone after a small command", TcpInfo { in_flight: 30, ..hole }, false),
            ("a few commands at once", TcpInfo { in_flight: 536, ..hole }, false),
            ("a peer that is gone in the middle", TcpInfo { acked: 60_000, delivered: 46, ..hole }, false),
        ] {
            assert_eq!(info.is_black_hole(), is, "{what}");
        }
    }

    #[test]
    fn the_kernel_counts() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(&[7; 1000]).unwrap();
        let mut all = [0; 1000];
        server.read_exact(&mut all).unwrap();
        server.write_all(b"x").unwrap();
        client.read_exact(&mut all[..1]).unwrap(); // it carries the acknowledgement
        let info = TcpInfo::of(&client).unwrap();
        assert!((1000..=1001).contains(&info.acked) && info.delivered > 0 && info.segment > 500, "{info:?}");
        assert_eq!((info.in_flight, info.repeated, info.is_black_hole()), (0, 0, false));
        assert!(TcpInfo::of(std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).is_err());
    }
}
