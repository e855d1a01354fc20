//! `[[receive_connector]]`.

use std::path::PathBuf;
use std::str::FromStr as _;
use std::time::Duration;

use super::network::Network;
use super::reader::{Reader, name, plain};
use super::server::socket_address;
use super::value_error::ValueError;
use super::{Auth, CertificateFiles, Limits, MOST_UNKNOWN, OfferDsn, ReceiveConnector, ReceiveTls, ReceiveTlsMode};
use crate::message::tenant::Tenant;
use crate::smtp::envelope::Relay;
use crate::smtp::names::ClientName;

/// The longest `unknown_within`.
const LONGEST_WINDOW: Duration = Duration::from_hours(1);
/// The range of TCP_MAXSEG on Linux (tcp(7)).
const SEGMENT_SIZES: std::ops::RangeInclusive<u16> = 88..=32767;

pub(super) fn read(reader: &mut Reader<'_>) -> ReceiveConnector {
    reader.require("name", "every connector has a name");
    let relay = &[("accepted-domains", Relay::AcceptedDomains), ("anywhere", Relay::Anywhere)];
    let offers = [("organizations", OfferDsn::Organizations), ("offer", OfferDsn::Everybody)];
    let networks = reader.list("remote_networks", Network::from_str);
    reader.require_some("remote_networks", "nobody could use this connector");
    let bind = reader.list("bind", socket_address);
    reader.require_some("bind", "name at least one ADDRESS:PORT to listen on");
    ReceiveConnector {
        name: reader.text("name", name).unwrap_or_default(),
        bind: bind.unwrap_or_else(everywhere),
        remote_networks: networks.unwrap_or_else(the_world),
        organization: reader.text("organization", plain).unwrap_or_default(),
        resolves_first: reader.flag("resolves_first").unwrap_or(false),
        relay: reader.choice("relay", relay).unwrap_or(Relay::AcceptedDomains),
        tls: tls(&mut reader.inner("receive_connector.tls")),
        trusted_proxies: reader.list("trusted_proxies", Network::from_str).unwrap_or_default(),
        client_names: reader.list("client_names", ClientName::parse).unwrap_or_default(),
        tenant: reader.optional("tenant", Tenant::parse),
        auth: reader.text_with_path("auth", auth).unwrap_or(Auth::None),
        dsn: reader.choice("dsn", &offers).unwrap_or_default(),
        max_message_size: reader.size("max_message_size").unwrap_or(35 << 20),
        max_header_size: reader.size("max_header_size").unwrap_or(256 << 10),
        max_recipients: reader.number("max_recipients", 1).unwrap_or(500),
        max_connections: reader.number("max_connections", 1).unwrap_or(5000),
        max_connections_per_ip: reader.number("max_connections_per_ip", 1).unwrap_or(50),
        idle_timeout: reader.positive("idle_timeout").unwrap_or(Duration::from_secs(300)),
        max_segment_size: segment_size(reader),
        strip_headers: reader
            .list("strip_headers", header_pattern)
            .unwrap_or_else(|| EXCHANGE_HEADERS.map(str::to_owned).into()),
        strip_authentication_results: reader.flag("strip_authentication_results").unwrap_or(true),
        limits: limits(&mut reader.inner("receive_connector.limits")),
    }
}

fn limits(reader: &mut Reader<'_>) -> Limits {
    let within = reader.positive("unknown_within").unwrap_or(Duration::from_mins(10));
    if within > LONGEST_WINDOW {
        reader.problem("unknown_within", "expected at most \"1h\"");
    }
    let most = |key: &str, number: usize, reader: &mut Reader<'_>| {
        if number > MOST_UNKNOWN {
            reader.problem(key, &format!("expected at most {MOST_UNKNOWN}"));
        }
        number
    };
    let unknown = reader.number("unknown_recipients", 0).unwrap_or(20);
    let one_session = reader.number("unknown_one_session", 1).unwrap_or(200);
    Limits {
        unknown_recipients: most("unknown_recipients", unknown, reader),
        unknown_within: within,
        unknown_delay: reader.duration("unknown_delay").unwrap_or(Duration::from_secs(1)),
        unknown_one_session: most("unknown_one_session", one_session, reader),
    }
}

/// `max_segment_size` of either kind of connector; 0: chosen by the system.
pub(super) fn segment_size(reader: &mut Reader<'_>) -> Option<u16> {
    let size = reader.number("max_segment_size", 0).filter(|size| *size != 0)?;
    if !SEGMENT_SIZES.contains(&size) {
        let (least, most) = (SEGMENT_SIZES.start(), SEGMENT_SIZES.end());
        reader.problem("max_segment_size", &format!("expected 0 or {least} to {most} bytes, found {size}"));
    }
    Some(size)
}

fn everywhere() -> Vec<std::net::SocketAddr> {
    vec![([0, 0, 0, 0], 25).into(), ([0_u16; 8], 25).into()]
}

fn the_world() -> Vec<Network> {
    ["0.0.0.0/0", "::/0"].iter().filter_map(|network| network.parse().ok()).collect()
}

/// The default of `strip_headers`: fields that Exchange trusts from its own servers and from Exchange Online, and
/// itself removes from strangers' mail: its header firewall (learn.microsoft.com, "Header firewall"), the same fields
/// between the two halves of a hybrid organisation (`CloudServicesMailEnabled`), and the tenant of a message. Fields
/// that Exchange Online signs must not be here: its DKIM and ARC signatures cover `X-MS-Exchange-SenderADCheck` and
/// `X-MS-Exchange-AntiSpam-*`.
const EXCHANGE_HEADERS: [&str; 8] = [
    "X-MS-Exchange-Organization-*",
    "X-MS-Exchange-Forest-*",
    "X-MS-Exchange-CrossPremises-*",
    "X-MS-Exchange-CrossTenant-*",
    "X-MS-Exchange-Transport-CrossTenantHeaders*",
    "X-CrossPremisesHeaders*",
    "X-OrganizationHeadersPreserved",
    "X-OriginatorOrg",
];

/// A field name (RFC 5322 3.6.8), or a prefix of field names and a `*`.
fn header_pattern(text: &str) -> Result<String, ValueError> {
    let start = text.strip_suffix('*').unwrap_or(text);
    if !start.is_empty() && start.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':' && byte != b'*') {
        return Ok(text.to_owned());
    }
    Err(format!("`{text}` is neither a header field's name nor the beginning of one and a `*`").into())
}

fn tls(reader: &mut Reader<'_>) -> ReceiveTls {
    let modes = &[
        ("none", ReceiveTlsMode::None),
        ("opportunistic", ReceiveTlsMode::Opportunistic),
        ("required", ReceiveTlsMode::Required),
        ("implicit", ReceiveTlsMode::Implicit),
    ];
    let mode = reader.choice("mode", modes);
    let files = certificate(reader);
    if files.is_some() && !reader.has("mode") {
        reader.problem("certificate", "of no use while mode is \"none\"; write mode = \"opportunistic\" to offer TLS");
    }
    if !matches!(mode, None | Some(ReceiveTlsMode::None)) && !reader.has("certificate") {
        reader.problem("mode", "TLS needs a certificate; write `certificate` and `key`");
    }
    let mode = mode.unwrap_or(ReceiveTlsMode::None);
    let client_ca = reader.path("client_ca");
    ReceiveTls { mode, certificate: files.filter(|_| mode != ReceiveTlsMode::None), client_ca }
}

/// `certificate` and `key`: both or neither.
pub(super) fn certificate(reader: &mut Reader<'_>) -> Option<CertificateFiles> {
    match (reader.path("certificate"), reader.path("key")) {
        (Some(certificate), Some(key)) => Some(CertificateFiles { certificate, key }),
        (Some(_), None) => {
            reader.problem("certificate", "has no key beside it; write the PEM file of its private key as `key`");
            None
        }
        (None, Some(_)) => {
            reader.problem("key", "has no certificate beside it; write the PEM file of the chain as `certificate`");
            None
        }
        (None, None) => None,
    }
}

/// `none`, `directory` or `users:FILE`.
fn auth(text: &str, path: &dyn Fn(&str) -> Result<PathBuf, ValueError>) -> Result<Auth, ValueError> {
    match (text, text.strip_prefix("users:")) {
        ("none", _) => Ok(Auth::None),
        ("directory", _) => Ok(Auth::Directory),
        (_, Some(file)) if !file.is_empty() => path(file).map(Auth::Users),
        _ => Err(format!("expected \"none\" or \"directory\" or \"users:FILE\", found \"{text}\"").into()),
    }
}
