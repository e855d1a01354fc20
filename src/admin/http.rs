//! Serves HTTP to whoever connects, for so long and to so many: somebody who says nothing, or reads nothing, must not
//! keep others from the metrics. [`Door`](super::Door) calls it.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long accepting waits after an error of ours, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// What one server gives away.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Connections at once. Others wait in the kernel's queue.
    pub(super) connections: usize,
    /// From the connection's beginning, or the last answer, to the end of the next request's header section.
    pub(super) header: Duration,
    /// A connection is asked to end after this, and cut after as much again.
    pub(super) lifetime: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 64, header: Duration::from_secs(10), lifetime: Duration::from_secs(120) }
    }
}

/// Serves until it is stopped and the last connection has ended.
pub(super) async fn serve(listener: TcpListener, router: Router, limits: Limits, stop: CancellationToken) {
    let seats = Arc::new(Semaphore::new(limits.connections));
    let connections = TaskTracker::new();
    while let Some(Some((stream, seat))) = stop.run_until_cancelled(accept(&listener, &seats)).await {
        connections.spawn(converse(stream, router.clone(), limits, (stop.clone(), seat)));
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// The next connection for which there is room.
async fn accept(listener: &TcpListener, seats: &Arc<Semaphore>) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let seat = seats.clone().acquire_owned().await.ok()?; // nobody closes it
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return Some((stream, seat)),
            Err(error) => {
                tracing::debug!(%error, "an HTTP connection could not be accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn converse(
    stream: TcpStream,
    router: Router,
    limits: Limits,
    (stop, _seat): (CancellationToken, OwnedSemaphorePermit),
) {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(limits.header);
    let mut conversation = pin!(builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)));
    let ended = tokio::select! {
        ended = conversation.as_mut() => ended,
        () = async { tokio::select! { () = stop.cancelled() => {}, () = tokio::time::sleep(limits.lifetime) => {} } } => {
            conversation.as_mut().graceful_shutdown();
            tokio::time::timeout(limits.lifetime, conversation).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an HTTP connection ended early");
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::timeout;

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    async fn start(limits: Limits) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", get(async || "here\n"));
        tokio::spawn(serve(listener, router, limits, CancellationToken::new()));
        address
    }

    /// Sends the text; what is said until the end.
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
        let header = Duration::from_secs(10);
        for limits in
            [Limits { header, lifetime: LONG, ..Limits::default() }, Limits { header: LONG, ..Limits::default() }]
        {
            for text in ["", "GET / HT", "GET / HTTP/1.1\r\nHost: x\r\n", KEEP] {
                let mut client = TcpStream::connect(start(limits).await).await.unwrap();
                let said = say(&mut client, text).await;
                assert_eq!(said.ends_with("here\n"), text == KEEP, "{text:?}: {said:?}");
            }
        }
    }

    #[tokio::test]
    async fn one_more_waits_for_a_place() {
        let address = start(Limits { connections: 1, header: LONG, lifetime: LONG }).await;
        let first = TcpStream::connect(address).await.unwrap();
        let mut second = TcpStream::connect(address).await.unwrap();
        second.write_all(CLOSE.as_bytes()).await.unwrap();
        let mut octet = [0];
        assert!(timeout(Duration::from_millis(100), second.read(&mut octet)).await.is_err(), "there was a place");
        drop(first);
        assert!(say(&mut second, "").await.ends_with("here\n"));
    }
}
