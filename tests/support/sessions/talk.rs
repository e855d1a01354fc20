//! A client's conversation with a session, in memory.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::SessionSetup;

/// A client in a session.
pub struct Talk {
    /// Its end of the connection.
    pub socket: DuplexStream,
    /// The other end.
    pub session: JoinHandle<()>,
    /// Tells the session that the program is about to end.
    pub draining: CancellationToken,
}

impl Talk {
    /// Connects and says EHLO.
    pub async fn begin(setup: &SessionSetup, client: &str) -> Self {
        let (socket, server) = tokio::io::duplex(1 << 16);
        let draining = CancellationToken::new();
        let serve = fingerpost::session::serve(
            Arc::new(setup.services.clone()),
            setup.client(client),
            server,
            draining.clone(),
        );
        let mut talk = Self { socket, session: tokio::spawn(serve), draining };
        assert_eq!(talk.reply().await, "220 mx.contoso.com ESMTP Fingerpost");
        talk.say("EHLO client.example", "250 CHUNKING").await;
        talk
    }

    /// The last line of the next reply.
    pub async fn reply(&mut self) -> String {
        let mut line = Vec::new();
        loop {
            let octet = tokio::time::timeout(Duration::from_secs(3600), self.socket.read_u8()).await;
            match octet.expect("the server says nothing") {
                Ok(b'\n') if line.get(3) == Some(&b'-') => line.clear(),
                Ok(b'\n') => return String::from_utf8(line).unwrap().trim_end().to_owned(),
                Ok(octet) => line.push(octet),
                Err(error) => return format!("closed: {error}"),
            }
        }
    }

    /// Sends a line and looks at how the reply begins.
    pub async fn say(&mut self, line: &str, expected: &str) {
        self.socket.write_all(format!("{line}\r\n").as_bytes()).await.unwrap();
        let reply = self.reply().await;
        assert!(reply.starts_with(expected), "{line:?}: {reply:?}, expected {expected:?}");
    }

    /// An envelope up to 354.
    pub async fn envelope(&mut self, recipients: &[&str]) {
        self.say("MAIL FROM:<a@fabrikam.example>", "250").await;
        for recipient in recipients {
            self.say(&format!("RCPT TO:<{recipient}>"), "250 2.1.5").await;
        }
        self.say("DATA", "354").await;
    }
}
