//! Parses smart hosts: `[ADDRESS]`, `NAME`, `unix:PATH`. `send_connector` reads its list with it.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use super::units::domain_name;
use super::value_error::ValueError;
use super::{Host, SmartHost, Speaks};

const SMTP_PORT: u16 = 25;
const SOCKET: &str = "unix:";

/// Parses `[ADDRESS]` or `NAME`, with or without `:PORT`, or `unix:PATH`; a relative path is relative to `folder`.
///
/// # Errors
/// What is wrong with it, and what was expected.
pub(super) fn smart_host(text: &str, speaks: Speaks, folder: &Path) -> Result<SmartHost, ValueError> {
    match (text.strip_prefix(SOCKET), speaks) {
        (Some(_), Speaks::Smtp) => return Err("unix: is for protocol = \"lmtp\"; write NAME or [ADDRESS]".into()),
        (Some(""), Speaks::Lmtp) => return Err("unix: and no path; write unix:PATH".into()),
        (Some(path), Speaks::Lmtp) => return Ok(SmartHost::new(Host::Unix(folder.join(path)), 0)),
        (None, _) => {}
    }
    let (host, port) = host(text, speaks)?;
    match (port, speaks) {
        (Some(SMTP_PORT), Speaks::Lmtp) => Err(format!("`{text}`: LMTP never uses port 25, which is SMTP's").into()), // RFC 2033 5
        (None, Speaks::Lmtp) => Err(format!("`{text}`: LMTP has no default port; write :PORT, such as :24").into()),
        (port, _) => Ok(SmartHost::new(host, port.unwrap_or(SMTP_PORT))),
    }
}

fn host(text: &str, speaks: Speaks) -> Result<(Host, Option<u16>), ValueError> {
    let form = || -> ValueError {
        let form = match speaks {
            Speaks::Smtp => "NAME or [ADDRESS], with :PORT where it is not 25",
            Speaks::Lmtp => "NAME:PORT, [ADDRESS]:PORT or unix:PATH",
        };
        format!("`{text}` is not a smart host; write {form}").into()
    };
    if !text.starts_with('[') && (text.parse::<IpAddr>().is_ok() || text.parse::<SocketAddr>().is_ok()) {
        return Err(format!("`{text}`: an address stands in brackets, such as [10.0.0.5] or [10.0.0.5]:2525").into());
    }
    let port = |rest: &str| match rest.strip_prefix(':') {
        Some(port) => port.parse().ok().filter(|port| *port != 0).map(Some).ok_or_else(form),
        None if rest.is_empty() => Ok(None),
        None => Err(form()),
    };
    if let Some(inside) = text.strip_prefix('[') {
        let (address, rest) = inside.split_once(']').ok_or_else(form)?;
        let address = address.strip_prefix("IPv6:").unwrap_or(address).parse().map_err(|_| form())?;
        return Ok((Host::Address(address), port(rest)?));
    }
    let end = text.find(':').unwrap_or(text.len());
    let name = domain_name(&text[..end]).map_err(|_| form())?;
    Ok((Host::Name(name.to_string()), port(&text[end..])?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, speaks: Speaks) -> Result<SmartHost, ValueError> {
        smart_host(text, speaks, Path::new("/etc/fp"))
    }

    fn address(text: &str) -> Host {
        Host::Address(text.parse().unwrap())
    }

    fn name(text: &str) -> Host {
        Host::Name(text.to_owned())
    }

    #[test]
    fn smart_hosts_are_read() {
        for (text, host, port) in [
            ("[10.0.0.5]", address("10.0.0.5"), 25),
            ("[10.0.0.5]:2525", address("10.0.0.5"), 2525),
            ("[2001:db8::1]:26", address("2001:db8::1"), 26),
            ("[IPv6:2001:db8::1]", address("2001:db8::1"), 25),
            ("Relay.Contoso.com", name("relay.contoso.com"), 25),
            ("ex2010.contoso.local:2525", name("ex2010.contoso.local"), 2525),
        ] {
            assert_eq!(read(text, Speaks::Smtp), Ok(SmartHost::new(host, port)), "{text}");
        }
        for text in ["", "10.0.0.5", "10.0.0.5:25", "[10.0.0.5", "[x]", "a b", "a:0", "a:x", "[::1]x", "unix:/run/l"] {
            assert!(read(text, Speaks::Smtp).is_err(), "{text}");
        }
    }

    #[test]
    fn lmtp_has_sockets_and_no_default_port() {
        for (text, host, port) in [
            ("[127.0.0.1]:24", address("127.0.0.1"), 24),
            ("imap.contoso.local:2003", name("imap.contoso.local"), 2003),
            ("unix:/run/dovecot/lmtp", Host::Unix("/run/dovecot/lmtp".into()), 0),
            ("unix:lmtp", Host::Unix("/etc/fp/lmtp".into()), 0),
        ] {
            let read = read(text, Speaks::Lmtp).unwrap();
            assert_eq!(read, SmartHost::new(host, port), "{text}");
            let shown = if text == "unix:lmtp" { "unix:/etc/fp/lmtp" } else { text };
            assert_eq!(read.to_string(), shown);
        }
        for text in ["[127.0.0.1]", "imap.contoso.local", "imap.contoso.local:25", "unix:", "unix", "10.0.0.5:24"] {
            assert!(read(text, Speaks::Lmtp).is_err(), "{text}");
        }
    }
}
