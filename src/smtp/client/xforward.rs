//! XFORWARD: tells a next hop who the original client was (Postfix XFORWARD_README).
//!
//! `delivery/attempt` sends it before MAIL of each message, where the send connector has `xforward` and the next hop
//! offers it. Only offered attributes are sent; an unknown value is `[UNAVAILABLE]`.

use std::fmt::Write as _;
use std::net::IpAddr;

use crate::smtp::envelope::{Origin, Relay, Spoke};

/// The longest command line, in octets with its CRLF.
const LONGEST: usize = 512;
const UNAVAILABLE: &str = "[UNAVAILABLE]";

/// An attribute that this program can send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attribute {
    Name,
    Addr,
    Port,
    Proto,
    Helo,
    Source,
}

/// All of them, in the order in which they are sent.
const ATTRIBUTES: [(Attribute, &str); 6] = [
    (Attribute::Name, "NAME"),
    (Attribute::Addr, "ADDR"),
    (Attribute::Port, "PORT"),
    (Attribute::Proto, "PROTO"),
    (Attribute::Helo, "HELO"),
    (Attribute::Source, "SOURCE"),
];

/// The attributes that a next hop offers; those that this program cannot send are left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Offered([bool; ATTRIBUTES.len()]);

impl Offered {
    /// Adds an attribute by its name in the reply to EHLO; others are ignored.
    pub fn add(&mut self, name: &str) {
        for (offered, (_, known)) in self.0.iter_mut().zip(&ATTRIBUTES) {
            *offered |= known.eq_ignore_ascii_case(name);
        }
    }

    /// Whether no attribute is offered that this program can send.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }
}

/// The commands for a message from `origin`, without CRLF; more than one where a line would be too long.
#[must_use]
pub fn commands(origin: &Origin, offered: Offered) -> Vec<String> {
    let mut commands: Vec<String> = Vec::new();
    for ((attribute, name), _) in ATTRIBUTES.iter().zip(offered.0).filter(|(_, offered)| *offered) {
        let mut said = format!(" {name}={}", xtext(&value(*attribute, origin)));
        if "XFORWARD".len() + said.len() + 2 > LONGEST {
            said = format!(" {name}={UNAVAILABLE}");
        }
        match commands.last_mut() {
            Some(last) if last.len() + said.len() + 2 <= LONGEST => last.push_str(&said),
            _ => commands.push(format!("XFORWARD{said}")),
        }
    }
    commands
}

fn value(attribute: Attribute, origin: &Origin) -> String {
    let known = match (attribute, origin.client) {
        (Attribute::Addr, Some(IpAddr::V4(ip))) => ip.to_string(),
        (Attribute::Addr, Some(IpAddr::V6(ip))) => format!("IPV6:{ip}"),
        (Attribute::Helo, _) => origin.helo.clone(),
        (Attribute::Source, _) if origin.relay == Relay::Report => "LOCAL".to_owned(),
        (Attribute::Source, _) => "REMOTE".to_owned(),
        (Attribute::Port, Some(_)) => origin.client_port.map_or_else(String::new, |port| port.to_string()),
        (Attribute::Proto, _) => match origin.spoke {
            Some(Spoke::Smtp) => "SMTP".to_owned(),
            Some(Spoke::Esmtp) => "ESMTP".to_owned(),
            None => String::new(),
        },
        // The client's name is never looked up in the DNS.
        (Attribute::Addr | Attribute::Name | Attribute::Port, _) => String::new(),
    };
    if known.is_empty() { UNAVAILABLE.to_owned() } else { known }
}

/// xtext (RFC 3461 4): graphic ASCII except `+` and `=` stays, every other octet becomes `+` and two hex digits.
fn xtext(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        let _ = match byte {
            b'!'..=b'~' if byte != b'+' && byte != b'=' => write!(out, "{}", char::from(byte)),
            _ => write!(out, "+{byte:02X}"),
        };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(names: &str) -> Offered {
        let mut offered = Offered::default();
        names.split(' ').for_each(|name| offered.add(name));
        offered
    }

    fn origin(client: &str, helo: &str) -> Origin {
        Origin {
            relay: Relay::AcceptedDomains,
            client: Some(client.parse().unwrap()),
            helo: helo.into(),
            client_port: Some(52_344),
            spoke: Some(Spoke::Esmtp),
            ..Origin::report()
        }
    }

    const ALL: &str = "NAME ADDR PROTO HELO SOURCE PORT IDENT";

    #[test]
    fn what_is_offered_is_said() {
        let client = origin("192.0.2.7", "mail.example");
        for (origin, offers, said) in [
            (
                &client,
                ALL,
                "XFORWARD NAME=[UNAVAILABLE] ADDR=192.0.2.7 PORT=52344 PROTO=ESMTP HELO=mail.example SOURCE=REMOTE",
            ),
            (&Origin { spoke: Some(Spoke::Smtp), ..client.clone() }, "PROTO", "XFORWARD PROTO=SMTP"),
            // Mail that was queued by a version that did not store the two.
            (
                &Origin { spoke: None, client_port: None, ..client.clone() },
                "PORT PROTO",
                "XFORWARD PORT=[UNAVAILABLE] PROTO=[UNAVAILABLE]",
            ),
            (&client, "addr Helo", "XFORWARD ADDR=192.0.2.7 HELO=mail.example"),
            (&origin("2001:db8::7", ""), "ADDR HELO", "XFORWARD ADDR=IPV6:2001:db8::7 HELO=[UNAVAILABLE]"),
            (&origin("192.0.2.7", "a b+c=d\r\nRSETä"), "HELO", "XFORWARD HELO=a+20b+2Bc+3Dd+0D+0ARSET+C3+A4"),
            (
                &Origin::report(),
                "ADDR PORT PROTO SOURCE",
                "XFORWARD ADDR=[UNAVAILABLE] PORT=[UNAVAILABLE] PROTO=[UNAVAILABLE] SOURCE=LOCAL",
            ),
        ] {
            assert_eq!(commands(origin, offered(offers)), [said], "{offers}");
        }
        assert!(offered("IDENT NOTHING").is_empty() && commands(&client, offered("IDENT")).is_empty());
    }

    #[test]
    fn lines_are_short_enough() {
        for length in 0..700 {
            let lines = commands(&origin("2001:db8::7", &"h".repeat(length)), offered(ALL));
            assert!(
                lines.iter().all(|line| line.len() + 2 <= 512 && line.starts_with("XFORWARD ")),
                "{length}: {lines:?}"
            );
            let all = lines.join("");
            let helo = if length == 0 || length > 496 { UNAVAILABLE.to_owned() } else { "h".repeat(length) };
            assert!(all.contains(&format!(" HELO={helo}")) && all.ends_with(" SOURCE=REMOTE"), "{length}: {lines:?}");
        }
    }
}
