//! A TCP proxy between client and server that loses, cuts and garbles what the server says.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What becomes of the server's octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// They pass.
    Pass,
    /// Half of the first message passes, then the connection is reset.
    CutInTheMiddle,
    /// These come instead.
    Instead(&'static [u8]),
    /// They are kept back.
    Swallow,
    /// They come so many milliseconds later.
    Later(u64),
    /// They pass, but no search reaches the server: it is answered with that result code at once.
    Code(u8),
}

/// No message of a server is shorter: a result without words (RFC 4511 4.1.9).
const SHORTEST: usize = 14;

pub struct Proxy {
    address: SocketAddr,
    mode: Arc<Mutex<Mode>>,
    connections: Arc<AtomicUsize>,
}

impl Proxy {
    pub async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mode = Arc::new(Mutex::new(Mode::Pass));
        let shared = Arc::clone(&mode);
        let connections = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(relay(client, server, Arc::clone(&shared)));
            }
        });
        Self { address, mode, connections }
    }

    /// How many were made so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub fn url(&self) -> String {
        format!("ldap://{}", self.address)
    }

    pub fn set(&self, mode: Mode) {
        *self.mode.lock().unwrap() = mode;
    }
}

async fn relay(mut client: TcpStream, server: SocketAddr, mode: Arc<Mutex<Mode>>) -> std::io::Result<()> {
    let mut server = TcpStream::connect(server).await?;
    let (mut from_client, mut from_server) = ([0; 4096], [0; 4096]);
    let mut requests = Vec::new();
    loop {
        tokio::select! {
            read = client.read(&mut from_client) => match read? {
                0 => return Ok(()),
                length => {
                    requests.extend_from_slice(&from_client[..length]);
                    while let Some(request) = message(&mut requests) {
                        let mode = *mode.lock().unwrap();
                        match (mode, searched(&request)) {
                            (Mode::Code(code), Some(id)) => client.write_all(&search_done(id, code)).await?,
                            _ => server.write_all(&request).await?,
                        }
                    }
                }
            },
            read = server.read(&mut from_server) => {
                let length = read?;
                if length == 0 {
                    return Ok(());
                }
                let mode = *mode.lock().unwrap();
                match mode {
                    Mode::Pass | Mode::Code(_) => client.write_all(&from_server[..length]).await?,
                    Mode::CutInTheMiddle => {
                        client.write_all(&from_server[..length.min(SHORTEST) / 2]).await?;
                        client.set_zero_linger()?;
                        return Ok(());
                    }
                    Mode::Instead(octets) => client.write_all(octets).await?,
                    Mode::Swallow => {}
                    Mode::Later(milliseconds) => {
                        tokio::time::sleep(std::time::Duration::from_millis(milliseconds)).await;
                        client.write_all(&from_server[..length]).await?;
                    }
                }
            }
        }
    }
}

/// Takes the first whole `LDAPMessage` (RFC 4511 4.1.1) off.
fn message(octets: &mut Vec<u8>) -> Option<Vec<u8>> {
    let first = usize::from(*octets.get(1)?);
    let (head, length) = match first.checked_sub(128) {
        None => (2, first),
        Some(more) => (2 + more, octets.get(2..2 + more)?.iter().fold(0, |all, octet| all << 8 | usize::from(*octet))),
    };
    (octets.len() >= head + length).then(|| octets.drain(..head + length).collect())
}

/// The message id of a search, with its tag and length.
fn searched(request: &[u8]) -> Option<&[u8]> {
    let head = if request[1] < 128 { 2 } else { 2 + usize::from(request[1] - 128) };
    let id = request.get(head..head + 2 + usize::from(*request.get(head + 1)?))?;
    (*request.get(head + id.len())? == 0x63).then_some(id)
}

/// `SearchResultDone` (RFC 4511 4.5.2).
fn search_done(id: &[u8], code: u8) -> Vec<u8> {
    let result = [&[0x65, 7, 0x0a, 1, code, 0x04, 0, 0x04, 0][..]].concat();
    [&[0x30, (id.len() + result.len()) as u8][..], id, &result].concat()
}
