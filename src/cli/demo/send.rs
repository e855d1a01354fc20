//! Sends the sample mail by a minimal SMTP client.

use std::net::SocketAddr;

use anyhow::{Context, bail};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sent {
    /// To each RCPT, in order.
    pub(super) recipients: Vec<String>,
    /// To the end of data; `None`: no recipient was accepted.
    pub(super) message: Option<String>,
}

/// Sends one message. `content` has CRLF line ends, and no line begins with a dot.
pub(super) async fn send(server: SocketAddr, from: &str, to: &[&str], content: &str) -> anyhow::Result<Sent> {
    let stream = TcpStream::connect(server).await.with_context(|| format!("cannot reach {server}"))?;
    let mut stream = BufReader::new(stream);
    reply(&mut stream).await?;
    for command in ["EHLO demo.example".to_owned(), format!("MAIL FROM:<{from}>")] {
        let said = say(&mut stream, &command).await?;
        if !said.starts_with("250") {
            bail!("{server} answers {command} with {said}");
        }
    }
    let mut recipients = Vec::new();
    for recipient in to {
        recipients.push(say(&mut stream, &format!("RCPT TO:<{recipient}>")).await?);
    }
    let mut message = None;
    if recipients.iter().any(|said| said.starts_with("250")) {
        say(&mut stream, "DATA").await?;
        message = Some(say(&mut stream, &format!("{content}\r\n.")).await?);
    }
    say(&mut stream, "QUIT").await?;
    Ok(Sent { recipients, message })
}

async fn say(stream: &mut BufReader<TcpStream>, command: &str) -> anyhow::Result<String> {
    stream.get_mut().write_all(format!("{command}\r\n").as_bytes()).await?;
    reply(stream).await
}

/// The last line of one reply.
async fn reply(stream: &mut BufReader<TcpStream>) -> anyhow::Result<String> {
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            bail!("the server hung up");
        }
        if line.as_bytes().get(3) != Some(&b'-') {
            return Ok(line.trim_end().to_owned());
        }
    }
}
