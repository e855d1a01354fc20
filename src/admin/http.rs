//! An HTTP server with limits on time and on connections of each kind ([`connection_slots`]),
//! so that idle clients and slow readers cannot block health checks. [`Door`](super::Door) calls it.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::HttpBody;
use axum::http::StatusCode;
use axum::http::header::{CONNECTION, RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection_slots::{self, ConnectionPermit, ConnectionSlots};
use crate::one_client::one_client;

pub(super) mod wire;

use wire::Wire;

/// How long accepting pauses after an error on our side, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);
/// Connections that are accepted in a row before those that exist are served.
const BURST: u32 = 64;
/// How long to wait for a free slot if all connections have sent a request.
const FULL: Duration = Duration::from_millis(1);
/// At the end, how long clients may take to read their last response.
const LAST: Duration = Duration::from_millis(100);
/// A response up to this size fits into the kernel's buffer, so it is sent at once whether it is read or not.
const SHORT: u64 = 8 << 10;

/// The limits of a server.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Connections. The oldest of a kind makes room for another one.
    pub(super) places: connection_slots::Limits,
    /// From the beginning of the connection, or the last response, to the end of the next request's header section.
    pub(super) header: Duration,
    /// A connection is asked to close after this time, and closed after as much again.
    pub(super) lifetime: Duration,
    /// Whether the response takes work, by its path.
    pub(super) is_work: fn(&str) -> bool,
}

impl Limits {
    /// The usual limits, for a server whose responses to some paths take work.
    pub(super) fn of(is_work: fn(&str) -> bool) -> Self {
        let (header, lifetime) = (Duration::from_secs(10), Duration::from_secs(120));
        Self { places: connection_slots::Limits::DEFAULT, header, lifetime, is_work }
    }
}

/// Serves until it is stopped and the last connection has ended.
pub(super) async fn serve(listener: TcpListener, router: Router, limits: Limits, stop: CancellationToken) {
    let places = ConnectionSlots::new(limits.places);
    let connections = TaskTracker::new();
    let mut in_a_row = 0;
    while let Some((stream, client)) = stop.run_until_cancelled(accept(&listener, &places)).await {
        let incoming = Arc::new(wire::Incoming::new(stream));
        let place = places.enter(one_client(client.ip()), incoming.clone());
        connections.spawn(converse(Wire(incoming), router.clone(), limits, stop.clone(), place));
        in_a_row = (in_a_row + 1) % BURST;
        if in_a_row == 0 {
            tokio::task::yield_now().await;
        }
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(LAST, connections.wait()).await.is_err() {
        places.cut_waiting();
        connections.wait().await;
    }
}

/// Accepts the next connection and makes room for it. No client is left in the kernel's queue, where others would wait
/// behind it.
async fn accept(listener: &TcpListener, places: &ConnectionSlots) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => {
                while !places.make_room() {
                    tokio::time::sleep(FULL).await;
                }
                return accepted;
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::debug!(%error, "an HTTP connection could not be accepted");
                places.cut_one();
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn converse(stream: Wire, router: Router, limits: Limits, stop: CancellationToken, place: ConnectionPermit) {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(limits.header);
    let (place, router) = (Arc::new(place), TowerToHyperService::new(router));
    let of_service = place.clone();
    let service = service_fn(move |request| answer(request, router.clone(), of_service.clone(), limits.is_work));
    let mut conversation = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = conversation.as_mut() => ended,
        () = place.cut() => return,
        () = async { tokio::select! { () = stop.cancelled() => {}, () = tokio::time::sleep(limits.lifetime) => {} } } => {
            conversation.as_mut().graceful_shutdown();
            tokio::select! {
                ended = conversation => ended,
                () = place.cut() => return,
                () = tokio::time::sleep(limits.lifetime) => Ok(()),
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an HTTP connection ended early");
    }
}

/// Answers a request, and sets the kind of the connection's slot.
async fn answer(
    request: hyper::Request<Incoming>,
    router: TowerToHyperService<Router>,
    place: Arc<ConnectionPermit>,
    is_work: fn(&str) -> bool,
) -> Result<Response, Infallible> {
    if is_work(request.uri().path()) && !place.work() {
        let busy = "too much is asked at once; ask again\n";
        return Ok((StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "1"), (CONNECTION, "close")], busy).into_response());
    }
    let response = router.call(request).await?;
    match response.body().size_hint().upper() {
        Some(..=SHORT) => place.wait(),
        _ => place.read(),
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::timeout;

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    const PATIENT: Limits =
        Limits { places: connection_slots::Limits::DEFAULT, header: LONG, lifetime: LONG, is_work: |path| path != "/" };

    /// `/` is answered at once, `/long` with more than any buffer takes, `/never` never.
    async fn start(limits: Limits) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .route("/", get(async || "here\n"))
            .route("/long", get(async || "x".repeat(32 << 20)))
            .route("/never", get(std::future::pending::<&str>));
        tokio::spawn(serve(listener, router, limits, CancellationToken::new()));
        address
    }

    /// Sends the text; returns everything that is received.
    async fn say(client: &mut TcpStream, text: &str) -> String {
        client.write_all(text.as_bytes()).await.unwrap();
        let mut said = String::new();
        timeout(LONG / 2, client.read_to_string(&mut said)).await.expect("the server holds on").unwrap();
        said
    }

    const CLOSE: &str = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    const KEEP: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_more_is_sent_away() {
        let short = Duration::from_secs(10);
        for limits in [Limits { header: short, ..PATIENT }, Limits { lifetime: short, ..PATIENT }] {
            for text in ["", "GET / HT", "GET / HTTP/1.1\r\nHost: x\r\n", KEEP] {
                let mut client = TcpStream::connect(start(limits).await).await.unwrap();
                let said = say(&mut client, text).await;
                assert_eq!(said.ends_with("here\n"), text == KEEP, "{text:?}: {said:?}");
            }
        }
    }

    async fn asks(address: SocketAddr, path: &str) -> TcpStream {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(CLOSE.replace("/ ", &format!("{path} ")).as_bytes()).await.unwrap();
        client
    }

    /// Whether the connection is closed, whatever was received before.
    async fn is_cut(client: &mut TcpStream) -> bool {
        let mut said = vec![0; 1 << 20];
        loop {
            match timeout(Duration::from_millis(200), client.read(&mut said)).await {
                Ok(Ok(0) | Err(_)) => return true,
                Ok(Ok(_)) => {}
                Err(_) => return false,
            }
        }
    }

    #[tokio::test]
    async fn who_waits_longest_makes_room_for_one_more() {
        let places = connection_slots::Limits { waiting: 3, ..connection_slots::Limits::DEFAULT };
        let address = start(Limits { places, ..PATIENT }).await;
        let mut clients = Vec::new();
        for text in ["", "GET / HT", "", KEEP] {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(text.as_bytes()).await.unwrap();
            clients.push(client);
        }
        assert!(say(&mut asks(address, "/").await, "").await.ends_with("here\n"));
        let mut cut = Vec::new();
        for client in &mut clients {
            cut.push(is_cut(client).await);
        }
        assert_eq!(cut, [true, true, false, false]);
    }

    #[tokio::test]
    async fn who_reads_slowly_or_has_us_work_keeps_nobody_from_a_short_answer() {
        let places = connection_slots::Limits { waiting: 2, working: 2, reading: 2 };
        let address = start(Limits { places, ..PATIENT }).await;
        let mut readers = Vec::new();
        for _ in 0..3 {
            let mut reader = asks(address, "/long").await;
            reader.read_exact(&mut [0]).await.unwrap(); // it is being answered
            readers.push(reader);
        }
        let _worked_for = [asks(address, "/never").await, asks(address, "/never").await];
        let turned_away = async || say(&mut asks(address, "/never").await, "").await;
        // The two before may not have been read yet.
        while !timeout(Duration::from_secs(1), turned_away()).await.is_ok_and(|said| said.contains(" 503 ")) {}
        assert!(say(&mut asks(address, "/").await, "").await.ends_with("here\n"));
        let mut whole = String::new();
        assert!(
            readers[0].read_to_string(&mut whole).await.is_err() || whole.len() < 32 << 20,
            "the oldest is not cut"
        );
        assert!(say(&mut readers[2], "").await.len() >= 32 << 20, "the newest is cut");
    }
}
