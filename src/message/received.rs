//! The Received field that is added on top of every message (RFC 5321 4.4).
//!
//! `session` and `report` write it; hop counts (DESIGN section 6, rule 5) count it among the others when the message
//! comes back.

use std::fmt::Write as _;
use std::net::IpAddr;

use crate::message::queue_id::QueueId;
use crate::smtp::domain::Domain;
use crate::smtp::envelope::Origin;
use crate::time::UnixTime;

/// How the message came in: the `with` clause (RFC 3848, RFC 6531 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum With {
    /// After HELO.
    Smtp,
    /// After EHLO.
    Esmtp,
    /// Over TLS.
    Esmtps,
    /// With SMTPUTF8.
    Utf8Smtp,
    /// With SMTPUTF8 over TLS.
    Utf8Smtps,
    /// Over TLS, authenticated.
    Esmtpsa,
    /// With SMTPUTF8 over TLS, authenticated.
    Utf8Smtpsa,
}

impl With {
    fn keyword(self) -> &'static str {
        match self {
            Self::Smtp => "SMTP",
            Self::Esmtp => "ESMTP",
            Self::Esmtps => "ESMTPS",
            Self::Utf8Smtp => "UTF8SMTP",
            Self::Utf8Smtps => "UTF8SMTPS",
            Self::Esmtpsa => "ESMTPSA",
            Self::Utf8Smtpsa => "UTF8SMTPSA",
        }
    }
}

/// The whole field, folded, with its final CRLF. In reports of ours it has no `from` clause.
#[must_use]
pub fn field(origin: &Origin, with: With, by: &Domain, id: QueueId, at: UnixTime) -> String {
    let mut field = String::with_capacity(256);
    field.push_str("Received: ");
    if let Some(client) = origin.client {
        from_clause(&mut field, &origin.helo, client);
        field.push_str("\r\n\t");
    }
    let (id, date) = (id.to_string(), at.rfc5322());
    for part in ["by ", by.as_str(), " with ", with.keyword(), " id ", &id, ";\r\n\t", &date, "\r\n"] {
        field.push_str(part);
    }
    field
}

/// `from HELO ([ADDRESS])`. If HELO is not a domain the address takes its place, and HELO becomes a comment.
fn from_clause(field: &mut String, helo: &str, client: IpAddr) {
    let literal = match client.to_canonical() {
        IpAddr::V4(four) => format!("[{four}]"),
        IpAddr::V6(six) => format!("[IPv6:{six}]"),
    };
    let _ = match Domain::parse(helo) {
        Ok(domain) => write!(field, "from {domain} ({literal})"),
        Err(_) => write!(field, "from {literal} (helo={})", comment(helo)),
    };
}

/// The text as the content of a comment: characters that could end it or that it may not contain become `?` (RFC 5322
/// 3.2.2).
fn comment(text: &str) -> String {
    let plain = |c: char| if c.is_ascii_graphic() && !"()\\".contains(c) { c } else { '?' };
    text.chars().take(255).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::envelope::Relay;

    fn written(helo: &str, client: Option<&str>) -> String {
        let origin = Origin {
            client: client.map(|ip| ip.parse().unwrap()),
            helo: helo.to_owned(),
            relay: Relay::AcceptedDomains,
            ..Origin::report()
        };
        let by = Domain::parse("mx.contoso.com").unwrap();
        field(&origin, With::Esmtps, &by, QueueId(1), UnixTime(1_795_235_940))
    }

    #[test]
    fn the_field_says_from_by_with_and_when() {
        let rest = "by mx.contoso.com with ESMTPS id 0000000000001;\r\n\tSat, 21 Nov 2026 04:39:00 +0000\r\n";
        for (helo, client, from) in [
            ("a.example", Some("192.0.2.1"), "from a.example ([192.0.2.1])\r\n\t"),
            ("[192.0.2.1]", Some("::ffff:192.0.2.1"), "from [192.0.2.1] ([192.0.2.1])\r\n\t"),
            ("bücher.example", Some("2001:db8::1"), "from xn--bcher-kva.example ([IPv6:2001:db8::1])\r\n\t"),
            ("", Some("192.0.2.1"), "from [192.0.2.1] (helo=)\r\n\t"),
            ("a) b\r\nX: (\0ü\\", Some("192.0.2.1"), "from [192.0.2.1] (helo=a??b??X:?????)\r\n\t"),
            ("a.example", None, ""),
        ] {
            assert_eq!(written(helo, client), format!("Received: {from}{rest}"), "{helo:?}");
        }
    }

    #[test]
    fn no_line_is_longer_than_allowed() {
        // RFC 5322 2.1.1
        let field = written(&"x(".repeat(2000), Some("192.0.2.1"));
        assert!(field.lines().all(|line| line.len() < 998), "{field}");
    }
}
