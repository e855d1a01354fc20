//! The service extensions that this server offers, and their MAIL and RCPT parameters: SIZE (RFC 1870), 8BITMIME (RFC
//! 6152), SMTPUTF8 (RFC 6531), DSN (RFC 3461), AUTH (RFC 4954). `command` and `server` call it.

use super::address::ReversePath;
use super::command::CommandError;
use super::reply::Reply;
use super::sasl::Mechanism;
use crate::smtp::envelope::{Body, Notify, Ret, Sender};

/// Whether the reply to EHLO has STARTTLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartTls {
    /// There is a certificate and TLS is not active.
    Offered,
    /// Anything else (RFC 3207 4.2).
    NotOffered,
}

/// Whether the reply to EHLO has AUTH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthOffer {
    Offered,
    /// The client may not authenticate now, for example because TLS is missing (RFC 4954 4).
    NotOffered,
}

/// Whether the reply to EHLO has DSN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dsn {
    Offered,
    /// The client is a stranger, and its sender address may be forged: reports would go to somebody else. DSN
    /// parameters that it sends all the same are read, except for SUCCESS.
    NotOffered,
}

/// The reply to EHLO (RFC 5321 4.1.1.1).
#[must_use]
pub fn ehlo(hostname: &str, max_message_size: u64, start_tls: StartTls, auth: AuthOffer, dsn: Dsn) -> Reply {
    let dsn = match dsn {
        Dsn::Offered => "\nDSN",
        Dsn::NotOffered => "",
    };
    let start_tls = match start_tls {
        StartTls::Offered => "\nSTARTTLS",
        StartTls::NotOffered => "",
    };
    let mut text = format!(
        "{hostname}\nPIPELINING\nSIZE {max_message_size}\n8BITMIME\nSMTPUTF8\nENHANCEDSTATUSCODES{dsn}\nCHUNKING{start_tls}"
    );
    if auth == AuthOffer::Offered {
        text.push_str("\nAUTH ");
        text.push_str(Mechanism::OFFERED);
    }
    Reply::bare(250, text.into())
}

/// Parses MAIL's parameters.
///
/// # Errors
/// [`CommandError::Parameter`] or [`CommandError::UnknownParameter`].
pub fn mail_parameters(reverse_path: ReversePath, text: &str) -> Result<Sender, CommandError> {
    let mut sender =
        Sender { reverse_path, size: None, body: Body::default(), smtputf8: false, ret: None, envid: None };
    for parameter in parameters(text)? {
        match (parameter.keyword.as_str(), parameter.value) {
            ("SIZE", Some(value)) => sender.size = Some(size(value)?),
            ("BODY", Some(value)) => sender.body = body(value)?,
            ("SMTPUTF8", None) => sender.smtputf8 = true,
            ("RET", Some(value)) => sender.ret = Some(ret(value)?),
            ("ENVID", Some(value)) if value.len() <= 100 && is_xtext(value) => sender.envid = Some(value.to_owned()),
            // RFC 4954 5: AUTH= is the client's claim about the original sender. No client is trusted with it; it
            // counts as `<>`.
            ("AUTH", Some(value)) if value == "<>" || is_xtext(value) => {}
            ("SIZE" | "BODY" | "SMTPUTF8" | "RET" | "ENVID" | "AUTH", _) => return Err(CommandError::Parameter),
            _ => return Err(CommandError::UnknownParameter),
        }
    }
    Ok(sender)
}

/// Parses RCPT's parameters, NOTIFY and ORCPT.
///
/// # Errors
/// [`CommandError::Parameter`] or [`CommandError::UnknownParameter`].
pub fn rcpt_parameters(text: &str) -> Result<(Option<Notify>, Option<String>), CommandError> {
    let mut read = (None, None);
    for parameter in parameters(text)? {
        match (parameter.keyword.as_str(), parameter.value) {
            ("NOTIFY", Some(value)) => read.0 = Some(notify(value)?),
            ("ORCPT", Some(value)) if is_orcpt(value) => read.1 = Some(value.to_owned()),
            ("NOTIFY" | "ORCPT", _) => return Err(CommandError::Parameter),
            _ => return Err(CommandError::UnknownParameter),
        }
    }
    Ok(read)
}

/// `esmtp-keyword ["=" esmtp-value]` (RFC 5321 4.1.2).
struct Parameter<'a> {
    keyword: String,
    value: Option<&'a str>,
}

fn parameters(text: &str) -> Result<Vec<Parameter<'_>>, CommandError> {
    let mut found: Vec<Parameter<'_>> = Vec::new();
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let (keyword, value) = match word.split_once('=') {
            Some((keyword, value)) => (keyword, Some(value)),
            None => (word, None),
        };
        let keyword = keyword.to_ascii_uppercase();
        let named = !keyword.is_empty() && keyword.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let valued = value.is_none_or(|value| !value.is_empty() && value.chars().all(|c| c > ' ' && c != '\u{7f}'));
        if !named || !valued || found.iter().any(|other| other.keyword == keyword) {
            return Err(CommandError::Parameter);
        }
        found.push(Parameter { keyword, value });
    }
    Ok(found)
}

/// RFC 1870 5: 1 to 20 digits. A number beyond 64 bits becomes the largest one.
fn size(value: &str) -> Result<u64, CommandError> {
    if value.len() > 20 || !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(CommandError::Parameter);
    }
    Ok(value.parse().unwrap_or(u64::MAX))
}

fn body(value: &str) -> Result<Body, CommandError> {
    match value.to_ascii_uppercase().as_str() {
        "7BIT" => Ok(Body::SevenBit),
        "8BITMIME" => Ok(Body::EightBitMime),
        "BINARYMIME" => Err(CommandError::UnknownParameter), // RFC 3030 3: not offered
        _ => Err(CommandError::Parameter),
    }
}

fn ret(value: &str) -> Result<Ret, CommandError> {
    match value.to_ascii_uppercase().as_str() {
        "FULL" => Ok(Ret::Full),
        "HDRS" => Ok(Ret::Headers),
        _ => Err(CommandError::Parameter),
    }
}

fn notify(value: &str) -> Result<Notify, CommandError> {
    if value.eq_ignore_ascii_case("NEVER") {
        return Ok(Notify::Never);
    }
    let (mut success, mut failure, mut delay) = (false, false, false);
    for word in value.split(',') {
        match word.to_ascii_uppercase().as_str() {
            "SUCCESS" => success = true,
            "FAILURE" => failure = true,
            "DELAY" => delay = true,
            _ => return Err(CommandError::Parameter),
        }
    }
    Ok(Notify::On { success, failure, delay })
}

/// RFC 3461 4: printable ASCII except `+` and `=`, or `+` and two hex digits in upper case.
fn is_xtext(value: &str) -> bool {
    let mut bytes = value.bytes();
    while let Some(byte) = bytes.next() {
        let good = match byte {
            b'+' => bytes.by_ref().take(2).filter(|hex| matches!(hex, b'0'..=b'9' | b'A'..=b'F')).count() == 2,
            b'=' => false,
            byte => (b'!'..=b'~').contains(&byte),
        };
        if !good {
            return false;
        }
    }
    true
}

/// RFC 3461 4.2: `addr-type ";" xtext`, 500 octets at most; for the type `utf-8` also UTF-8 (RFC 6533 3).
fn is_orcpt(value: &str) -> bool {
    let Some((kind, address)) = value.split_once(';') else { return false };
    let named = !kind.is_empty() && kind.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let text = if kind.eq_ignore_ascii_case("utf-8") {
        address.chars().all(|c| c > ' ' && !c.is_control() && c != '=')
    } else {
        is_xtext(address)
    };
    value.len() <= 500 && named && text && !address.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mail_parameters_are_read() {
        let text = "SIZE=12345 body=8bitmime SMTPUTF8 RET=HDRS ENVID=QQ+2B1 AUTH=<>";
        let sender = mail_parameters(ReversePath::Null, text).unwrap();
        assert_eq!(
            sender,
            Sender {
                reverse_path: ReversePath::Null,
                size: Some(12345),
                body: Body::EightBitMime,
                smtputf8: true,
                ret: Some(Ret::Headers),
                envid: Some("QQ+2B1".into()),
            }
        );
        assert_eq!(mail_parameters(ReversePath::Null, "SIZE=99999999999999999999").unwrap().size, Some(u64::MAX));
    }

    #[test]
    fn rcpt_parameters_are_read() {
        let (success, failure, delay) = (true, false, true);
        for (text, read) in [
            ("", (None, None)),
            ("NOTIFY=NEVER", (Some(Notify::Never), None)),
            ("NOTIFY=success,delay", (Some(Notify::On { success, failure, delay }), None)),
            ("ORCPT=rfc822;a+2Bb@c.d", (None, Some("rfc822;a+2Bb@c.d".to_owned()))),
            ("ORCPT=utf-8;ren\u{e9}@c.d", (None, Some("utf-8;ren\u{e9}@c.d".to_owned()))),
        ] {
            assert_eq!(rcpt_parameters(text), Ok(read), "{text}");
        }
    }

    #[test]
    fn wrong_parameters_are_told_from_unknown_ones() {
        for (text, error) in [
            ("SIZE", CommandError::Parameter),
            ("SIZE=", CommandError::Parameter),
            ("SIZE=-1", CommandError::Parameter),
            ("SIZE=1 SIZE=2", CommandError::Parameter),
            ("BODY=9BIT", CommandError::Parameter),
            ("BODY=BINARYMIME", CommandError::UnknownParameter),
            ("SMTPUTF8=yes", CommandError::Parameter),
            ("RET=SOME", CommandError::Parameter),
            ("ENVID=a=b", CommandError::Parameter),
            ("ENVID=+2b", CommandError::Parameter),
            ("AUTH", CommandError::Parameter),
            ("AUTH=a=b", CommandError::Parameter),
            ("=x", CommandError::Parameter),
            ("XOORG=contoso.com", CommandError::UnknownParameter),
        ] {
            assert_eq!(mail_parameters(ReversePath::Null, text), Err(error), "{text}");
        }
        for text in
            ["NOTIFY=NEVER,DELAY", "NOTIFY=", "ORCPT=rfc822", "ORCPT=;a", "ORCPT=rfc822;a b", "ORCPT=rfc822;\u{e9}"]
        {
            assert!(rcpt_parameters(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ehlo_offers_what_is_built() {
        let offered =
            ehlo("mx.contoso.com", 36_700_160, StartTls::Offered, AuthOffer::NotOffered, Dsn::Offered).to_wire();
        let text = String::from_utf8(offered).unwrap();
        assert!(text.starts_with("250-mx.contoso.com\r\n250-PIPELINING\r\n250-SIZE 36700160\r\n"), "{text}");
        assert!(text.ends_with("250-CHUNKING\r\n250 STARTTLS\r\n"), "{text}");
        assert!(text.contains("250-ENHANCEDSTATUSCODES\r\n250-DSN\r\n"), "{text}");
        let encrypted = ehlo("h", 1, StartTls::NotOffered, AuthOffer::Offered, Dsn::NotOffered);
        assert!(!encrypted.text.contains("DSN"), "{}", encrypted.text);
        assert!(encrypted.text.ends_with("CHUNKING\nAUTH PLAIN LOGIN"), "{}", encrypted.text);
    }
}
