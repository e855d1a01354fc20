//! From a next hop's name to a connection that is ready for MAIL: connect, greeting, EHLO or LHLO, STARTTLS, AUTH.
//!
//! Any failure is a [`NextHopError`], never a refusal of the mail. RFC 5321 3.1, 3.2 and 5.1, RFC 2033 4.1, RFC 3207,
//! RFC 4954.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout};

use super::black_hole::Watch;
use super::connection::{Broken, Connection, Stream};
use super::next_hop_error::{BAD_SECURITY, LOOP, NO_ANSWER, NO_DNS, NO_SECURITY, NextHopError};
use super::{WayOut, login, next_hops::NextHop, socket};
use crate::config::{Host, SendTlsMode, Speaks};
use crate::delivery::refusal::Step;
use crate::delivery::refusal::read::{Meaning, Transaction, read};
use crate::delivery::silence::OfHost;
use crate::smtp::client::offers::Offers;
use crate::smtp::reply::Reply;
use crate::tls::connect::server_name;

/// The most addresses of one name that are tried; RFC 5321 5.1 asks for at least two.
const MAX_ADDRESSES: usize = 10;

/// Why an address gave no connection.
enum Failure {
    /// Another address may work.
    NextHopError(NextHopError),
    /// The TLS handshake failed: without TLS it may work.
    Handshake(NextHopError),
}

impl From<NextHopError> for Failure {
    fn from(error: NextHopError) -> Self {
        Self::NextHopError(error)
    }
}

/// Whether STARTTLS is used.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Encrypt {
    AsOffered,
    No,
}

/// Opens a connection to one of the next hop's addresses, or to its socket, and makes it ready for MAIL.
///
/// # Errors
/// The error of the last address that was tried.
pub(super) async fn open(out: &WayOut, hop: &NextHop) -> Result<Connection, NextHopError> {
    let opened = try_to_open(out, hop).await;
    out.tried();
    opened
}

async fn try_to_open(out: &WayOut, hop: &NextHop) -> Result<Connection, NextHopError> {
    let smtp = &out.terms.smtp;
    let addresses = match &hop.at.host {
        Host::Address(address) => vec![*address],
        Host::Name(name) => out.shared.dns.addresses(&smtp.dns_servers, name).await.map_err(|failed| {
            let error = NextHopError::unreached(NO_DNS, failed.to_string());
            if hop.label.is_some() && matches!(failed, super::DnsError::NotFound(_)) { error.alerting() } else { error }
        })?,
        Host::Unix(path) => {
            return over_socket(out, hop, path).await.map_err(|failure| match failure {
                Failure::NextHopError(error) | Failure::Handshake(error) => error,
            });
        }
    };
    let usable = |ip: &IpAddr| smtp.source_address.is_none_or(|source| source.is_ipv4() == ip.is_ipv4());
    let none = format!("{} has no address of the family of `source_address`", hop.name());
    let mut last = NextHopError::unreached(NO_ANSWER, none);
    let addresses: Vec<IpAddr> = addresses.into_iter().filter(usable).take(MAX_ADDRESSES).collect();
    let (addresses, beyond): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|ip| out.may_reach(SocketAddr::new(*ip, hop.at.port)));
    if addresses.is_empty() && !beyond.is_empty() {
        return Err(NextHopError::ours(format!("{} has no address that a report may go to", hop.name())));
    }
    let until = Instant::now() + out.waits.connect;
    for (at, ip) in addresses.iter().enumerate() {
        let address = SocketAddr::new(*ip, hop.at.port);
        // Each address gets a share of the time, so that one that does not answer leaves time for the others.
        let left = u32::try_from(addresses.len() - at).unwrap_or(u32::MAX);
        let share = until.saturating_duration_since(Instant::now()) / left;
        let mut opened = ready(out, hop, address, share, Encrypt::AsOffered).await;
        // RFC 7435: without authentication, clear text is no worse than failing TLS.
        let clear_will_do = smtp.tls.mode == SendTlsMode::Opportunistic && smtp.auth.is_none();
        if let Err(Failure::Handshake(error)) = &opened
            && clear_will_do
        {
            if let Some(untold) = out.shared.alerts.line(&error.next_hop, "in-clear") {
                tracing::warn!(reason = %error.reply, untold, "TLS failed; trying in clear");
            }
            opened = ready(out, hop, address, share, Encrypt::No).await;
        }
        match opened {
            Ok(connection) => return Ok(connection),
            Err(Failure::NextHopError(error) | Failure::Handshake(error)) => last = error,
        }
    }
    Err(last)
}

async fn ready(
    out: &WayOut,
    hop: &NextHop,
    address: SocketAddr,
    limit: Duration,
    encrypt: Encrypt,
) -> Result<Connection, Failure> {
    let next_hop: Arc<str> = hop.at(address.ip()).into();
    if is_own(&out.shared.own_listeners(), address) {
        let text = "this is one of our own listeners; correct the smart host or the DNS record";
        let own = NextHopError::unreached(LOOP, format!("{next_hop}: {text}"));
        return Err(own.alerting().into());
    }
    let began = Instant::now();
    let socket = connect(out, &next_hop, address, limit).await?;
    let mut connection = Connection::new(Stream::Plain(socket), next_hop, out.terms.clone(), watch(out));
    connection.silence = Some(silence(out, hop));
    connection.patience = limit.saturating_sub(began.elapsed()).max(out.waits.greeting);
    greeted(out, hop, connection, encrypt).await
}

async fn over_socket(out: &WayOut, hop: &NextHop, path: &Path) -> Result<Connection, Failure> {
    let next_hop: Arc<str> = hop.name().into();
    let limit = out.waits.connect;
    let failed = |why: String| NextHopError::unreached(NO_ANSWER, format!("cannot connect to {next_hop}: {why}"));
    let socket = match timeout(limit, UnixStream::connect(path)).await {
        Ok(Ok(socket)) => socket,
        Ok(Err(error)) => return Err(failed(error.to_string()).into()),
        Err(_) => return Err(failed(format!("no answer within {limit:?}")).into()),
    };
    let mut connection = Connection::new(Stream::Unix(socket), next_hop, out.terms.clone(), watch(out));
    connection.silence = Some(silence(out, hop));
    connection.patience = out.waits.connect.max(out.waits.greeting);
    // A connection within the machine needs no TLS; `required` is refused for a socket when the configuration is
    // loaded.
    greeted(out, hop, connection, Encrypt::No).await
}

/// Watches for a path MTU black hole.
fn watch(out: &WayOut) -> Watch {
    let holes = out.shared.metrics.path_mtu_black_holes.with_label_values(&[&*out.connector.name]);
    Watch::new(out.connector.name.clone(), holes)
}

/// Records how fast it answers.
fn silence(out: &WayOut, hop: &NextHop) -> OfHost {
    out.shared.silence.of(&hop.key(&out.connector.name), out.limit())
}

/// Everything before MAIL.
async fn greeted(
    out: &WayOut,
    hop: &NextHop,
    mut connection: Connection,
    encrypt: Encrypt,
) -> Result<Connection, Failure> {
    greeting(out, &mut connection).await?;
    connection.patience = out.waits.reply;
    hello(out, &mut connection).await?;
    if encrypt == Encrypt::AsOffered {
        connection = encrypted(out, hop, connection).await?;
    }
    if let Some(auth) = &out.terms.smtp.auth {
        login::authenticate(&mut connection, auth).await?;
    }
    Ok(connection)
}

async fn connect(
    out: &WayOut,
    next_hop: &str,
    address: SocketAddr,
    limit: Duration,
) -> Result<TcpStream, NextHopError> {
    let failed = |why: String| NextHopError::unreached(NO_ANSWER, format!("cannot connect to {next_hop}: {why}"));
    match timeout(limit, socket::connect(&out.terms.smtp, address)).await {
        Ok(Ok(socket)) => Ok(socket),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed(format!("no answer within {limit:?}"))),
    }
}

/// RFC 5321 3.1; DESIGN section 6, rule 2: a next hop that greets with our own name is this server.
async fn greeting(out: &WayOut, connection: &mut Connection) -> Result<(), NextHopError> {
    let reply = expect(connection, Step::Greeting, Say::Nothing).await?;
    let name = reply.text.split_ascii_whitespace().next().unwrap_or_default();
    if name.eq_ignore_ascii_case(out.terms.ehlo.as_str()) {
        out.shared.metrics.loops.with_label_values(&["greeting"]).inc();
        let text = "it greets with our own host name: mail would come back to us";
        return Err(NextHopError::at(&connection.next_hop, LOOP, text).alerting());
    }
    Ok(())
}

/// EHLO, or HELO if EHLO is refused for good (RFC 5321 3.2). LMTP has LHLO only (RFC 2033 4.1).
async fn hello(out: &WayOut, connection: &mut Connection) -> Result<(), NextHopError> {
    let (ehlo, speaks) = (&out.terms.ehlo, out.terms.smtp.speaks);
    let said = connection.command(&format!("{} {ehlo}", speaks.hello())).await;
    let reply = said.map_err(|broken| NextHopError::broken(connection, &broken, Step::Ehlo))?;
    if reply.is_permanent() && speaks == Speaks::Smtp {
        let helo = format!("HELO {ehlo}");
        expect(connection, Step::Ehlo, Say::Line(&helo)).await?;
        connection.offers = Offers::default();
        return Ok(());
    }
    judge(connection, Step::Ehlo, &reply)?;
    connection.offers = Offers::read(&reply);
    Ok(())
}

async fn encrypted(out: &WayOut, hop: &NextHop, mut connection: Connection) -> Result<Connection, Failure> {
    let tls = &out.terms.smtp.tls;
    let next_hop = connection.next_hop.clone();
    match tls.mode {
        SendTlsMode::None => return Ok(connection),
        SendTlsMode::Opportunistic if !connection.offers.starttls => return Ok(connection),
        SendTlsMode::Required if !connection.offers.starttls => {
            let text = "TLS is required, and it does not offer STARTTLS";
            return Err(NextHopError::at(&next_hop, NO_SECURITY, text).alerting().into());
        }
        SendTlsMode::Opportunistic | SendTlsMode::Required => {}
    }
    let bad = |why: String| NextHopError::at(&next_hop, BAD_SECURITY, &why);
    let (clients, settings) = (out.shared.clone(), out.terms.clone());
    let made = tokio::task::spawn_blocking(move || clients.tls.connector(&settings.smtp.tls)).await;
    let made = made.map_err(|error| bad(error.to_string()))?;
    let connector = made.map_err(|error| bad(error.to_string()).alerting())?;
    let name = server_name(tls, &hop.certificate_name()).map_err(|error| bad(error.to_string()).alerting())?;
    match expect(&mut connection, Step::StartTls, Say::Line("STARTTLS")).await {
        Ok(_) => {}
        // It refused STARTTLS (a row was found) and continues without TLS (RFC 3207 4). Without a reply yet it might
        // still accept.
        Err(error) if tls.mode == SendTlsMode::Opportunistic && error.row.is_some() && connection.is_quiet() => {
            return Ok(connection);
        }
        Err(error) => return Err(error.into()),
    }
    let mut connection = match connection.start_tls(&connector, name).await {
        Ok(connection) => connection,
        Err(broken) => return Err(Failure::Handshake(handshake_failed(&next_hop, &broken))),
    };
    hello(out, &mut connection).await?;
    Ok(connection)
}

fn handshake_failed(next_hop: &Arc<str>, broken: &Broken) -> NextHopError {
    let error = NextHopError::at(next_hop, BAD_SECURITY, &format!("the TLS handshake failed: {broken}"));
    // An invalid certificate does not become valid by itself.
    if matches!(broken, Broken::Io(error) if error.kind() == std::io::ErrorKind::InvalidData) {
        return error.alerting();
    }
    error
}

/// What is sent before a reply is expected.
pub(super) enum Say<'a> {
    Nothing,
    Line(&'a str),
}

/// Sends it and expects a positive reply.
pub(super) async fn expect(connection: &mut Connection, step: Step, say: Say<'_>) -> Result<Reply, NextHopError> {
    let said = match say {
        Say::Nothing => connection.reply().await,
        Say::Line(line) => connection.command(line).await,
    };
    let reply = said.map_err(|broken| NextHopError::broken(connection, &broken, step))?;
    judge(connection, step, &reply)?;
    Ok(reply)
}

fn judge(connection: &Connection, step: Step, reply: &Reply) -> Result<(), NextHopError> {
    let (name, ours) = (connection.terms.ehlo.as_str(), connection.local.as_slice());
    let reading = read(step, reply, &Transaction { name, ours, ..Transaction::default() });
    match reading.meaning {
        Meaning::Positive => Ok(()),
        _ => Err(NextHopError::said(connection, step, reply, reading)),
    }
}

/// Whether one of our listeners has this address. A listener on the wildcard address listens on every address of this
/// machine, and only those can be bound.
pub(super) fn is_own(listeners: &[SocketAddr], to: SocketAddr) -> bool {
    let ip = to.ip().to_canonical();
    listeners.iter().filter(|own| own.port() == to.port()).any(|own| {
        own.ip().to_canonical() == ip
            || own.ip().is_unspecified() && own.is_ipv4() == ip.is_ipv4() && UdpSocket::bind((ip, 0)).is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_listeners_are_known() {
        for (own, to, ours) in [
            ("127.0.0.1:25", "127.0.0.1:25", true),
            ("127.0.0.1:25", "[::ffff:127.0.0.1]:25", true),
            ("127.0.0.1:25", "127.0.0.2:25", false),
            ("127.0.0.1:25", "127.0.0.1:2525", false),
            ("0.0.0.0:25", "127.0.0.9:25", true),
            ("0.0.0.0:25", "192.0.2.1:25", false),
            ("[::]:25", "127.0.0.1:25", false),
        ] {
            assert_eq!(is_own(&[own.parse().unwrap()], to.parse().unwrap()), ours, "{own} {to}");
        }
    }
}
