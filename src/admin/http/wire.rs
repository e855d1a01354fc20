//! A connection whose first request is noticed before it is read, for
//! [`connection_slots`](crate::admin::connection_slots).

use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};

use rustix::net::{RecvFlags, recv};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// The end of a longer header section is not noticed: its client counts as one without a request.
const HEADER: usize = 4 << 10;

/// What comes from a client.
pub(crate) struct Incoming {
    stream: TcpStream,
    stage: AtomicU8,
}

/// The first request is awaited; everything that was read has been examined.
const WAITS: u8 = 0;
/// Something was read, and is being examined.
const READS: u8 = 1;
/// The first request was answered.
const ANSWERED: u8 = 2;

impl Incoming {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self { stream, stage: AtomicU8::new(WAITS) }
    }

    /// Whether a first request has arrived, read or not. It will be answered without the client's doing.
    pub(crate) fn has_asked(&self) -> bool {
        let stage = || self.stage.load(Ordering::Acquire);
        // It may be read between the two checks.
        stage() == READS || (stage() == WAITS && (self.is_there() || stage() == READS))
    }

    /// The first request was answered.
    pub(crate) fn answered(&self) {
        self.stage.store(ANSWERED, Ordering::Release);
    }

    /// Whether the end of a header section is in the kernel's buffer, which may begin in the middle of that end.
    fn is_there(&self) -> bool {
        let mut room = [0; HEADER];
        let Ok((octets, _)) = recv(&self.stream, &mut room, RecvFlags::PEEK | RecvFlags::DONTWAIT) else {
            return false;
        };
        let came = room.get(..octets).unwrap_or_default();
        came.starts_with(b"\n")
            || came.starts_with(b"\r\n")
            || came.windows(2).any(|two| two == b"\n\n")
            || came.windows(3).any(|three| three == b"\n\r\n")
    }

    fn turns(&self, from: u8, to: u8) {
        let _ = self.stage.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed); // once answered it stays so
    }
}

/// The connection, for the server.
pub(super) struct Wire(pub(super) Arc<Incoming>);

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Incoming { stream, .. } = &*self.0;
        loop {
            self.0.turns(WAITS, READS);
            match stream.try_read(room.initialize_unfilled()) {
                Ok(octets) => {
                    room.advance(octets);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
            self.0.turns(READS, WAITS);
            ready!(stream.poll_read_ready(context))?;
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.stream.poll_write_ready(context))?;
            match self.0.stream.try_write(octets) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(socket2::SockRef::from(&self.0.stream).shutdown(Shutdown::Write))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, Arc<Incoming>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (client, Arc::new(Incoming::new(listener.accept().await.unwrap().0)))
    }

    /// Waits until this many octets of the client are in the kernel's buffer.
    async fn lie_there(incoming: &Incoming, octets: usize) {
        let mut room = [0; 8 * HEADER];
        while recv(&incoming.stream, &mut room, RecvFlags::PEEK | RecvFlags::DONTWAIT).map_or(0, |(n, _)| n) < octets {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn a_request_is_seen_before_it_is_read() {
        for (text, asked) in [
            ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", true),
            ("GET / HTTP/1.1\nHost: x\n\n", true),
            ("GET / HTTP/1.1\r\nHost: x\r\n", false),
            ("G", false),
            (&"x".repeat(2 * HEADER), false),
        ] {
            let (mut client, incoming) = pair().await;
            assert!(!incoming.has_asked());
            client.write_all(text.as_bytes()).await.unwrap();
            lie_there(&incoming, text.len()).await;
            assert_eq!(incoming.has_asked(), asked, "{text:?}");
        }
        let (client, incoming) = pair().await;
        drop(client);
        assert!(!incoming.has_asked(), "gone");
    }

    #[tokio::test]
    async fn half_a_request_has_asked_only_while_it_is_looked_at() {
        let (mut client, incoming) = pair().await;
        let mut wire = Wire(incoming.clone());
        client.write_all(b"GET / HTTP/1.1\r").await.unwrap();
        lie_there(&incoming, 15).await;
        let mut room = [0; 100];
        assert_eq!(wire.read(&mut room).await.unwrap(), 15);
        assert!(incoming.has_asked(), "it may be all");
        let more = tokio::time::timeout(std::time::Duration::from_millis(1), wire.read(&mut room)).await;
        assert!(more.is_err() && !incoming.has_asked(), "it was not");
        client.write_all(b"\n\r\n").await.unwrap();
        lie_there(&incoming, 3).await;
        assert!(incoming.has_asked());
        assert_eq!(wire.read(&mut room).await.unwrap(), 3);
        assert!(incoming.has_asked());
        incoming.answered();
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        lie_there(&incoming, 18).await;
        assert!(!incoming.has_asked(), "who has had an answer waits like everybody");
    }
}
