//! The next hops of every send connector: whether each answers, greets, and offers what the connector asks of it.
//!
//! A conversation of its own, without mail: EHLO and QUIT. Certificates and logins are tried by the first delivery.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::Finding;
use crate::config::{Config, Host, Protocol, SendConnector, SendTlsMode, SmartHost, SmtpOut};
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
    let said = match tokio::time::timeout(PATIENCE * 3, greet(ehlo, host)).await {
        Ok(Ok(said)) => said,
        Ok(Err(why)) => return Finding::bad(what, why, "see that it is up, reachable from here, and lets us in"),
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

/// What it offers in answer to EHLO (RFC 5321 4.1.1.1): the first word of each line.
async fn greet(ehlo: &Domain, host: &SmartHost) -> Result<Vec<String>, String> {
    let connected = match &host.host {
        Host::Address(ip) => TcpStream::connect((*ip, host.port)).await,
        Host::Name(name) => TcpStream::connect((name.as_str(), host.port)).await,
    };
    let stream = connected.map_err(|error| format!("cannot be reached: {error}"))?;
    let mut stream = BufReader::new(stream);
    expect(&mut stream, "220", "greets with").await?;
    send(&mut stream, &format!("EHLO {ehlo}\r\n")).await?;
    let offers = expect(&mut stream, "250", "answers EHLO with").await?;
    send(&mut stream, "QUIT\r\n").await?;
    Ok(offers.iter().map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect())
}

async fn send(stream: &mut BufReader<TcpStream>, command: &str) -> Result<(), String> {
    stream.get_mut().write_all(command.as_bytes()).await.map_err(|error| format!("breaks off: {error}"))
}

/// Reads one reply of this code; its lines without the code.
async fn expect(stream: &mut BufReader<TcpStream>, code: &str, does: &str) -> Result<Vec<String>, String> {
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
