//! The client of the running server: one HTTP/1.1 request on each connection, with the token.

use std::error::Error as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONNECTION, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

use crate::admin::api::Failed;
use crate::admin::guard::Token;
use crate::config::check::load;

/// A directory's answer may take as long as its time-out; a reload reads files.
const PATIENCE: Duration = Duration::from_secs(60);

/// The address of the server's API, and the token.
pub(super) struct Client {
    address: SocketAddr,
    token: Token,
}

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoAnswer {
    #[error("the server does not answer at {0} ({1}); is `fingerpost run` up with this configuration?")]
    Unreachable(SocketAddr, io::Error),
    /// An error response, with its text.
    #[error("{text}")]
    Refused { status: u16, text: String },
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

impl Client {
    /// Reads `[admin]` in the configuration. The file need not be valid as a whole: the server runs with an earlier
    /// one, and `reload` will report the errors.
    pub(super) fn new(config: &Path) -> anyhow::Result<Self> {
        let (bind, token_file) = match load(config, &std::collections::HashMap::new()) {
            Ok(config) => (config.admin.bind, config.admin.token_file),
            Err(_) => admin_of_a_broken_file(config)?,
        };
        let ip = match bind.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        let token = Token::load(&token_file).map_err(|error| anyhow!("{error}; the server makes it on first start"))?;
        Ok(Self { address: SocketAddr::new(ip, bind.port()), token })
    }

    /// Sends a request and parses the response.
    pub(super) async fn ask<T: DeserializeOwned>(&self, method: &str, path: &str) -> Result<T, NoAnswer> {
        self.ask_within(PATIENCE, method, path).await
    }

    /// The same without a time limit, for reading a large directory.
    pub(super) async fn ask_patiently<T: DeserializeOwned>(&self, method: &str, path: &str) -> Result<T, NoAnswer> {
        self.ask_within(Duration::from_hours(1), method, path).await
    }

    /// Sends a text, without a time limit, and parses the response.
    pub(super) async fn send<T: DeserializeOwned>(&self, path: &str, text: &str) -> Result<T, NoAnswer> {
        read(&self.exchanged(Duration::from_hours(1), "POST", path, text).await?)
    }

    async fn ask_within<T: DeserializeOwned>(
        &self,
        patience: Duration,
        method: &str,
        path: &str,
    ) -> Result<T, NoAnswer> {
        read(&self.body_within(patience, method, path).await?)
    }

    /// Sends a request and returns the body.
    pub(super) async fn body(&self, method: &str, path: &str) -> Result<Vec<u8>, NoAnswer> {
        self.body_within(PATIENCE, method, path).await
    }

    async fn body_within(&self, patience: Duration, method: &str, path: &str) -> Result<Vec<u8>, NoAnswer> {
        self.exchanged(patience, method, path, "").await
    }

    async fn exchanged(&self, patience: Duration, method: &str, path: &str, sent: &str) -> Result<Vec<u8>, NoAnswer> {
        let silent = |_| NoAnswer::Unreachable(self.address, io::ErrorKind::TimedOut.into());
        let (status, body) =
            tokio::time::timeout(patience, self.exchange(method, path, sent)).await.map_err(silent).flatten()?;
        if status.is_success() {
            return Ok(body);
        }
        let said = serde_json::from_slice::<Failed>(&body).map(|failed| failed.error);
        let text = said.unwrap_or_else(|_| format!("{}: {}", status.as_u16(), String::from_utf8_lossy(&body).trim()));
        Err(NoAnswer::Refused { status: status.as_u16(), text })
    }

    async fn exchange(&self, method: &str, path: &str, sent: &str) -> Result<(StatusCode, Vec<u8>), NoAnswer> {
        let unreachable = |error| NoAnswer::Unreachable(self.address, error);
        let broken = |error: hyper::Error| match io_error(&error) {
            Some(error) => unreachable(error),
            None => anyhow!("the server's answer is not HTTP").into(),
        };
        let stream = TcpStream::connect(self.address).await.map_err(unreachable)?;
        let (mut requests, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
        let request = Request::builder().method(method).uri(path).header(HOST, self.address.to_string());
        let request = request.header(AUTHORIZATION, self.token.bearer()).header(CONNECTION, "close");
        let request = request.body(sent.to_owned()).context("cannot be asked")?;
        let response = requests.send_request(request).await.map_err(broken)?;
        let (status, mut body, mut read) = (response.status(), response.into_body(), Vec::new());
        let length = body.size_hint().exact();
        while let Some(frame) = body.frame().await {
            match (frame, length) {
                (Ok(frame), _) => read.extend(frame.into_data().unwrap_or_default()),
                (Err(error), Some(length)) if io_error(&error).is_none() => {
                    return Err(anyhow!("the server's answer broke off after {} of {length} octets", read.len()).into());
                }
                (Err(error), _) => return Err(broken(error)),
            }
        }
        Ok((status, read))
    }
}

/// What the system said, where it was the system.
fn io_error(error: &hyper::Error) -> Option<io::Error> {
    let code = error.source()?.downcast_ref::<io::Error>()?.raw_os_error()?;
    Some(io::Error::from_raw_os_error(code))
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, NoAnswer> {
    let read = serde_json::from_slice(body).context("the server's answer cannot be read; is it another version?");
    Ok(read?)
}

/// A text encoded for a query (RFC 3986 2.1).
pub(super) fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~@:".contains(&byte);
    let mut escaped = String::new();
    for byte in text.bytes() {
        match plain(byte) {
            true => escaped.push(char::from(byte)),
            false => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

/// `[admin]` of a file that is not valid.
fn admin_of_a_broken_file(config: &Path) -> anyhow::Result<(SocketAddr, PathBuf)> {
    let table = broken_file(config)?;
    let bind = written(&table, "admin", "bind").unwrap_or_else(|| "127.0.0.1:8025".into());
    let Ok(bind) = bind.parse() else { bail!("`[admin] bind = \"{bind}\"` is not an address and port") };
    let token_file = written(&table, "admin", "token_file").unwrap_or_else(|| "admin.token".into());
    Ok((bind, state_dir(config, &table).join(token_file)))
}

/// `state_dir` of a file that is not valid.
pub(super) fn state_dir_of_a_broken_file(config: &Path) -> anyhow::Result<PathBuf> {
    Ok(state_dir(config, &broken_file(config)?))
}

fn broken_file(config: &Path) -> anyhow::Result<toml::Table> {
    let text = std::fs::read_to_string(config)
        .with_context(|| format!("cannot read {}; name the file with --config", config.display()))?;
    Ok(toml::from_str(&text).unwrap_or_default())
}

fn state_dir(config: &Path, table: &toml::Table) -> PathBuf {
    let folder = config.parent().unwrap_or(Path::new("."));
    folder.join(written(table, "server", "state_dir").unwrap_or_else(|| "/var/lib/fingerpost".into()))
}

fn written(table: &toml::Table, section: &str, key: &str) -> Option<String> {
    Some(table.get(section)?.get(key)?.as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Answers one request with these octets and closes.
    async fn answered(response: &'static [u8]) -> Result<Vec<u8>, NoAnswer> {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let token = Token::load_or_make(&folder.path().join("token")).unwrap();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            while stream.read_u8().await.unwrap() != b'!' {}
            stream.write_all(response).await.unwrap();
        };
        let client = Client { address, token };
        tokio::join!(client.exchanged(PATIENCE, "POST", "/api/x", "text!"), server).0
    }

    #[tokio::test]
    async fn responses_are_taken_apart() {
        for (response, body) in [
            (&b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n{}"[..], "{}"),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", "{}"),
            (b"HTTP/1.1 204 No Content\r\n\r\n", ""),
        ] {
            assert_eq!(answered(response).await.unwrap(), body.as_bytes());
        }
        for (response, problem) in [
            (&b"HTTP/1.1 404 Not Found\r\n\r\n nothing "[..], "404: nothing"),
            (b"HTTP/1.1 422 Unprocessable\r\n\r\n{\"error\":\"no such thing\"}", "no such thing"),
            (b"220 mail.example ESMTP\r\n", "the server's answer is not HTTP"),
            (b"HTTP/1.1 200", "the server's answer is not HTTP"),
            (b"", "the server's answer is not HTTP"),
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{\"a\":",
                "the server's answer broke off after 5 of 9 octets",
            ),
        ] {
            assert_eq!(answered(response).await.unwrap_err().to_string(), problem);
        }
    }

    #[test]
    fn queries_keep_every_character() {
        assert_eq!(escaped("a+b@x.example"), "a%2Bb@x.example");
        assert_eq!(escaped("\"a b\"&=ü"), "%22a%20b%22%26%3D%C3%BC");
    }

    #[test]
    fn a_broken_file_still_says_where_the_server_is() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("f.toml");
        std::fs::write(&file, "[server]\nstate_dir = \"state\"\nwrong = 1\n[admin]\nbind = \"127.0.0.1:1\"").unwrap();
        let (bind, token) = admin_of_a_broken_file(&file).unwrap();
        assert_eq!((bind.port(), token), (1, folder.path().join("state/admin.token")));
        std::fs::write(&file, "not toml").unwrap();
        let (bind, token) = admin_of_a_broken_file(&file).unwrap();
        assert_eq!((bind.port(), token), (8025, PathBuf::from("/var/lib/fingerpost/admin.token")));
    }
}
