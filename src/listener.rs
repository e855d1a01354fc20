//! All listening sockets of a configuration: accepts clients, chooses the receive connector, enforces the limits on
//! connections, and starts a [`session`].
//!
//! `run` applies each configuration; unchanged listeners are not touched, and sessions outlive their listener.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{Auth, Config, ReceiveConnector, ReceiveTlsMode, door};
use crate::descriptors::{self, Room};
use crate::session::{self, Client, Identity, Services};
use crate::smtp::envelope::Shown;
use crate::smtp::names::ClientName;
use crate::smtp::reply::{self, Reply};
use crate::strangers::sums::{About, Kind};
use crate::tls::serve::Certificates;
use crate::{net, time::UnixTime};

mod crowd;
mod eviction;
mod error;
mod proxy;
mod renew;
mod connection_slots;

use connection_slots::{Behind, ConnectionSlots, Proof, Sessions};
pub use error::ListenError;
use proxy::NoHeader;
use renew::Watched;

/// How long accepting pauses after an error on our side, such as too many open files; doubled after each, up to a
/// second.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Connections that are accepted in a row before other tasks have a turn.
const BURST: u32 = 32;
/// How long a client that is refused may take to read the reply.
const REFUSAL: Duration = Duration::from_secs(5);

/// What all accept loops share.
struct ListenerState {
    services: Arc<Services>,
    certificates: ArcSwap<Certificates>,
    slots: ConnectionSlots,
    /// Limits the refused clients that may wait to read their reply; others are closed without one, so that a flood
    /// takes no more sockets than these.
    refusals: Arc<Semaphore>,
    /// Limits the connections that wait for a load balancer's header.
    unnamed: Arc<Semaphore>,
    sessions: TaskTracker,
    /// Cancelled when sessions have to end.
    draining: CancellationToken,
    next_session: AtomicU64,
}

struct Open {
    local: SocketAddr,
    /// Shared with its accept loop.
    listener: Arc<TcpListener>,
    stop: CancellationToken,
}

pub struct Listeners {
    shared: Arc<ListenerState>,
    open: Mutex<HashMap<SocketAddr, Open>>,
    /// The files that certificates were read from.
    watched: Mutex<Watched>,
    /// Whether the task that checks idle clients was started.
    clearing: Once,
    /// Sockets that were opened before root's rights were given up, and have not been used yet.
    bound: Mutex<HashMap<SocketAddr, TcpListener>>,
    accepting: TaskTracker,
}

impl Listeners {
    #[must_use]
    pub fn new(services: Services) -> Self {
        let passing = descriptors::passing(descriptors::limit());
        let (refusals, draining) = (Arc::new(Semaphore::new(passing)), CancellationToken::new());
        let shared = ListenerState {
            slots: ConnectionSlots::new(services.metrics.clone(), draining.clone(), refusals.clone()),
            services: Arc::new(services),
            refusals,
            unnamed: Arc::new(Semaphore::new(passing)),
            certificates: ArcSwap::default(),
            sessions: TaskTracker::new(),
            draining,
            next_session: AtomicU64::new(UnixTime::now().0 << 24), // unlike those of the last run
        };
        Self {
            shared: Arc::new(shared),
            open: Mutex::default(),
            watched: Mutex::default(),
            clearing: Once::new(),
            bound: Mutex::default(),
            accepting: TaskTracker::new(),
        }
    }

    /// The same with open sockets; clients that connect to them wait until they are used.
    #[must_use]
    pub fn with_bound(self, bound: HashMap<SocketAddr, TcpListener>) -> Self {
        Self { bound: Mutex::new(bound), ..self }
    }

    /// Opens the sockets of a configuration, for [`with_bound`](Self::with_bound).
    ///
    /// # Errors
    /// A [`ListenError`].
    pub fn bind(config: &Config) -> Result<HashMap<SocketAddr, TcpListener>, ListenError> {
        let mut bound = HashMap::new();
        for connector in &config.receive_connectors {
            for &address in &connector.bind {
                if let Entry::Vacant(free) = bound.entry(address) {
                    let failed = |cause| ListenError::Bind { connector: connector.name.clone(), address, cause };
                    free.insert(net::listen(address, connector.max_segment_size).map_err(failed)?);
                }
            }
        }
        Ok(bound)
    }

    /// Opens new listeners, closes those that are gone, reads all certificates again, and changes nothing else.
    /// Sessions go on. Must be called within the runtime.
    ///
    /// # Errors
    /// A [`ListenError`]; then nothing has changed.
    pub fn apply(&self, config: &Config) -> Result<(), ListenError> {
        let watched = Watched::of(config);
        let certificates = renew::load(config)?;
        let wanted = |address: &SocketAddr| config.receive_connectors.iter().any(|c| c.bind.contains(address));
        let mut open = self.open.lock();
        let mut opened: HashMap<SocketAddr, TcpListener> = HashMap::new();
        for connector in &config.receive_connectors {
            for &address in &connector.bind {
                if open.contains_key(&address) || opened.contains_key(&address) {
                    continue;
                }
                let name = || connector.name.clone();
                let bind = |cause| ListenError::Bind { connector: name(), address, cause };
                let leaves = |(old, open): &(&SocketAddr, &Open)| !wanted(old) && open.local.port() == address.port();
                let leaving: Vec<&TcpListener> = open.iter().filter(leaves).map(|(_, open)| &*open.listener).collect();
                let bound = self.bound.lock().remove(&address);
                let listener = match bound {
                    Some(listener) => listener,
                    None => net::listen_beside(address, connector.max_segment_size, &leaving).map_err(bind)?,
                };
                opened.insert(address, listener);
            }
        }
        self.note_expiries(config);
        self.shared.slots.set_room(Room::of(config, descriptors::limit()));
        self.clearing.call_once(|| {
            let (slots, until) = (self.shared.slots.clone(), self.shared.draining.clone());
            self.shared.sessions.spawn(async move { until.run_until_cancelled(slots.keep_clearing()).await });
        });
        self.shared.certificates.store(Arc::new(certificates));
        *self.watched.lock() = watched;
        open.retain(|address, bind| {
            let keep = wanted(address);
            if !keep {
                tracing::info!(%address, "listener closed");
                bind.stop.cancel();
            }
            keep
        });
        for (address, listener) in opened {
            open.insert(address, self.start(address, listener));
        }
        for connector in &config.receive_connectors {
            for bind in connector.bind.iter().filter_map(|address| open.get(address)) {
                if let Err(error) = net::set_segment_size(&bind.listener, connector.max_segment_size) {
                    tracing::error!(address = %bind.local, %error, "cannot set max_segment_size");
                }
            }
        }
        Ok(())
    }

    /// Starts the accept loop.
    fn start(&self, address: SocketAddr, listener: TcpListener) -> Open {
        let local = listener.local_addr().unwrap_or(address);
        let stop = CancellationToken::new();
        tracing::info!(address = %local, "listening");
        let listener = Arc::new(listener);
        let (shared, until, accepted) = (self.shared.clone(), stop.clone(), listener.clone());
        self.accepting.spawn(async move {
            until.run_until_cancelled(shared.accept(address, accepted)).await;
        });
        Open { local, listener, stop }
    }

    /// The listeners' addresses, with the actual port where the configuration has 0.
    #[must_use]
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        let open = self.open.lock();
        let mut addresses: Vec<SocketAddr> = open.values().map(|bind| bind.local).collect();
        addresses.sort_unstable();
        addresses
    }

    /// Accepts no more clients, lets transactions in progress finish, and waits for the sessions, for `patience` at
    /// most. Sessions that are left then end with the runtime; nothing of theirs was acknowledged.
    pub async fn drain(&self, patience: Duration) {
        for (_, bind) in self.open.lock().drain() {
            bind.stop.cancel();
        }
        self.accepting.close();
        self.accepting.wait().await;
        self.shared.draining.cancel();
        self.shared.sessions.close();
        if tokio::time::timeout(patience, self.shared.sessions.wait()).await.is_err() {
            tracing::warn!(sessions = self.shared.sessions.len(), "sessions are left after drain_timeout");
        }
    }
}

impl ListenerState {
    /// Accepts clients on one listener, for ever.
    async fn accept(self: Arc<Self>, bind: SocketAddr, listener: Arc<TcpListener>) {
        let (mut pause, mut in_a_row) = (FIRST_PAUSE, 0);
        loop {
            match listener.accept().await {
                Ok((socket, address)) => {
                    pause = FIRST_PAUSE;
                    self.arrive(bind, socket, address);
                    in_a_row = (in_a_row + 1) % BURST;
                    if in_a_row == 0 {
                        tokio::task::yield_now().await;
                    }
                }
                Err(error) if is_the_clients(&error) => {}
                Err(error) => {
                    tracing::error!(%error, %bind, "cannot accept connections; trying again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Admits the client; with a load balancer, after its header was read.
    fn arrive(self: &Arc<Self>, bind: SocketAddr, mut socket: TcpStream, peer: SocketAddr) {
        if !proxy::is_trusted(&self.services.current.load().config, bind, peer.ip()) {
            return self.admit(bind, socket, peer, Behind::Nobody);
        }
        let Ok(unnamed) = self.unnamed.clone().try_acquire_owned() else {
            return self.services.metrics.sessions_refused.with_label_values(&["descriptors"]).inc();
        };
        let shared = self.clone();
        self.sessions.spawn(async move {
            let header = shared.draining.run_until_cancelled(proxy::client(&mut socket)).await;
            drop(unnamed);
            let balancer = peer.ip().to_canonical();
            match header {
                Some(Ok(client)) => shared.admit(bind, socket, client.unwrap_or(peer), Behind::Balancer),
                Some(Err(NoHeader::Closed)) => tracing::debug!(%balancer, "closed before a PROXY header came"),
                Some(Err(error)) => {
                    if shared.services.strangers.tells(&About::new(Kind::TurnedAway, balancer, "proxy-header")) {
                        tracing::warn!(%balancer, %bind, %error, "connection from a trusted proxy closed");
                    }
                    shared.services.metrics.sessions_refused.with_label_values(&["proxy-header"]).inc();
                }
                None => {}
            }
        });
    }

    /// Starts a session, or refuses the client.
    fn admit(self: &Arc<Self>, bind: SocketAddr, socket: TcpStream, address: SocketAddr, behind: Behind) {
        let config = self.services.current.load().config.clone();
        let Some(connector) = door::choose(&config, Some(bind), address.ip()) else {
            // A listener that the configuration in force does not have belongs to one that is about to be.
            let known = config.receive_connectors.iter().any(|connector| connector.bind.contains(&bind));
            let why = if known { reply::NOT_SERVED } else { reply::SHUTTING_DOWN };
            return self.turn_away(socket, address, "no-connector", why, None);
        };
        let strangers = &self.services.strangers;
        let harvests = connector.is_for_anybody() && strangers.has_one_session(address.ip(), &connector.limits);
        let sessions = if harvests { Sessions::One } else { Sessions::Any };
        let proof = proof(&config, bind, connector);
        let permit = match self.slots.take(connector, address.ip(), behind, proof, sessions) {
            Ok(permit) => permit,
            Err(none) => {
                let (reason, reply) = none.told();
                return self.turn_away(socket, address, reason, reply, Some(connector));
            }
        };
        let _ = socket.set_nodelay(true); // replies are written whole; where it fails they are only later
        let client = Client {
            id: format!("{:x}", self.next_session.fetch_add(1, Ordering::Relaxed)).into(),
            address,
            bind,
            connector: connector.clone(),
            tls: self.certificates.load().at(bind, &connector.name).cloned(),
            identity: Identity::default(),
        };
        let services = self.services.clone();
        // Boxed: it is large, and spawning moves it.
        self.sessions.spawn(Box::pin(async move {
            session::serve(services, client, socket, permit.turn.clone()).await;
            drop(permit);
        }));
    }

    /// Sends the reply, and closes. With TLS from the first byte a reply in clear would be meaningless.
    fn turn_away(
        &self,
        mut socket: TcpStream,
        address: SocketAddr,
        reason: &'static str,
        why: Reply,
        connector: Option<&Arc<ReceiveConnector>>,
    ) {
        let organization = connector.map_or("", |connector| &connector.organization);
        let is_stranger = Shown { organization, authenticated: false }.is_stranger();
        if !is_stranger || self.services.strangers.tells(&About::new(Kind::TurnedAway, address.ip(), reason)) {
            tracing::info!(client = %address.ip().to_canonical(), reason, "connection turned away");
        }
        self.services.metrics.sessions_refused.with_label_values(&[reason]).inc();
        if connector.is_some_and(|connector| connector.tls.mode == ReceiveTlsMode::Implicit) {
            return;
        }
        let Ok(permit) = self.refusals.clone().try_acquire_owned() else { return };
        self.sessions.spawn(async move {
            let told = async {
                use tokio::io::AsyncWriteExt;
                socket.write_all(&why.to_wire()).await?;
                socket.shutdown().await?;
                tokio::io::copy(&mut socket, &mut tokio::io::sink()).await
            };
            let _ = tokio::time::timeout(REFUSAL, told).await; // whether it was read is the client's business
            drop(permit);
        });
    }
}

/// Whether a client of this connector can still prove that it is no stranger.
fn proof(config: &Config, bind: SocketAddr, connector: &ReceiveConnector) -> Proof {
    let names_organization = |other: &Arc<ReceiveConnector>| {
        let may_bring = |name: &ClientName| other.tenant.is_some() || other.vouches_for(name.as_str());
        !other.organization.is_empty() && other.client_names.iter().any(may_bring) && other.bind.contains(&bind)
    };
    let possible = connector.auth != Auth::None || config.receive_connectors.iter().any(names_organization);
    if possible { Proof::Possible } else { Proof::Impossible }
}

/// Errors of one connection, after which the next can be accepted at once.
fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionAborted | Kind::ConnectionReset | Kind::ConnectionRefused | Kind::Interrupted
    )
}
