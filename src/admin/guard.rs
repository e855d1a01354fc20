//! Access control of the API and the page: the token and its file, and the Host field.
//!
//! The API accepts the token as `Authorization: Bearer` only. The page, which changes nothing, accepts it as the
//! password of HTTP Basic, so that a browser can open it; so a password that a browser remembers never authorises a
//! request that changes something. The Host field is checked because another site's name might be pointed here by its
//! DNS (DNS rebinding).

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, HOST};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The token; never printed.
pub struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    /// Reads the token; creates the file (mode 0600, 256 random bits) if it is missing.
    ///
    /// # Errors
    /// Which file, what is wrong with it and what to do.
    pub fn load_or_make(file: &Path) -> Result<Self, String> {
        if file.exists() {
            return Self::load(file);
        }
        let mut random = [0; 32];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| "the system gives no randomness".to_owned())?;
        let mut token = String::with_capacity(65);
        for byte in random {
            let _ = write!(token, "{byte:02x}");
        }
        make(file, &token).map_err(|error| format!("cannot make the token file {}: {error}", file.display()))?;
        Ok(Self(token))
    }

    /// Reads the token.
    ///
    /// # Errors
    /// Which file, what is wrong with it and what to do.
    pub fn load(file: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(file)
            .map_err(|error| format!("cannot read the token file {}: {error}", file.display()))?;
        let token = text.trim();
        if token.len() < 16 {
            return Err(format!(
                "the token file {} is too short; remove it and start again, a new one will be made",
                file.display()
            ));
        }
        Ok(Self(token.to_owned()))
    }

    /// The value of Authorization with it.
    #[must_use]
    pub fn bearer(&self) -> String {
        format!("Bearer {}", self.0)
    }

    /// Whether the request has it as the API requires (RFC 6750 2.1).
    #[must_use]
    pub fn is_bearer_of(&self, headers: &HeaderMap) -> bool {
        credentials(headers, "bearer").is_some_and(|token| self.is(token.as_bytes()))
    }

    /// Whether the request has it as the page requires (RFC 7617), with any user name.
    #[must_use]
    pub fn is_password_of(&self, headers: &HeaderMap) -> bool {
        let decoded = credentials(headers, "basic").and_then(|encoded| STANDARD.decode(encoded).ok());
        decoded.is_some_and(|pair| {
            let password = pair.iter().position(|byte| *byte == b':').map(|colon| &pair[colon + 1..]);
            password.is_some_and(|password| self.is(password))
        })
    }

    fn is(&self, given: &[u8]) -> bool {
        verify_slices_are_equal(self.0.as_bytes(), given).is_ok()
    }
}

/// Creates the file atomically: a start that is interrupted must not prevent the next.
fn make(file: &Path, token: &str) -> io::Result<()> {
    let draft = file.with_added_extension("new");
    let _ = fs::remove_file(&draft); // what such a start left behind; if it stays, the next line says so
    let mut made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    made.write_all(text(token).as_bytes())?;
    made.sync_all()?;
    fs::rename(&draft, file)?;
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(folder)?.sync_all()
}

fn text(token: &str) -> String {
    format!("{token}\n")
}

/// What follows the scheme in Authorization; schemes are compared in any case (RFC 9110 11.1).
fn credentials<'a>(headers: &'a HeaderMap, scheme: &str) -> Option<&'a str> {
    let (written, credentials) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    written.eq_ignore_ascii_case(scheme).then(|| credentials.trim())
}

/// Whether the Host field is ours: a loopback name, or the address that we listen on. If we listen on all addresses any
/// address is accepted: only names can be pointed here by another site's DNS.
#[must_use]
pub fn host_is_ours(headers: &HeaderMap, bind: SocketAddr) -> bool {
    let Some(host) = headers.get(HOST).and_then(|value| value.to_str().ok()) else { return false };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    };
    if name.eq_ignore_ascii_case("localhost") {
        return true;
    }
    let literal = name.trim_start_matches('[').trim_end_matches(']');
    match literal.parse::<IpAddr>() {
        Ok(ip) => ip.is_loopback() || ip == bind.ip() || bind.ip().is_unspecified(),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn its_format() {
        let folder = tempfile::tempdir().unwrap();
        let format = crate::formats::Format { name: "admin-token", extension: "txt", oldest: 1, current: 1 };
        format.check(text(&"0f".repeat(32)).as_bytes(), |_, bytes| {
            let file = folder.path().join("token");
            fs::write(&file, bytes).unwrap();
            assert_eq!(Token::load(&file).unwrap().0, "0f".repeat(32));
        });
    }

    fn headers(name: axum::http::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn the_token_is_made_once_and_for_us_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("admin.token");
        let made = Token::load_or_make(&file).unwrap();
        assert_eq!(made.0.len(), 64);
        assert_eq!(Token::load_or_make(&file).unwrap().0, made.0);
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(format!("{made:?}"), "Token");
        std::fs::write(&file, "short").unwrap();
        assert!(Token::load(&file).unwrap_err().contains("too short"));
    }

    #[test]
    fn only_the_token_opens_and_each_door_takes_its_own_form() {
        let token = Token("0123456789abcdef".into());
        let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
        for (value, bearer, password) in [
            ("Bearer 0123456789abcdef", true, false),
            ("bearer 0123456789abcdef", true, false),
            ("Bearer 0123456789abcdeF", false, false),
            ("Bearer 0123456789abcdef0", false, false),
            ("Bearer ", false, false),
            ("0123456789abcdef", false, false),
            (&basic("admin:0123456789abcdef"), false, true),
            (&basic(":0123456789abcdef"), false, true),
            (&basic("0123456789abcdef"), false, false),
            (&basic("admin:wrong"), false, false),
            ("Basic ====", false, false),
        ] {
            let headers = headers(AUTHORIZATION, value);
            assert_eq!(token.is_bearer_of(&headers), bearer, "{value}");
            assert_eq!(token.is_password_of(&headers), password, "{value}");
        }
        assert!(!token.is_bearer_of(&HeaderMap::new()));
    }

    #[test]
    fn other_names_are_not_ours() {
        let loopback: SocketAddr = "127.0.0.1:8025".parse().unwrap();
        let everywhere: SocketAddr = "0.0.0.0:8025".parse().unwrap();
        let office: SocketAddr = "10.0.0.5:8025".parse().unwrap();
        for (host, bind, ours) in [
            ("127.0.0.1:8025", loopback, true),
            ("localhost:8025", loopback, true),
            ("LOCALHOST", loopback, true),
            ("[::1]:8025", loopback, true),
            ("attacker.example:8025", loopback, false),
            ("attacker.example", everywhere, false),
            ("10.0.0.5:8025", loopback, false),
            ("10.0.0.5:8025", office, true),
            ("10.0.0.6", office, false),
            ("10.0.0.6", everywhere, true),
            ("", loopback, false),
        ] {
            assert_eq!(host_is_ours(&headers(HOST, host), bind), ours, "{host} at {bind}");
        }
        assert!(!host_is_ours(&HeaderMap::new(), loopback));
    }
}
