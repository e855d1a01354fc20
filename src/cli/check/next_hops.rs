//! The next hops of every send connector: whether each answers, greets, and offers what the connector asks of it.
//!
//! A conversation of its own, without mail: EHLO (LHLO) and QUIT. Certificates and logins are tried by the first delivery.

use std::time::Duration;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufStream};
use tokio::net::{TcpStream, UnixStream};

use super::Finding;
use crate::config::{Config, Host, Protocol, SendConnector, SendTlsMode, SmartHost, SmtpOut, Speaks};
use crate::smtp::domain::Domain;

/// For connecting and for each reply: a check is not to take minutes.
const PATIENCE: Duration = Duration::from_secs(10);

/// Greets all of them, one after another.
pub(super) async fn greet_all(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    for connector in &config.send_connectors {
        match &connector.protocol {
            Protocol::Smtp(smtp) => {
                for host in &smtp.smart_hosts {
                    findings.push(judge(&config.server.hostname, connector, smtp, host).await);
                }
            }
            Protocol::Maildir(folder) => findings.push(maildir(connector, folder)),
        }
    }
    findings
}

fn maildir(connector: &SendConnector, folder: &std::path::Path) -> Finding {
    let what = format!("send connector {}", connector.name);
    match folder.is_dir() {
        true => Finding::well(what, format!("{} is there", folder.display())),
        false => Finding::well(what, format!("{} will be made with the first mail", folder.display())),
    }
}

async fn judge(ehlo: &Domain, connector: &SendConnector, smtp: &SmtpOut, host: &SmartHost) -> Finding {
    let what = format!("send connector {}, next hop {host}", connector.name);
    if smtp.mx && matches!(host.host, Host::Name(_)) {
        return Finding::well(what, "is looked up as MX when there is mail");
    }
    let said = match tokio::time::timeout(PATIENCE * 3, greet(ehlo, smtp.speaks, host)).await {
        Ok(Ok(said)) => said,
        Ok(Err(Wrong::Ourselves)) => {
            let cure =
                "correct the smart host or its DNS record: it leads back to us, or to a server that says our name";
            return Finding::bad(what, format!("greets with our own name, {ehlo}: mail would circle"), cure);
        }
        Ok(Err(Wrong::Conversation(why))) => {
            return Finding::bad(what, why, "see that it is up, reachable from here, and lets us in");
        }
        Err(_) => {
            let cure = "see that no firewall stands between, and that the host takes mail from our address";
            return Finding::bad(what, "does not answer in time", cure);
        }
    };
    let starttls = said.iter().any(|line| line.eq_ignore_ascii_case("STARTTLS"));
    match smtp.tls.mode {
        SendTlsMode::Required if !starttls => Finding::bad(
            what,
            "answers, but offers no STARTTLS, and tls is required",
            "give it a certificate; until then nothing is sent there",
        ),
        SendTlsMode::Opportunistic if !starttls => Finding::well(what, "answers, without STARTTLS"),
        SendTlsMode::None => Finding::well(what, "answers"),
        SendTlsMode::Opportunistic | SendTlsMode::Required => Finding::well(what, "answers, with STARTTLS"),
    }
}

/// Why a next hop is of no use.
enum Wrong {
    /// DESIGN section 6, rule 2.
    Ourselves,
    /// What it did instead.
    Conversation(String),
}

impl From<String> for Wrong {
    fn from(why: String) -> Self {
        Self::Conversation(why)
    }
}

/// What it offers in answer to EHLO (RFC 5321 4.1.1.1): the first word of each line.
async fn greet(ehlo: &Domain, speaks: Speaks, host: &SmartHost) -> Result<Vec<String>, Wrong> {
    let unreachable = |error| format!("cannot be reached: {error}");
    match &host.host {
        Host::Address(ip) => {
            let stream = TcpStream::connect((*ip, host.port)).await.map_err(unreachable)?;
            talk(BufStream::new(stream), ehlo, speaks).await
        }
        Host::Name(name) => {
            let stream = TcpStream::connect((name.as_str(), host.port)).await.map_err(unreachable)?;
            talk(BufStream::new(stream), ehlo, speaks).await
        }
        Host::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(unreachable)?;
            talk(BufStream::new(stream), ehlo, speaks).await
        }
    }
}

async fn talk<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: BufStream<S>,
    ehlo: &Domain,
    speaks: Speaks,
) -> Result<Vec<String>, Wrong> {
    let hello = speaks.hello();
    let greeting = expect(&mut stream, "220", "greets with").await?;
    let name = greeting.first().and_then(|line| line.split(' ').next()).unwrap_or_default();
    if name.eq_ignore_ascii_case(ehlo.as_str()) {
        return Err(Wrong::Ourselves);
    }
    send(&mut stream, &format!("{hello} {ehlo}\r\n")).await?;
    let offers = expect(&mut stream, "250", &format!("answers {hello} with")).await?;
    send(&mut stream, "QUIT\r\n").await?;
    Ok(offers.iter().map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect())
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), command: &str) -> Result<(), String> {
    let broken = |error| format!("breaks off: {error}");
    stream.write_all(command.as_bytes()).await.map_err(broken)?;
    stream.flush().await.map_err(broken)
}

/// Reads one reply of this code; its lines without the code.
async fn expect(stream: &mut (impl AsyncBufRead + Unpin), code: &str, does: &str) -> Result<Vec<String>, String> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        let read = tokio::time::timeout(PATIENCE, stream.read_line(&mut line)).await;
        let read = read.map_err(|_| "falls silent".to_owned())?.map_err(|error| format!("breaks off: {error}"))?;
        let line = line.trim_end();
        if read == 0 || lines.len() > 100 {
            return Err("breaks off".into());
        }
        let Some(rest) = line.strip_prefix(code) else { return Err(format!("{does} {line}")) };
        lines.push(rest.trim_start_matches(['-', ' ']).to_owned());
        if !rest.starts_with('-') {
            return Ok(lines);
        }
    }
}
