//! `[[directory]]`: where recipients are looked up.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::accepted_domain::set;
use super::profile::{self, plus_addressing_of};
use super::reader::{Reader, name, plain};
use super::receive_connector::certificate;
use super::value_error::ValueError;
use super::{
    CacheConfig, CallAheadConfig, CertificateFiles, DirectoryConfig, DirectoryKind, FileDirectoryConfig, HoldChanges,
    LdapConfig, LdapMode, SnapshotConfig,
};
use crate::routing::table::{DirectoryRules, PlusAddressing, Proof};
use crate::smtp::address::Address;
use crate::smtp::domain::Domain;

/// The values of `kind`.
#[derive(Clone, Copy, PartialEq)]
enum Word {
    Ldap,
    File,
    CallAhead,
}

pub(super) fn read(reader: &mut Reader<'_>) -> DirectoryConfig {
    reader.require("name", "every directory has a name");
    let word = reader.choice("kind", &[("ldap", Word::Ldap), ("file", Word::File), ("call-ahead", Word::CallAhead)]);
    // An unknown kind is reported once; its keys cannot be checked.
    let mut kind = match word {
        None if reader.has("kind") => DirectoryKind::File(FileDirectoryConfig::default()),
        Some(Word::File) => DirectoryKind::File(file(reader)),
        Some(Word::CallAhead) => DirectoryKind::CallAhead(call_ahead(reader)),
        Some(Word::Ldap) | None => DirectoryKind::Ldap(Box::new(ldap(reader))),
    };
    let mailbox_servers = mailbox_servers(reader);
    if let DirectoryKind::Ldap(ldap) = &mut kind {
        ldap.mailbox_servers.clone_from(&mailbox_servers);
    }
    let default = match &kind {
        DirectoryKind::Ldap(ldap) => plus_addressing_of(&ldap.profile),
        DirectoryKind::File(_) | DirectoryKind::CallAhead(_) => PlusAddressing::Off,
    };
    let words = &[("off", PlusAddressing::Off), ("keep", PlusAddressing::Keep), ("strip", PlusAddressing::Strip)];
    let name: Arc<str> = reader.text("name", name).unwrap_or_default();
    let rules = DirectoryRules {
        name: name.clone(),
        domains: set(reader, "domains"),
        deliver_to: reader.optional("deliver_to", plain),
        mailbox_servers,
        plus_addressing: reader.choice("plus_addressing", words).unwrap_or(default),
        proof: match &kind {
            DirectoryKind::Ldap(_) | DirectoryKind::File(_) => Proof::Entry,
            DirectoryKind::CallAhead(_) => Proof::Word,
        },
    };
    DirectoryConfig { name, rules, kind }
}

fn mailbox_servers(reader: &mut Reader<'_>) -> HashMap<String, Arc<str>> {
    let mut servers = HashMap::new();
    for (server, connector) in reader.map("mailbox_servers") {
        if servers.insert(server.to_lowercase(), connector).is_some() {
            reader.problem(&format!("mailbox_servers.{server}"), "written twice; case does not matter here");
        }
    }
    servers
}

fn file(reader: &mut Reader<'_>) -> FileDirectoryConfig {
    reader.require("path", "name the .toml, .csv or .txt file with the recipients");
    let path = reader.path("path").unwrap_or_default();
    let extension = path.extension().and_then(|extension| extension.to_str());
    if reader.has("path") && !matches!(extension, Some("toml" | "csv" | "txt")) {
        reader.problem("path", "expected a file whose name ends in .toml, .csv or .txt");
    }
    FileDirectoryConfig { path, default_domain: reader.optional("default_domain", Domain::parse) }
}

/// The server in its send connector is found when all tables have been read (`check::call_ahead`).
fn call_ahead(reader: &mut Reader<'_>) -> CallAheadConfig {
    reader.require("send_connector", "name the send connector whose smart hosts are to be asked");
    CallAheadConfig {
        send_connector: reader.text("send_connector", name).unwrap_or_default(),
        server: None,
        // Exchange delays replies by 5 s (tarpit), others by 10.
        timeout: timeout(reader, Duration::from_secs(15)),
        cache: cache(&mut reader.inner("directory.cache")),
        probes_per_second: reader.number("probes_per_second", 1).unwrap_or(20),
    }
}

fn ldap(reader: &mut Reader<'_>) -> LdapConfig {
    reader.require("urls", "name the servers, such as [\"ldaps://dc1.contoso.com\"]");
    reader.require("base", "name the search bases, such as [\"DC=contoso,DC=com\"]");
    reader
        .require("probe", "name an address that must be found, so that a blind directory is not believed, or \"none\"");
    let urls = reader.list("urls", url).unwrap_or_default();
    let base = reader.list("base", |text| plain(text).map(|base| base.to_string())).unwrap_or_default();
    reader.require_some("urls", "name at least one server");
    reader.require_some("base", "name at least one search base; a global catalog takes \"\"");
    apart(reader, &base);
    let tls = tls(&mut reader.inner("directory.tls"), &urls);
    let config = LdapConfig {
        urls,
        profile: profile::read(reader),
        base,
        bind_dn: reader.text("bind_dn", plain).unwrap_or_default().to_string(),
        password_file: reader.path("password_file"),
        start_tls: tls.start_tls,
        ca: tls.ca,
        certificate: tls.certificate,
        timeout: timeout(reader, Duration::from_secs(5)),
        probe: reader.text("probe", probe).flatten(),
        cache: cache(&mut reader.inner("directory.cache")),
        refuse_disabled: reader.flag("refuse_disabled").unwrap_or(false),
        mode: mode(reader),
        hold_changes: hold_changes(&mut reader.inner("directory.hold_changes")),
        mailbox_servers: HashMap::new(),
    };
    profile::check(reader, &config);
    // RFC 4513 5.1.2: a name without a password is an unauthenticated bind, which succeeds as anonymous.
    match (config.bind_dn.is_empty(), config.password_file.is_some()) {
        (false, false) if !reader.has("password_file") => {
            reader.problem("bind_dn", "has no `password_file` beside it");
        }
        (true, true) if !reader.has("bind_dn") => reader.problem("password_file", "has no `bind_dn` beside it"),
        _ => {}
    }
    config
}

/// An entry below two bases would be read twice and be ambiguous.
fn apart(reader: &mut Reader<'_>, bases: &[String]) {
    // RFC 4514 2.4 allows spaces, and names are compared in any case; the empty name is above all others.
    let parts = |base: &str| base.split(',').map(|part| part.trim().to_lowercase()).collect::<Vec<_>>();
    let plain = |base: &String| if base.trim().is_empty() { Vec::new() } else { parts(base) };
    let plain: Vec<Vec<String>> = bases.iter().map(plain).collect();
    for (at, base) in plain.iter().enumerate() {
        let above = |(other, upper): &(usize, &Vec<String>)| *other != at && base.ends_with(upper);
        if let Some((other, _)) = plain.iter().enumerate().find(above) {
            reader.problem(&format!("base[{at}]"), &format!("lies below `{}` already; leave it out", bases[other]));
        }
    }
}

/// `ldap://HOST[:PORT]` or `ldaps://HOST[:PORT]`; the result has a port.
fn url(text: &str) -> Result<String, ValueError> {
    let form = || -> ValueError { format!("`{text}` is not ldap://HOST, ldaps://HOST or either with :PORT").into() };
    let (scheme, default, rest) = match text.split_once("://") {
        Some(("ldap", rest)) => ("ldap", 389, rest),
        Some(("ldaps", rest)) => ("ldaps", 636, rest),
        _ => return Err(form()),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let end_of_host = rest.find(']').map_or(0, |at| at + 1);
    let (host, port) = match rest[end_of_host..].split_once(':') {
        Some((host, port)) => {
            (&rest[..end_of_host + host.len()], port.parse().ok().filter(|port| *port != 0).ok_or_else(form)?)
        }
        None => (rest, default),
    };
    let known = |c: char| c.is_ascii_alphanumeric() || "-_.:[]".contains(c);
    if host.is_empty() || !host.chars().all(known) {
        return Err(form());
    }
    Ok(format!("{scheme}://{host}:{port}"))
}

struct Tls {
    start_tls: bool,
    ca: Option<PathBuf>,
    certificate: Option<CertificateFiles>,
}

fn tls(reader: &mut Reader<'_>, urls: &[String]) -> Tls {
    let start_tls = reader.flag("start_tls").unwrap_or(false);
    if start_tls && urls.iter().any(|url| url.starts_with("ldaps:")) {
        reader.problem("start_tls", "ldaps:// begins with TLS already; write ldap:// or leave start_tls out");
    }
    let certificate = certificate(reader);
    if certificate.is_some() && !start_tls && urls.iter().any(|url| url.starts_with("ldap:")) {
        reader.problem("certificate", "is shown in TLS only; write ldaps:// or start_tls");
    }
    Tls { start_tls, ca: reader.path("ca"), certificate }
}

/// `"none"`, or an address.
fn probe(text: &str) -> Result<Option<Address>, ValueError> {
    if text == "none" {
        return Ok(None);
    }
    let advice = "name an address that must be found, or \"none\"";
    Address::parse(text).map(Some).map_err(|error| format!("`{text}` is not an address: {error}; {advice}").into())
}

fn timeout(reader: &mut Reader<'_>, usual: Duration) -> Duration {
    reader.positive("timeout").unwrap_or(usual)
}

fn mode(reader: &mut Reader<'_>) -> LdapMode {
    #[derive(Clone, Copy, PartialEq)]
    enum Word {
        Lookup,
        Snapshot,
    }
    let snapshot = SnapshotConfig {
        poll: reader.positive("poll").unwrap_or(Duration::from_secs(10)),
        full_read: reader.positive("full_read").unwrap_or(Duration::from_hours(1)),
        max_stale: reader.duration("max_stale").unwrap_or(Duration::from_hours(24)),
    };
    match reader.choice("mode", &[("snapshot", Word::Snapshot), ("lookup", Word::Lookup)]) {
        Some(Word::Lookup) => LdapMode::Lookup,
        Some(Word::Snapshot) | None => LdapMode::Snapshot(snapshot),
    }
}

fn hold_changes(reader: &mut Reader<'_>) -> HoldChanges {
    let share = reader.fraction("share", 0.0).unwrap_or(0.02);
    if share > 1.0 {
        reader.problem("share", "is a share of all recipients, such as 0.02 for one in fifty; 1 holds nothing");
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between nothing and all")]
    let share_millionths = (share.clamp(0.0, 1.0) * 1e6).round() as usize;
    HoldChanges {
        share_millionths,
        at_least: reader.number("at_least", 0).unwrap_or(50),
        within: reader.positive("within").unwrap_or(Duration::from_hours(1)),
    }
}

fn cache(reader: &mut Reader<'_>) -> CacheConfig {
    CacheConfig {
        found: reader.duration("found").unwrap_or(Duration::from_secs(600)),
        not_found: reader.duration("not_found").unwrap_or(Duration::from_secs(60)),
        entries: reader.number("entries", 1).unwrap_or(100_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_have_one_form() {
        for (text, form) in [
            ("ldap://dc1", "ldap://dc1:389"),
            ("ldaps://dc1.contoso.com/", "ldaps://dc1.contoso.com:636"),
            ("ldap://127.0.0.1:3268", "ldap://127.0.0.1:3268"),
            ("ldaps://[::1]", "ldaps://[::1]:636"),
            ("ldaps://[::1]:3269", "ldaps://[::1]:3269"),
        ] {
            assert_eq!(url(text).as_deref(), Ok(form));
        }
        for text in ["", "dc1", "http://dc1", "ldapi://x", "ldap://", "ldap://dc1:0", "ldap://dc1:x", "ldap://dc1/DC=x"]
        {
            assert!(url(text).is_err(), "{text}");
        }
    }
}
