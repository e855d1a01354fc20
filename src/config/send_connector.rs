//! `[[send_connector]]`: one way out.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::reader::{Reader, domain_name, name, plain};
use super::{
    BareLf, EightBit, Host, Mechanism, Protocol, RECIPIENT_MX, Retry, SendAuth, SendConnector, SendTls, SendTlsMode,
    SmartHost, SmtpOut,
};
use crate::routing::address_space::AddressSpace;

const SMTP_PORT: u16 = 25;

/// Reads one.
pub(super) fn read(reader: &mut Reader<'_>) -> SendConnector {
    reader.require("name", "every connector has a name");
    // The queue is the only way of delivery there is.
    let _ = reader.choice("delivery", &[("queue", ())]);
    SendConnector {
        name: reader.text("name", own_name).unwrap_or_default(),
        organization: reader.text("organization", plain).unwrap_or_default(),
        protocol: protocol(reader),
        address_spaces: reader.tables("send_connector.address_spaces", address_space),
        rewrite_target_address: reader.flag("rewrite_target_address").unwrap_or(true),
        retry: retry(&mut reader.inner("send_connector.retry")),
        max_connections: reader.number("max_connections", 1).unwrap_or(20),
    }
}

/// The connector that every configuration has: reports go to the recipient's MX where nothing else is said.
pub(super) fn recipient_mx() -> SendConnector {
    SendConnector {
        name: RECIPIENT_MX.into(),
        organization: "".into(),
        protocol: Protocol::Smtp(Box::new(SmtpOut {
            smart_hosts: Vec::new(),
            mx: true,
            dns_servers: Vec::new(),
            tls: SendTls { mode: SendTlsMode::Opportunistic, verify: false, ca: None, server_name: None },
            auth: None,
            source_address: None,
            bare_lf: BareLf::Refuse,
            eight_bit: EightBit::Send,
            hide_internal_hosts: true,
            connect_timeout: CONNECT_TIMEOUT,
            reply_timeout: REPLY_TIMEOUT,
        })),
        address_spaces: Vec::new(),
        rewrite_target_address: true,
        retry: Retry::DEFAULT,
        max_connections: 20,
    }
}

fn own_name(text: &str) -> Result<Arc<str>, String> {
    match text {
        RECIPIENT_MX => {
            Err(format!("`{RECIPIENT_MX}` is the connector that every configuration has; use another name"))
        }
        text => name(text),
    }
}

fn protocol(reader: &mut Reader<'_>) -> Protocol {
    let maildir = reader.choice("protocol", &[("smtp", false), ("maildir", true)]);
    match maildir {
        // A protocol that is wrong is noted once; what its keys should have been nobody knows.
        None if reader.has("protocol") => Protocol::Maildir(PathBuf::new()),
        Some(true) => {
            reader.require("path", "name the folder that the Maildirs stand in");
            Protocol::Maildir(reader.path("path").unwrap_or_default())
        }
        Some(false) | None => Protocol::Smtp(Box::new(smtp(reader))),
    }
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
const REPLY_TIMEOUT: Duration = Duration::from_secs(300);

fn smtp(reader: &mut Reader<'_>) -> SmtpOut {
    let _ = reader.choice("select", &[("failover", ())]);
    let smart_hosts = reader.list("smart_hosts", smart_host).unwrap_or_default();
    let mx = reader.flag("mx").unwrap_or(false);
    if !mx && smart_hosts.is_empty() && !reader.has("smart_hosts[0]") {
        reader.problem("smart_hosts", "missing; name the next hops, or write mx = true for the recipient domain's MX");
    }
    let tls = tls(&mut reader.inner("send_connector.tls"));
    let auth = auth(&mut reader.inner("send_connector.auth"));
    if auth.is_some() && tls.mode != SendTlsMode::Required {
        reader.problem("auth", "a password goes only over TLS; write tls = { mode = \"required\" }");
    }
    let ip = |text: &str| text.parse::<IpAddr>().map_err(|_| format!("`{text}` is not an IP address"));
    SmtpOut {
        smart_hosts,
        mx,
        dns_servers: reader.list("dns_servers", dns_server).unwrap_or_default(),
        tls,
        auth,
        source_address: reader.optional("source_address", ip),
        bare_lf: reader
            .choice("bare_lf", &[("refuse", BareLf::Refuse), ("crlf", BareLf::Crlf)])
            .unwrap_or(BareLf::Refuse),
        eight_bit: reader
            .choice("eight_bit", &[("send", EightBit::Send), ("refuse", EightBit::Refuse)])
            .unwrap_or(EightBit::Send),
        hide_internal_hosts: reader.flag("hide_internal_hosts").unwrap_or(true),
        connect_timeout: reader.positive("connect_timeout").unwrap_or(CONNECT_TIMEOUT),
        reply_timeout: reader.positive("reply_timeout").unwrap_or(REPLY_TIMEOUT),
    }
}

/// `[ADDRESS]` or `NAME`, with `:PORT` or without.
fn smart_host(text: &str) -> Result<SmartHost, String> {
    let form = || format!("`{text}` is not a smart host; write NAME or [ADDRESS], with :PORT where it is not 25");
    if text.starts_with("unix:") {
        return Err("unix: is for protocol = \"lmtp\", which is not built yet".into());
    }
    if !text.starts_with('[') && (text.parse::<IpAddr>().is_ok() || text.parse::<SocketAddr>().is_ok()) {
        return Err(format!("`{text}`: an address stands in brackets, such as [10.0.0.5] or [10.0.0.5]:2525"));
    }
    let port = |rest: &str| match rest.strip_prefix(':') {
        Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or_else(form),
        None if rest.is_empty() => Ok(SMTP_PORT),
        None => Err(form()),
    };
    if let Some(inside) = text.strip_prefix('[') {
        let (address, rest) = inside.split_once(']').ok_or_else(form)?;
        let address = address.strip_prefix("IPv6:").unwrap_or(address).parse().map_err(|_| form())?;
        return Ok(SmartHost { host: Host::Address(address), port: port(rest)? });
    }
    let end = text.find(':').unwrap_or(text.len());
    let name = domain_name(&text[..end]).map_err(|_| form())?;
    Ok(SmartHost { host: Host::Name(name.to_string()), port: port(&text[end..])? })
}

fn dns_server(text: &str) -> Result<SocketAddr, String> {
    let with_port = || text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53));
    text.parse().or_else(|_| with_port()).map_err(|_| format!("`{text}` is not an IP address or ADDRESS:PORT"))
}

fn address_space(reader: &mut Reader<'_>) -> Option<AddressSpace> {
    reader.require("domain", "such as \"contoso.com\", or \"*\" for all that are not accepted");
    let subdomains = reader.flag("subdomains").unwrap_or(false);
    let cost = reader.number("cost", 0).unwrap_or(10);
    let domain = reader.text("domain", |text| match text {
        "*" => Ok(None),
        text if text.contains('*') => Err(format!("`{text}`: write the domain, and subdomains = true")),
        text => domain_name(text).map(Some),
    })?;
    Some(AddressSpace { domain, subdomains, cost })
}

fn tls(reader: &mut Reader<'_>) -> SendTls {
    let modes = &[
        ("none", SendTlsMode::None),
        ("opportunistic", SendTlsMode::Opportunistic),
        ("required", SendTlsMode::Required),
    ];
    let server_name = |text: &str| domain_name(text).map(|name| name.to_string());
    let tls = SendTls {
        mode: reader.choice("mode", modes).unwrap_or(SendTlsMode::Opportunistic),
        verify: reader.flag("verify").unwrap_or(false),
        ca: reader.path("ca"),
        server_name: reader.optional("server_name", server_name),
    };
    if tls.verify && tls.mode == SendTlsMode::None {
        reader.problem("verify", "nothing can be verified while mode is \"none\"");
    }
    tls
}

fn auth(reader: &mut Reader<'_>) -> Option<SendAuth> {
    let mechanisms = &[("none", None), ("plain", Some(Mechanism::Plain)), ("login", Some(Mechanism::Login))];
    let mechanism = reader.choice("mechanism", mechanisms).flatten();
    let username = reader.text("username", plain).unwrap_or_default().to_string();
    let password_file = reader.path("password_file");
    let mechanism = mechanism?;
    if username.is_empty() {
        reader.problem("username", "missing; authentication needs it");
    }
    if password_file.is_none() {
        reader.problem("password_file", "missing; authentication needs it");
    }
    Some(SendAuth { mechanism, username, password_file: password_file.unwrap_or_default() })
}

fn retry(reader: &mut Reader<'_>) -> Retry {
    let retry = Retry {
        first: reader.positive("first").unwrap_or(Retry::DEFAULT.first),
        factor: reader.fraction("factor", 1.0).unwrap_or(Retry::DEFAULT.factor),
        max: reader.positive("max").unwrap_or(Retry::DEFAULT.max),
        warn_after: reader.positive("warn_after").unwrap_or(Retry::DEFAULT.warn_after),
        give_up_after: reader.positive("give_up_after").unwrap_or(Retry::DEFAULT.give_up_after),
    };
    if retry.first > retry.max {
        reader.problem("first", "longer than `max`, the longest wait (30m where it is not written)");
    }
    retry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smart_hosts_are_read() {
        let address = |text: &str| Host::Address(text.parse().unwrap());
        let name = |text: &str| Host::Name(text.to_owned());
        for (text, host, port) in [
            ("[10.0.0.5]", address("10.0.0.5"), 25),
            ("[10.0.0.5]:2525", address("10.0.0.5"), 2525),
            ("[2001:db8::1]:26", address("2001:db8::1"), 26),
            ("[IPv6:2001:db8::1]", address("2001:db8::1"), 25),
            ("Relay.Contoso.com", name("relay.contoso.com"), 25),
            ("ex2010.contoso.local:2525", name("ex2010.contoso.local"), 2525),
        ] {
            assert_eq!(smart_host(text), Ok(SmartHost { host, port }), "{text}");
        }
        for text in ["", "10.0.0.5", "10.0.0.5:25", "[10.0.0.5", "[x]", "a b", "a:0", "a:x", "[::1]x", "unix:/run/l"] {
            assert!(smart_host(text).is_err(), "{text}");
        }
    }

    #[test]
    fn dns_servers_have_a_port() {
        assert_eq!(dns_server("127.0.0.53"), Ok("127.0.0.53:53".parse().unwrap()));
        assert_eq!(dns_server("::1"), Ok("[::1]:53".parse().unwrap()));
        assert_eq!(dns_server("127.0.0.1:5353"), Ok("127.0.0.1:5353".parse().unwrap()));
        assert!(dns_server("dns.example").is_err());
    }
}
