//! A cell's next hop: scripted, or one that cannot even be connected to.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use socket2::{Domain, Socket, Type};

use super::{ScriptedSmtpServer, TestNetwork};
use support::free_port;

/// A next hop that may not be there yet.
pub(super) enum Hop {
    There {
        hop: ScriptedSmtpServer,
        well: &'static str,
    },
    /// One without a script, which several cells share.
    Well(Arc<ScriptedSmtpServer>),
    /// Nobody listens there.
    Refuses(SocketAddr),
    /// A listener whose queue is full: Linux drops what else wants to connect. The connections that fill it.
    Silent {
        listener: Socket,
        address: SocketAddr,
        filling: Vec<Socket>,
    },
}

const OFFERS_TLS: &str = "ehlo => 250-next.hop\\n250-PIPELINING\\n250-STARTTLS\\n250 AUTH PLAIN LOGIN\n\
                          auth => 235 2.7.0 welcome";

impl Hop {
    /// One that offers TLS and authentication.
    pub(super) fn start_with_secrets(network: &TestNetwork, script: &str) -> Self {
        Self::There { hop: network.tls_hop(&format!("{script}\n{OFFERS_TLS}")), well: OFFERS_TLS }
    }

    pub(super) fn start(network: &TestNetwork, script: &str) -> Self {
        match script.trim() {
            "connect => refuse" => {
                Self::Refuses(SocketAddr::from((Ipv4Addr::LOCALHOST, free_port(Ipv4Addr::LOCALHOST))))
            }
            "connect => silence" => Self::silent(),
            script => Self::There { hop: network.hop(script), well: "" },
        }
    }

    fn silent() -> Self {
        let socket = || Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let listener = socket();
        listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let mut filling = Vec::new();
        // One connection fills a queue of length 0 (listen(2)); more only ask.
        for _ in 0..3 {
            let filler = socket();
            filler.set_nonblocking(true).unwrap();
            let _ = filler.connect(&address.into());
            filling.push(filler);
        }
        Self::Silent { listener, address, filling }
    }

    pub(super) fn address(&self) -> SocketAddr {
        match self {
            Self::There { hop, .. } => hop.address,
            Self::Well(hop) => hop.address,
            Self::Refuses(address) | Self::Silent { address, .. } => *address,
        }
    }

    pub(super) fn taken(&self) -> Vec<String> {
        match self {
            Self::There { hop, .. } => hop.taken(),
            Self::Well(hop) => hop.taken(),
            _ => Vec::new(),
        }
    }

    /// From now on it agrees to everything.
    pub(super) fn get_well(&mut self, network: &TestNetwork) {
        let hop = match self {
            Self::There { hop, well } => return hop.follow(well),
            Self::Well(_) => return,
            Self::Refuses(address) => network.hop_on(TcpListener::bind(*address).unwrap(), ""),
            Self::Silent { listener, filling, .. } => {
                filling.clear();
                network.hop_on(listener.try_clone().unwrap().into(), "")
            }
        };
        *self = Self::There { hop, well: "" };
    }
}

#[test]
fn a_silent_next_hop_neither_answers_nor_refuses() {
    let hop = Hop::silent();
    let error = TcpStream::connect_timeout(&hop.address(), std::time::Duration::from_millis(300)).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
}
