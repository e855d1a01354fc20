//! A TCP proxy between client and server that loses, cuts and garbles what the server says.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::net::SocketAddr;
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
}

/// No message of a server is shorter: a result without words (RFC 4511 4.1.9).
const SHORTEST: usize = 14;

pub struct Proxy {
    address: SocketAddr,
    mode: Arc<Mutex<Mode>>,
}

impl Proxy {
    pub async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mode = Arc::new(Mutex::new(Mode::Pass));
        let shared = Arc::clone(&mode);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(relay(client, server, Arc::clone(&shared)));
            }
        });
        Self { address, mode }
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
    loop {
        tokio::select! {
            read = client.read(&mut from_client) => match read? {
                0 => return Ok(()),
                length => server.write_all(&from_client[..length]).await?,
            },
            read = server.read(&mut from_server) => {
                let length = read?;
                if length == 0 {
                    return Ok(());
                }
                let mode = *mode.lock().unwrap();
                match mode {
                    Mode::Pass => client.write_all(&from_server[..length]).await?,
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
