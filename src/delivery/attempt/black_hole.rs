//! Detects a path MTU black hole (DESIGN section 7, "Path MTU"): small commands pass, the first full segment of the
//! content never arrives, and no router reports it.
//!
//! `connection` calls [`Watch::look`] whenever the next hop has accepted or sent nothing for [`STALL`], and cut-through
//! when it stops waiting, which may be sooner. A suspicion is logged once for each connection; if nothing moves for the
//! whole `reply_timeout`, it becomes the connection's error.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus::IntCounter;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::net::tcp_info::TcpInfo;

/// After this time without progress the connection is examined. TCP has retransmitted five times by then.
pub(super) const STALL: Duration = Duration::from_secs(10);

/// The state of such a connection, and the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlackHole {
    connector: Arc<str>,
    acked: u64,
    in_flight: u64,
    segment: u64,
}

impl fmt::Display for BlackHole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connector, acked, in_flight, segment } = self;
        write!(
            f,
            "suspected path MTU black hole: {acked} bytes of small segments arrived, of {in_flight} bytes in segments of \
             up to {segment} none; set path_mtu_discovery = false or max_segment_size = 1200 on send connector {connector}"
        )
    }
}

#[derive(Debug)]
pub struct Watch {
    connector: Arc<str>,
    count: IntCounter,
    /// Since when it is suspected, and how many bytes had arrived then.
    suspected: Option<(Instant, u64)>,
    told: bool,
}

impl Watch {
    /// For a connection of this send connector; `count` is its `path_mtu_black_holes_total`.
    #[must_use]
    pub(super) fn new(connector: Arc<str>, count: IntCounter) -> Self {
        Self { connector, count, suspected: None, told: false }
    }

    /// Examines a connection without progress; logs a new suspicion. Returns it, and how long it has lasted.
    pub(super) fn look(&mut self, socket: &TcpStream, next_hop: &str) -> Option<(BlackHole, Duration)> {
        let info = TcpInfo::of(socket).ok().filter(TcpInfo::is_black_hole);
        let now = Instant::now();
        let Some(info) = info else {
            self.suspected = None;
            return None;
        };
        let since = match self.suspected {
            Some((since, acked)) if acked == info.acked => since,
            _ => now,
        };
        self.suspected = Some((since, info.acked));
        let TcpInfo { acked, in_flight, segment, .. } = info;
        let hole = BlackHole { connector: self.connector.clone(), acked, in_flight, segment };
        if !std::mem::replace(&mut self.told, true) {
            tracing::error!(alert = true, send_connector = %self.connector, next_hop, "{hole}");
            self.count.inc();
        }
        Some((hole, now - since))
    }
}
