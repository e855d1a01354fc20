//! Which host an Authentication-Results field claims to come from (RFC 8601 2.2, 2.5).
//!
//! RFC 8601 5: a border MTA removes the fields that claim to have been added by itself and came from outside, since
//! readers trust fields with that name. `header` calls [`claims`] for fields of strangers' messages.

use crate::smtp::domain::Domain;

/// Whether the body of such a field says that this host added it. For a body that cannot be parsed: whether it contains
/// the host's name anywhere, since other readers may parse it less strictly.
#[must_use]
pub fn claims(body: &[u8], host: &Domain) -> bool {
    let name = host.as_str();
    let Some(id) = authserv_id(body) else {
        return body.windows(name.len()).any(|part| part.eq_ignore_ascii_case(name.as_bytes()));
    };
    let id = String::from_utf8_lossy(&id);
    let id = id.trim().trim_end_matches('.');
    id.eq_ignore_ascii_case(name) || Domain::parse(id).is_ok_and(|id| id == *host)
}

/// `[CFWS] authserv-id`, the id as a token or the content of a quoted string (RFC 2045 5.1 `value`). `None`: a comment or
/// a quoted string that does not end.
fn authserv_id(body: &[u8]) -> Option<Vec<u8>> {
    let rest = after_comments(body)?;
    match rest.strip_prefix(b"\"") {
        Some(quoted) => unquoted(quoted),
        None => {
            let ends = |b: &u8| b.is_ascii() && !b.is_ascii_alphanumeric() && !b"-._".contains(b);
            Some(rest[..rest.iter().position(ends).unwrap_or(rest.len())].to_vec())
        }
    }
}

/// What follows white space and comments, which may be nested (RFC 5322 3.2.2).
fn after_comments(body: &[u8]) -> Option<&[u8]> {
    let (mut depth, mut escaped) = (0_usize, false);
    for (at, byte) in body.iter().enumerate() {
        match (byte, depth) {
            _ if escaped => escaped = false,
            (b'\\', 1..) => escaped = true,
            (b'(', _) => depth += 1,
            (b')', 1..) => depth -= 1,
            (b' ' | b'\t' | b'\r' | b'\n', 0) | (_, 1..) => {}
            _ => return Some(&body[at..]),
        }
    }
    (depth == 0).then_some(&[])
}

/// The content of a quoted string, with folding removed.
fn unquoted(quoted: &[u8]) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    let mut bytes = quoted.iter();
    loop {
        match bytes.next()? {
            b'"' => return Some(content),
            b'\\' => content.push(*bytes.next()?),
            b'\r' | b'\n' => {}
            byte => content.push(*byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_known_in_any_dress() {
        let host = Domain::parse("mx.contoso.com").unwrap();
        for (body, ours) in [
            (" mx.contoso.com; spf=pass", true),
            ("mx.contoso.com;none", true),
            ("MX.Contoso.COM; none", true),
            (" mx.contoso.com 1; none", true),
            (" mx.contoso.com(x)1; none", true),
            (" mx.contoso.com/1; none", true),
            (" mx.contoso.com.; none", true),
            (" mx.contoso.com", true),
            ("\r\n\tmx.contoso.com;\r\n\tnone", true),
            (" (a (b) \\) c)\r\n (d) mx.contoso.com; none", true),
            (" \"mx.contoso.com\"; none", true),
            (" \"MX\\.contoso.com\" 1; none", true),
            (" \" mx.contoso.com\r\n \"; none", true),
            (" \"mx.contoso.com; none", true),
            (" (mx.contoso.com; none", true),
            (" mx.fabrikam.com; none", false),
            (" contoso.com; none", false),
            (" a.mx.contoso.com; none", false),
            (" mx.contoso.com.evil.test; none", false),
            (" mx.contoso.comx; none", false),
            (" (mx.contoso.com) mx.fabrikam.com; none", false),
            (" mx.fabrikam.com; spf=pass smtp.mailfrom=mx.contoso.com", false),
            (" \"mx.fabrikam.com; none", false),
            ("", false),
            ("; mx.contoso.com", false),
            (" ()", false),
        ] {
            assert_eq!(claims(body.as_bytes(), &host), ours, "{body:?}");
        }
        let host = Domain::parse("mx.b\u{fc}cher.example").unwrap();
        for body in
            [" mx.xn--bcher-kva.example; none", " mx.b\u{fc}cher.example; none", " \"MX.B\u{dc}CHER.example\"; none"]
        {
            assert!(claims(body.as_bytes(), &host), "{body:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read(body in proptest::string::bytes_regex("(?s-u:[ -~\\r\\n\\x00\\xff]){0,40}").unwrap()) {
            let host = Domain::parse("mx.contoso.com").unwrap();
            proptest::prop_assert!(!claims(&body, &host));
            let named = [b" mx.contoso.com;", &*body].concat();
            proptest::prop_assert!(claims(&named, &host));
        }
    }
}
