//! Parses paths of MAIL and RCPT (RFC 5321 4.1.2), with some tolerance, into their proper form.
//!
//! `command` calls `split` and [`mailbox`]. Deviations are tolerated here only: next hops, the spool, Return-Path and
//! reports see the proper form.

use super::address::{Address, AddressError, is_atext, is_dot_string, local_end};
use super::domain::Domain;

/// Splits MAIL's or RCPT's arguments: the path without brackets and source route, and the parameters. White space
/// around the colon and a path without brackets are not RFC 5321's (3.3, 4.1.2), but printers, scanners and scripts
/// send them, and other servers accept them (Postfix: `strict_rfc821_envelopes = no`, its default).
pub(super) fn split<'a>(arguments: &'a str, keyword: &str) -> Option<(&'a str, &'a str)> {
    let (head, rest) = arguments.split_at_checked(keyword.len())?;
    if !head.eq_ignore_ascii_case(keyword) {
        return None;
    }
    let rest = rest.trim_start_matches(' ').strip_prefix(':')?.trim_start_matches(' ');
    let (inner, behind) = match rest.strip_prefix('<') {
        Some(rest) => {
            let end = unquoted(rest, b'>')?;
            (&rest[..end], &rest[end + 1..])
        }
        // Without brackets an empty path is an error.
        None if rest.is_empty() => return None,
        None => rest.split_at(unquoted(rest, b' ').unwrap_or(rest.len())),
    };
    let parameters = behind.trim_start_matches(' ');
    if !parameters.is_empty() && !behind.starts_with(' ') {
        return None;
    }
    Some((without_source_route(inner)?, parameters))
}

/// The first position of this octet outside quotes.
fn unquoted(text: &str, wanted: u8) -> Option<usize> {
    // Quotes are rare.
    let first = memchr::memchr2(wanted, b'"', text.as_bytes())?;
    if text.as_bytes()[first] == wanted {
        return Some(first);
    }
    let mut quoted = false;
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            byte if byte == wanted && !quoted => return Some(at),
            _ => {}
        }
    }
    None
}

/// RFC 5321 4.1.2, appendix C: `@one,@two:` is accepted and ignored.
fn without_source_route(path: &str) -> Option<&str> {
    if !path.starts_with('@') {
        return Some(path);
    }
    let mut rest = path;
    loop {
        rest = rest.strip_prefix('@')?;
        let literal_end = if rest.starts_with('[') { rest.find(']')? } else { 0 };
        let end = literal_end + rest[literal_end..].find([',', ':'])?;
        Domain::parse(&rest[..end]).ok()?;
        let behind = &rest[end + 1..];
        if rest[end..].starts_with(':') {
            return (!behind.is_empty()).then_some(behind);
        }
        rest = behind;
    }
}

/// The mailbox of a path in its proper form: a dot at the end of the domain is gone, and a local part that is no
/// dot-string only because of its dots (`chris..x`, `.chris`, `chris.`) is in quotes. Postfix and others do the same;
/// some telephone companies have given out such addresses for years. No other deviation is tolerated.
///
/// # Errors
/// Those of [`Address::parse`].
pub fn mailbox(text: &str) -> Result<Address, AddressError> {
    if let Ok(address) = Address::parse(text) {
        return Ok(address);
    }
    let (local, domain) = text.split_at(local_end(text)?);
    let domain = domain.strip_suffix('.').unwrap_or(domain);
    if is_dot_string(local) || !local.chars().all(|c| c == '.' || is_atext(c)) {
        return Address::parse(&text[..local.len() + domain.len()]);
    }
    Address::parse(&format!("\"{local}\"{domain}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_get_their_proper_form() {
        for (came, proper) in [
            ("alice@contoso.com", "alice@contoso.com"),
            ("Chris@Fabrikam.test.", "Chris@Fabrikam.test"),
            ("chris@bücher.example.", "chris@bücher.example"),
            ("chris@localhost.", "chris@localhost"),
            ("chris..x@fabrikam.test", "\"chris..x\"@fabrikam.test"),
            (".chris@fabrikam.test", "\".chris\"@fabrikam.test"),
            ("chris.@fabrikam.test.", "\"chris.\"@fabrikam.test"),
            ("...@fabrikam.test", "\"...\"@fabrikam.test"),
            ("ren..é@fabrikam.test", "\"ren..é\"@fabrikam.test"),
            ("\"chris..x\"@fabrikam.test", "\"chris..x\"@fabrikam.test"),
            ("\"a b\"@fabrikam.test.", "\"a b\"@fabrikam.test"),
        ] {
            let address = mailbox(came).unwrap();
            assert_eq!(address.as_str(), proper);
            assert_eq!(Address::parse(proper).unwrap(), address, "what is stored is read again");
        }
        for text in [
            "",
            ".",
            "chris",
            "@fabrikam.test",
            "chris@",
            "chris@.",
            "chris@fabrikam.test..",
            "chris@fabrikam..test",
            "chris@.fabrikam.test",
            "chris x@fabrikam.test",
            "chris..x y@fabrikam.test",
            "chris..>@fabrikam.test",
            "chris..\r\nRCPT@fabrikam.test",
            "chris..\0@fabrikam.test",
            "chris..\"x@fabrikam.test",
            "chris..\\@fabrikam.test",
            "chris@fabrikam.test\r\n.",
            "chris@fabrikam.test>.",
            "chris@fabrikam.test .",
            "<chris..x@fabrikam.test",
        ] {
            assert!(mailbox(text).is_err(), "{text:?}");
        }
        let long = |dots: usize| mailbox(&format!("a..{}@a.b", "x".repeat(dots)));
        assert!(long(250).is_ok());
        assert_eq!(long(251), Err(AddressError::LongLocal), "with its quotes");
    }

    proptest::proptest! {
        #[test]
        fn nothing_gets_past_the_proper_form(text in "[a.@\" \\\\>\r\n\\x00é%,<-]{0,12}@b\\.c\\.?") {
            if let Ok(address) = mailbox(&text) {
                proptest::prop_assert!(Address::parse(address.as_str()).is_ok());
                proptest::prop_assert!(!address.as_str().contains(|c: char| c.is_control()));
                let local = address.local();
                proptest::prop_assert!(local.starts_with('"') || !local.contains([' ', '<', '>', ',', '@']));
            }
        }
    }
}
