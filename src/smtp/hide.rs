//! Removes IP addresses and internal host names from a next hop's replies (`hide_internal_hosts`).
//!
//! Called where a next hop's text goes to somebody outside: in reports and in replies to strangers. The queue and the
//! log keep the text unchanged.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Top-level domains of internal names, which never exist in the public DNS: RFC 6762 (local and its appendix G), RFC
/// 8375 (home.arpa), RFC 6761, and ICANN's `internal`.
const INTERNAL: [&str; 10] =
    ["local", "localdomain", "localhost", "internal", "intranet", "private", "corp", "home", "lan", "home.arpa"];

/// What replaces them.
const HIDDEN: &str = "[hidden]";

/// The text with IP addresses, names below internal domains, and every name of `names` (in any case) replaced by
/// `[hidden]`. Brackets around an address and a port after it are replaced too.
#[must_use]
pub fn hide(text: &str, names: &[&str]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let word = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        if word == 0 {
            let other = rest.find(is_word).unwrap_or(rest.len());
            out.push_str(&rest[..other]);
            rest = &rest[other..];
            continue;
        }
        let core = rest[..word].trim_end_matches(['.', ':']);
        if is_internal(core, names) {
            let bracketed = out.ends_with('[') && rest[core.len()..].starts_with(']');
            if bracketed {
                out.pop();
            }
            out.push_str(HIDDEN);
            rest = &rest[core.len() + usize::from(bracketed)..];
            if bracketed {
                rest = without_port(rest);
            }
        } else {
            out.push_str(&rest[..word]);
            rest = &rest[word..];
        }
    }
    out
}

/// The text without a leading `:port`.
fn without_port(text: &str) -> &str {
    let Some(behind) = text.strip_prefix(':') else { return text };
    let digits = behind.find(|c: char| !c.is_ascii_digit()).unwrap_or(behind.len());
    let (port, rest) = behind.split_at(digits);
    if port.parse::<u16>().is_ok() { rest } else { text }
}

/// Whether addresses and host names may contain it.
fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '-' | '_')
}

fn is_internal(word: &str, names: &[&str]) -> bool {
    let six = word.get(..5).filter(|tag| tag.eq_ignore_ascii_case("IPv6:")).map_or(word, |_| &word[5..]);
    if six.parse::<Ipv6Addr>().is_ok_and(|ip| !ip.is_unspecified()) {
        return true;
    }
    // `host:port`.
    let host = word.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()).map_or(word, |(host, _)| host);
    if host.parse::<Ipv4Addr>().is_ok_and(|ip| !IpAddr::V4(ip).is_unspecified()) {
        return true;
    }
    if host.is_empty() {
        return false; // punctuation alone; a next hop given by its address has an empty name
    }
    let host = host.to_ascii_lowercase();
    let below = |top: &&str| host.strip_suffix(*top).is_some_and(|before| before.ends_with('.') && before.len() > 1);
    names.iter().any(|name| name.eq_ignore_ascii_case(&host)) || INTERNAL.iter().any(below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_internal_names_are_hidden_and_nothing_else() {
        for (said, hidden) in [
            ("no such user", "no such user"),
            ("[10.0.0.5] said no", "[hidden] said no"),
            ("host 10.0.0.5:25 said no.", "host [hidden] said no."),
            ("from 2001:db8::1.", "from [hidden]."),
            ("[IPv6:fe80::1]", "[hidden]"),
            ("ex2010.contoso.local refused", "[hidden] refused"),
            ("(EX.Contoso.LOCAL, id 5)", "([hidden], id 5)"),
            ("<a@contoso.local> unknown", "<a@[hidden]> unknown"),
            ("<alice@contoso.com> unknown", "<alice@contoso.com> unknown"),
            ("gw7.contoso.com refused", "[hidden] refused"),
            ("at 12:30:45, 5.1.1, version 15.1.2507", "at 12:30:45, 5.1.1, version 15.1.2507"),
            ("a local user", "a local user"),
            ("wait ... then: [10.0.0.5]:25 : no", "wait ... then: [hidden] : no"),
            ("ex1.contoso.local[10.0.0.5]:2525: no", "[hidden][hidden]: no"),
            ("[2001:db8::1]:2525, [10.0.0.5]: 5 [10.0.0.5]:x", "[hidden], [hidden]: 5 [hidden]:x"),
            ("see https://support.example/5.7.1", "see https://support.example/5.7.1"),
            ("größe :: ende", "größe :: ende"),
            ("", ""),
        ] {
            assert_eq!(hide(said, &["gw7.contoso.com", ""]), hidden, "{said}");
        }
    }
}
