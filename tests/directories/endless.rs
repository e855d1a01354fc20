//! A server that ignores the size limit: it answers the bind and the first searches as it should, then without end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::asker::{Asker, LookupResult, openldap};
use support::slapd::{BASE, Slapd};

const BIND_REQUEST: u8 = 0x60;
const SEARCH_REQUEST: u8 = 0x63;
const ENTRY: u8 = 0x64;
const REFERENCE: u8 = 0x73;

#[tokio::test]
async fn an_answer_without_end_is_no_answer_and_is_not_kept() {
    let slapd = Slapd::start();
    for endless in [ENTRY, REFERENCE] {
        let server = Server::start(endless).await;
        let mut config = openldap(&slapd);
        config.urls = vec![format!("ldap://{}", server.address)];
        let asker = Asker::new(&config);
        assert_eq!(asker.ask_unknown().await, LookupResult::NotFound);
        server.endless.store(true, Ordering::SeqCst);
        let start = Instant::now();
        let cause = asker.cause("alice@contoso.com").await;
        assert!(cause.contains("than was asked for"), "{cause}");
        assert!(start.elapsed() < config.timeout / 2, "{:?}", start.elapsed());
        server.endless.store(false, Ordering::SeqCst);
        asker.until(&LookupResult::NotFound, Duration::from_secs(10)).await;
    }
}

struct Server {
    address: SocketAddr,
    endless: Arc<AtomicBool>,
}

impl Server {
    async fn start(kind: u8) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let endless = Arc::new(AtomicBool::new(false));
        let shared = endless.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, kind, shared.clone()));
            }
        });
        Self { address, endless }
    }
}

/// Answers requests in their order. Each fits one read; message ids are below 128.
async fn serve(mut client: TcpStream, kind: u8, endless: Arc<AtomicBool>) -> std::io::Result<()> {
    let mut request = [0; 4096];
    loop {
        let length = client.read(&mut request).await?;
        // SEQUENCE, its length in one or more octets, INTEGER of one octet, the operation.
        let Some(at) = request[..length].windows(2).position(|two| two == [0x02, 0x01]) else { return Ok(()) };
        let id = request[at + 2];
        match request[at + 3] {
            BIND_REQUEST => client.write_all(&message(id, 0x61, &success())).await?,
            SEARCH_REQUEST => {
                while endless.load(Ordering::SeqCst) {
                    let item = if kind == ENTRY { entry("uid=somebody") } else { text("ldap://elsewhere/") };
                    client.write_all(&message(id, kind, &item)).await?;
                }
                client.write_all(&message(id, ENTRY, &entry("uid=postmaster"))).await?;
                client.write_all(&message(id, 0x65, &success())).await?;
            }
            _ => {} // unbind, abandon
        }
    }
}

/// BER: the tag, the length in one octet, the content.
fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    assert!(content.len() < 128);
    [&[tag, content.len() as u8], content].concat()
}

fn text(text: &str) -> Vec<u8> {
    tagged(0x04, text.as_bytes())
}

fn message(id: u8, operation: u8, content: &[u8]) -> Vec<u8> {
    tagged(0x30, &[tagged(0x02, &[id]), tagged(operation, content)].concat())
}

/// `LDAPResult` (RFC 4511 4.1.9).
fn success() -> Vec<u8> {
    [tagged(0x0a, &[0]), text(""), text("")].concat()
}

fn entry(rdn: &str) -> Vec<u8> {
    let mail = tagged(0x30, &[text("mail"), tagged(0x31, &text("postmaster@contoso.com"))].concat());
    [text(&format!("{rdn},{BASE}")), tagged(0x30, &mail)].concat()
}
