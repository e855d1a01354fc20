//! `[[send_connector]]`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::reader::{Reader, name, plain};
use super::receive_connector::{certificate, segment_size};
use super::smart_host::smart_host;
use super::units::domain_name;
use super::value_error::ValueError;
use super::{
    BareLf, ClientAddress, CutThrough, Delivery, EightBit, Host, Mechanism, Protocol, RECIPIENT_MX, Retry, Select,
    SendAuth, SendConnector, SendTls, SendTlsMode, SmtpOut, Speaks, TlsVersion, WhenUnreachable,
};
use crate::routing::address_space::AddressSpace;
use crate::routing::table::SourceRoutes;

pub(super) fn read(reader: &mut Reader<'_>) -> SendConnector {
    reader.require("name", "every connector has a name");
    let protocol = protocol(reader);
    SendConnector {
        name: reader.text("name", own_name).unwrap_or_default(),
        organization: reader.text("organization", plain).unwrap_or_default(),
        delivery: delivery(reader, &protocol),
        protocol,
        address_spaces: reader.tables("send_connector.address_spaces", address_space),
        verify_with: reader.optional("verify_with", plain),
        source_routes: reader
            .choice("source_routes", &[("refuse", SourceRoutes::Refuse), ("pass", SourceRoutes::Pass)])
            .unwrap_or_default(),
        rewrite_target_address: reader.flag("rewrite_target_address").unwrap_or(true),
        retry: retry(&mut reader.inner("send_connector.retry")),
        max_connections: reader.number("max_connections", 1).unwrap_or(20),
    }
}

/// The connector that exists in every configuration: it sends reports to the recipient's MX where nothing else is
/// configured.
pub(super) fn recipient_mx() -> SendConnector {
    SendConnector {
        name: RECIPIENT_MX.into(),
        organization: "".into(),
        delivery: Delivery::Queue,
        protocol: Protocol::Smtp(Arc::new(SmtpOut {
            speaks: Speaks::Smtp,
            smart_hosts: Vec::new(),
            select: Select::Failover,
            mx: true,
            dns_servers: Vec::new(),
            tls: SendTls::DEFAULT,
            auth: None,
            source_address: None,
            path_mtu_discovery: true,
            max_segment_size: None,
            client_address: ClientAddress::None,
            bare_lf: BareLf::Refuse,
            eight_bit: EightBit::Send,
            hide_internal_hosts: true,
            connect_timeout: CONNECT_TIMEOUT,
            reply_timeout: REPLY_TIMEOUT,
        })),
        address_spaces: Vec::new(),
        verify_with: None,
        source_routes: SourceRoutes::Refuse,
        rewrite_target_address: true,
        retry: Retry::DEFAULT,
        max_connections: 20,
    }
}

fn own_name(text: &str) -> Result<Arc<str>, ValueError> {
    match text {
        RECIPIENT_MX => {
            Err(format!("`{RECIPIENT_MX}` is the connector that every configuration has; use another name").into())
        }
        text => name(text),
    }
}

fn protocol(reader: &mut Reader<'_>) -> Protocol {
    let words = [("smtp", Some(Speaks::Smtp)), ("lmtp", Some(Speaks::Lmtp)), ("maildir", None)];
    match reader.choice("protocol", &words) {
        // An unknown protocol is reported once; its keys cannot be checked.
        None if reader.has("protocol") => Protocol::Maildir(PathBuf::new()),
        Some(None) => {
            reader.require("path", "name the folder that the Maildirs stand in");
            Protocol::Maildir(reader.path("path").unwrap_or_default())
        }
        Some(Some(speaks)) => Protocol::Smtp(Arc::new(server(reader, speaks))),
        None => Protocol::Smtp(Arc::new(server(reader, Speaks::Smtp))),
    }
}

const PATIENCE: Duration = Duration::from_secs(15);

fn delivery(reader: &mut Reader<'_>, protocol: &Protocol) -> Delivery {
    let queues = reader.choice("delivery", &[("cut-through", false), ("queue", true)]);
    let patience = reader.positive("cut_through_patience").unwrap_or(PATIENCE);
    let policies =
        [("auto", WhenUnreachable::Auto), ("queue", WhenUnreachable::Queue), ("defer", WhenUnreachable::Defer)];
    let when_unreachable = reader.choice("when_unreachable", &policies).unwrap_or(WhenUnreachable::Auto);
    match (protocol, queues) {
        (Protocol::Maildir(_), Some(false)) => {
            reader.problem("delivery", "a maildir always queues; leave it out, or write \"queue\"");
            Delivery::Queue
        }
        (Protocol::Maildir(_), _) | (_, Some(true)) => Delivery::Queue,
        // By MX, next hops belong to others, whose reply times are unknown.
        (Protocol::Smtp(smtp), None) if smtp.smart_hosts.is_empty() => Delivery::Queue,
        (Protocol::Smtp(_), _) => Delivery::CutThrough(CutThrough { patience, when_unreachable }),
    }
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
const REPLY_TIMEOUT: Duration = Duration::from_secs(300);

fn server(reader: &mut Reader<'_>, speaks: Speaks) -> SmtpOut {
    let folder = reader.folder();
    let smart_hosts = reader.list("smart_hosts", |text| smart_host(text, speaks, &folder)).unwrap_or_default();
    let mx = reader.flag("mx").unwrap_or(false) && speaks == Speaks::Smtp;
    if !mx && smart_hosts.is_empty() && !reader.has("smart_hosts[0]") {
        reader.problem(
            "smart_hosts",
            match speaks {
                Speaks::Smtp => "missing; name the next hops, or write mx = true for the recipient domain's MX",
                Speaks::Lmtp => "missing; name the next hops: NAME:PORT, [ADDRESS]:PORT or unix:PATH",
            },
        );
    }
    let tls = tls(&mut reader.inner("send_connector.tls"));
    let has_socket = smart_hosts.iter().any(|smart_host| matches!(smart_host.host, Host::Unix(_)));
    if has_socket && tls.mode == SendTlsMode::Required {
        reader.problem("tls.mode", "\"required\", and a unix: socket has no TLS; leave it out, or name the server");
    }
    let auth = auth(&mut reader.inner("send_connector.auth"));
    if auth.is_some() && tls.mode != SendTlsMode::Required {
        reader.problem("auth", "a password goes only over TLS; write tls = { mode = \"required\" }");
    }
    let ip = |text: &str| text.parse::<IpAddr>().map_err(|_| format!("`{text}` is not an IP address"));
    SmtpOut {
        speaks,
        smart_hosts,
        select: reader
            .choice("select", &[("failover", Select::Failover), ("round-robin", Select::RoundRobin)])
            .unwrap_or(Select::Failover),
        mx,
        dns_servers: reader.list("dns_servers", dns_server).unwrap_or_default(),
        tls,
        auth,
        source_address: reader.optional("source_address", ip),
        path_mtu_discovery: reader.flag("path_mtu_discovery").unwrap_or(true),
        max_segment_size: segment_size(reader),
        client_address: reader
            .choice("client_address", &[("none", ClientAddress::None), ("xforward", ClientAddress::Xforward)])
            .unwrap_or(ClientAddress::None),
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

fn dns_server(text: &str) -> Result<SocketAddr, ValueError> {
    let with_port = || text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53));
    text.parse().or_else(|_| with_port()).map_err(|_| format!("`{text}` is not an IP address or ADDRESS:PORT").into())
}

fn address_space(reader: &mut Reader<'_>) -> Option<AddressSpace> {
    reader.require("domain", "such as \"contoso.com\", or \"*\" for all that are not accepted");
    let subdomains = reader.flag("subdomains").unwrap_or(false);
    let cost = reader.number("cost", 0).unwrap_or(10);
    let domain = reader.text("domain", |text| match text {
        "*" => Ok(None),
        text if text.contains('*') => Err(format!("`{text}`: write the domain, and subdomains = true").into()),
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
    let versions = &[("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)];
    let tls = SendTls {
        certificate: certificate(reader),
        min_version: reader.choice("min_version", versions).unwrap_or(TlsVersion::Tls12),
        mode: reader.choice("mode", modes).unwrap_or(SendTlsMode::Opportunistic),
        verify: reader.flag("verify").unwrap_or(false),
        ca: reader.path("ca"),
        server_name: reader.optional("server_name", server_name),
    };
    if tls.verify && tls.mode == SendTlsMode::None {
        reader.problem("verify", "nothing can be verified while mode is \"none\"");
    }
    if tls.certificate.is_some() && tls.mode == SendTlsMode::None {
        reader.problem("certificate", "of no use while mode is \"none\"; write mode = \"required\" to show it");
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
    fn dns_servers_have_a_port() {
        assert_eq!(dns_server("127.0.0.53"), Ok("127.0.0.53:53".parse().unwrap()));
        assert_eq!(dns_server("::1"), Ok("[::1]:53".parse().unwrap()));
        assert_eq!(dns_server("127.0.0.1:5353"), Ok("127.0.0.1:5353".parse().unwrap()));
        assert!(dns_server("dns.example").is_err());
    }
}
