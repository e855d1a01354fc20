//! Checks our own listeners as a stranger sees them: each must refuse a recipient in a foreign domain.
//!
//! A conversation without mail: EHLO, MAIL, RCPT and QUIT (RFC 5321 3.3). The client is this machine: if a receive
//! connector trusts it, the check reports that instead.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Finding;
use crate::config::{Config, ReceiveConnector, ReceiveTlsMode, door};
use crate::smtp::client::replies::Replies;
use crate::smtp::envelope::Relay;
use crate::smtp::reply::Reply;

/// The time limit of a conversation.
const PATIENCE: Duration = Duration::from_secs(10);
/// A domain that does not exist (RFC 6761 6.4).
const FOREIGN: &str = "relay-test@fingerpost-check.invalid";

/// Tries each listener.
pub(super) async fn knock_at_all(config: &Config) -> Vec<Finding> {
    let mut binds: Vec<SocketAddr> = config.receive_connectors.iter().flat_map(|door| door.bind.clone()).collect();
    binds.sort_unstable();
    binds.dedup();
    let mut findings = Vec::new();
    for bind in binds {
        findings.push(knock(config, bind).await);
    }
    findings
}

async fn knock(config: &Config, bind: SocketAddr) -> Finding {
    let what = format!("open relay at {bind}");
    let (stream, client) = match connect(bind).await {
        Ok(connected) => connected,
        Err(error) => {
            return Finding::doubtful(what, format!("not tried: {error}"), "start the server, then check again");
        }
    };
    let Some(connector) = door::choose(config, Some(bind), client) else {
        return Finding::well(what, format!("no receive connector serves {client}"));
    };
    if connector.tls.mode == ReceiveTlsMode::Implicit {
        return Finding::well(what, "not tried: it begins with TLS");
    }
    if connector.relay == Relay::Anywhere {
        let found = format!("not tried: receive connector `{}` lets {client} relay", connector.name);
        let cure = format!("try from a stranger's address that RCPT TO:<{FOREIGN}> is refused");
        return Finding::doubtful(what, found, cure);
    }
    match tokio::time::timeout(PATIENCE, ask(stream, config)).await {
        Ok(Ok(reply)) => judge(what, connector, &reply),
        Ok(Err(why)) => Finding::doubtful(what, why, "see who listens there with `ss -ltnp`, then check again"),
        Err(_) => Finding::doubtful(what, "does not answer in time", "see that the server is well, then check again"),
    }
}

/// Connects from the listener's own address if possible; a listener on all addresses is reached by loopback.
async fn connect(bind: SocketAddr) -> std::io::Result<(TcpStream, IpAddr)> {
    let ip = match bind.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    let connecting = tokio::time::timeout(PATIENCE, TcpStream::connect((ip, bind.port()))).await;
    let stream = connecting.map_err(|_| std::io::Error::other("no answer in time"))??;
    let client = stream.local_addr()?.ip();
    Ok((stream, client))
}

/// The reply to RCPT, or the first unexpected one before it.
async fn ask(mut stream: TcpStream, config: &Config) -> Result<Reply, String> {
    let mut replies = Replies::default();
    let mut reply = read(&mut stream, &mut replies).await?;
    let (hostname, rcpt) = (&config.server.hostname, format!("RCPT TO:<{FOREIGN}>"));
    for line in [&format!("EHLO {hostname}"), "MAIL FROM:<>", &rcpt] {
        if !reply.is_positive() {
            break;
        }
        say(&mut stream, line).await?;
        reply = read(&mut stream, &mut replies).await?;
    }
    let _ = say(&mut stream, "QUIT").await; // it said what we wanted to know
    Ok(reply)
}

async fn say(stream: &mut TcpStream, line: &str) -> Result<(), String> {
    stream.write_all(format!("{line}\r\n").as_bytes()).await.map_err(|error| format!("breaks off: {error}"))
}

async fn read(stream: &mut TcpStream, replies: &mut Replies) -> Result<Reply, String> {
    loop {
        if let Some(reply) = replies.next_reply().map_err(|error| format!("does not speak SMTP: {error}"))? {
            return Ok(reply);
        }
        match stream.read_buf(&mut replies.buffer).await {
            Ok(0) => return Err("breaks off".into()),
            Ok(_) => {}
            Err(error) => return Err(format!("breaks off: {error}")),
        }
    }
}

fn judge(what: String, connector: &ReceiveConnector, reply: &Reply) -> Finding {
    let name = &connector.name;
    if reply.is_positive() {
        let found = format!("OPEN: it takes mail of anybody for anybody ({reply})");
        let cure = format!(
            "close the port; see that this file is in force (`fingerpost status`) and what stands before receive \
             connector `{name}`"
        );
        return Finding::bad(what, found, cure);
    }
    if reply.is_permanent() {
        return Finding::well(what, format!("receive connector `{name}` refuses foreign recipients ({reply})"));
    }
    Finding::doubtful(what, format!("answers {reply}"), "see why it answers so, then check again")
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::super::Found;
    use super::*;
    use crate::config::check::load_text;

    fn config(bind: SocketAddr, more: &str) -> Config {
        let text = format!(
            "[server]\nhostname = \"mx.contoso.com\"\n\
             [[receive_connector]]\nname = \"internet\"\nbind = [\"{bind}\"]\n{more}\n\
             [[accepted_domain]]\ndomain = \"contoso.com\"\ndeliver_to = \"exchange\"\n\
             [[directory]]\nname = \"users\"\nkind = \"file\"\npath = \"users.csv\"\n\
             [[send_connector]]\nname = \"exchange\"\nsmart_hosts = [\"[10.0.0.5]\"]\n"
        );
        load_text(&text, std::path::Path::new("fingerpost.toml")).unwrap()
    }

    /// A server that sends these lines, one for each of the client's.
    async fn serve(listener: TcpListener, says: &'static [&'static str]) {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut input = [0; 512];
        for line in says {
            stream.write_all(format!("{line}\r\n").as_bytes()).await.unwrap();
            let _ = stream.read(&mut input).await;
        }
    }

    #[tokio::test]
    async fn a_door_is_judged_by_what_a_stranger_hears() {
        const OK: &str = "250 ok";
        let trusted = "relay = \"anywhere\"\nremote_networks = [\"127.0.0.0/8\"]";
        for (says, more, wanted) in [
            (&["220 mx", OK, OK, "550 5.7.1 relaying denied"][..], "", "ok"),
            (&["220 mx", OK, OK, OK], "", "FAILED"),
            (&["220 mx", OK, "530 5.7.0 TLS"], "", "ok"),
            (&["220 mx", OK, OK, "451 4.4.3 later"], "", "warning"),
            (&["554 no"], "", "ok"),
            (&["what?"], "", "warning"),
            (&["220 mx", OK, OK, OK], trusted, "warning"),
            (&["220 mx", OK, OK, OK], "remote_networks = [\"192.0.2.0/24\"]", "ok"),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let bind = listener.local_addr().unwrap();
            let server = tokio::spawn(serve(listener, says));
            let finding = knock(&config(bind, more), bind).await;
            assert!(finding.text().starts_with(wanted), "{says:?} {more}: {}", finding.text());
            server.abort();
        }
        let nobody = "127.0.0.1:1".parse().unwrap();
        assert!(matches!(knock(&config(nobody, ""), nobody).await.result, Found::Doubtful { .. }));
    }
}
