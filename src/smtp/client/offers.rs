//! The extensions that a next hop offers in its reply to EHLO (RFC 5321 4.1.1.1).

use super::xforward::Offered;
use crate::smtp::reply::Reply;

/// The extensions that this program uses; none after HELO.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offers {
    /// RFC 2920.
    pub pipelining: bool,
    /// RFC 1870.
    pub size: Size,
    /// RFC 6152.
    pub eight_bit_mime: bool,
    /// RFC 6531.
    pub smtputf8: bool,
    /// RFC 3030.
    pub chunking: bool,
    /// RFC 3461.
    pub dsn: bool,
    /// RFC 3207.
    pub starttls: bool,
    /// XFORWARD (Postfix XFORWARD_README).
    pub xforward: Offered,
    /// AUTH PLAIN (RFC 4954, RFC 4616).
    pub auth_plain: bool,
    pub auth_login: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Size {
    #[default]
    NotOffered,
    /// Offered without a limit, or with one that varies.
    Unlimited,
    Limit(u64),
}

impl Offers {
    /// Reads the reply to EHLO; unknown or malformed lines are ignored.
    #[must_use]
    pub fn read(reply: &Reply) -> Self {
        let mut offers = Self::default();
        for line in reply.text.split('\n').skip(1) {
            let mut words = line.split_ascii_whitespace();
            let keyword = words.next().unwrap_or_default().to_ascii_uppercase();
            match keyword.as_str() {
                "PIPELINING" => offers.pipelining = true,
                "SIZE" => offers.size = size(words.next()),
                "8BITMIME" => offers.eight_bit_mime = true,
                "SMTPUTF8" => offers.smtputf8 = true,
                "CHUNKING" => offers.chunking = true,
                "DSN" => offers.dsn = true,
                "STARTTLS" => offers.starttls = true,
                "XFORWARD" => words.for_each(|name| offers.xforward.add(name)),
                "AUTH" => words.for_each(|mechanism| offers.mechanism(mechanism)),
                // `AUTH=PLAIN`: the form before RFC 2554, which some servers still send.
                _ => {
                    if let Some(first) = keyword.strip_prefix("AUTH=") {
                        offers.mechanism(first);
                        words.for_each(|mechanism| offers.mechanism(mechanism));
                    }
                }
            }
        }
        offers
    }

    fn mechanism(&mut self, name: &str) {
        self.auth_plain |= name.eq_ignore_ascii_case("PLAIN");
        self.auth_login |= name.eq_ignore_ascii_case("LOGIN");
    }
}

/// RFC 1870 4: zero or no value means that there is no fixed limit.
fn size(value: Option<&str>) -> Size {
    match value.and_then(|value| value.parse().ok()) {
        Some(0) | None => Size::Unlimited,
        Some(limit) => Size::Limit(limit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offers(lines: &'static str) -> Offers {
        Offers::read(&Reply::bare(250, lines.into()))
    }

    #[test]
    fn extensions_are_read_in_any_case_and_the_first_line_is_none() {
        assert_eq!(offers("PIPELINING"), Offers::default());
        let all = "mx\npipelining\nSIZE 1000\n8bitmime\nSmtpUtf8\nCHUNKING\nDSN\nSTARTTLS\nAUTH plain LOGIN\nX-OTHER";
        let want = Offers {
            pipelining: true,
            size: Size::Limit(1000),
            eight_bit_mime: true,
            smtputf8: true,
            chunking: true,
            dsn: true,
            starttls: true,
            xforward: Offered::default(),
            auth_plain: true,
            auth_login: true,
        };
        assert_eq!(offers(all), want);
    }

    #[test]
    fn odd_lines_are_read_as_far_as_they_make_sense() {
        for (line, size) in [
            ("mx", Size::NotOffered),
            ("mx\nSIZE", Size::Unlimited),
            ("mx\nSIZE 0", Size::Unlimited),
            ("mx\nSIZE many", Size::Unlimited),
            ("mx\nSIZE 5 6", Size::Limit(5)),
            ("mx\nSIZED 5", Size::NotOffered),
        ] {
            assert_eq!(offers(line).size, size, "{line}");
        }
        assert!(offers("mx\nXFORWARD").xforward.is_empty() && offers("mx\nXFORWARD IDENT").xforward.is_empty());
        assert!(!offers("mx\nxforward IDENT addr").xforward.is_empty());
        assert!(offers("mx\nAUTH=LOGIN PLAIN").auth_plain);
        assert!(offers("mx\nAUTH=LOGIN PLAIN").auth_login);
        assert!(!offers("mx\nAUTH NTLM GSSAPI").auth_login);
    }
}
