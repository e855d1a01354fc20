//! A users file: lines of `name:hash` for those who may authenticate (`auth = "users:FILE"`).
//!
//! `listener` reads it to check it, `login` at each AUTH, so that a change takes effect at once. A hash
//! is crypt(5)'s SHA-crypt, `$6$` or `$5$`: what `openssl passwd -6` prints.

use std::collections::HashMap;
use std::path::Path;

use sha_crypt::{PasswordVerifier, ShaCrypt};

/// What is wrong with a users file; never contains a hash.
#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    #[error("{file}: {cause}; check the path and its rights")]
    File { file: String, cause: std::io::Error },
    #[error("{file}:{line}: {what}; write NAME:HASH with the hash that `openssl passwd -6` prints")]
    Line {
        file: String,
        /// From 1.
        line: usize,
        what: &'static str,
    },
}

/// Hashes by name in lower case.
pub struct Users(HashMap<String, String>);

/// Reads the file; empty lines and those that begin with `#` are skipped.
///
/// # Errors
/// The first fault, with its line.
pub fn read(file: &Path) -> Result<Users, UsersError> {
    let named = || file.display().to_string();
    let text = std::fs::read_to_string(file).map_err(|cause| UsersError::File { file: named(), cause })?;
    let mut users = HashMap::new();
    for (at, line) in text.lines().enumerate() {
        let wrong = |what| UsersError::Line { file: named(), line: at + 1, what };
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, hash) = line.split_once(':').ok_or_else(|| wrong("there is no colon"))?;
        if name.trim().is_empty() {
            return Err(wrong("there is no name"));
        }
        let hash = hash.trim_end();
        if !is_sha_crypt(hash) {
            return Err(wrong("this is no SHA-crypt hash"));
        }
        if users.insert(name.trim().to_lowercase(), hash.to_owned()).is_some() {
            return Err(wrong("the name is there twice"));
        }
    }
    Ok(Users(users))
}

impl Users {
    /// Whether this is the password of that name. Takes milliseconds on purpose, also for a name that does not exist.
    #[must_use]
    pub fn know(&self, name: &str, password: &str) -> bool {
        let Some((hash, known)) = self.hash(name) else { return false };
        let is_right = ShaCrypt::default().verify_password(password.as_bytes(), hash).is_ok();
        is_right && known
    }

    /// The hash that a password for this name is compared with, and whether it is that name's. For an unknown name it
    /// is always the same hash of another, so that the time reveals nothing.
    fn hash(&self, name: &str) -> Option<(&str, bool)> {
        let own = self.0.get(&name.to_lowercase()).map(|hash| (hash.as_str(), true));
        own.or_else(|| self.0.values().min().map(|hash| (hash.as_str(), false)))
    }
}

/// `$6$[rounds=N$]SALT$HASH`, or the same with `$5$` and a shorter hash.
fn is_sha_crypt(hash: &str) -> bool {
    let base64 = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"./".contains(&byte));
    let (length, rest) = match (hash.strip_prefix("$6$"), hash.strip_prefix("$5$")) {
        (Some(rest), _) => (86, rest),
        (None, Some(rest)) => (43, rest),
        (None, None) => return false,
    };
    let rest = match rest.strip_prefix("rounds=").map(|rest| rest.split_once('$')) {
        Some(Some((rounds, rest))) if rounds.parse::<u32>().is_ok() => rest,
        Some(_) => return false,
        None => rest,
    };
    rest.split_once('$').is_some_and(|(salt, sum)| base64(salt) && sum.len() == length && base64(sum))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `openssl passwd -6 -salt saltsalt secret`, `openssl passwd -5 -salt saltsalt secret`.
    const SHA512: &str =
        "$6$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDehy0S5knV8wiOQSpT0Y77vwPZN.Pq.H91p5hVO1";
    const SHA256: &str = "$5$saltsalt$0IyaXrmV7.sGNS6tirgqHLqX/G.FBvgkYA.lpPdS5sA";

    fn users(text: &str) -> Result<Users, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("users");
        std::fs::write(&file, text).unwrap();
        read(&file).map_err(|error| error.to_string().replace(&format!("{}/", folder.path().display()), ""))
    }

    #[test]
    fn hashes_of_other_programs_are_understood() {
        let users = users(&format!("# devices\n\nalice:{SHA512}\nbob@contoso.com:{SHA256}\r\n")).unwrap();
        for (name, password, known) in [
            ("alice", "secret", true),
            ("Alice", "secret", true),
            ("bob@contoso.com", "secret", true),
            ("alice", "Secret", false),
            ("alice", "", false),
            ("carol", "secret", false),
        ] {
            assert_eq!(users.know(name, password), known, "{name} {password}");
        }
        // An unknown name takes as long, and no password matches.
        assert_eq!((users.hash("alice"), users.hash("carol")), (Some((SHA512, true)), Some((SHA256, false))));
        assert_eq!(users.hash("dave"), users.hash("carol"));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_without_the_hash() {
        let twice = format!("alice:{SHA512}\nALICE:{SHA256}\n");
        let short = format!("alice:{}", &SHA512[..SHA512.len() - 1]);
        for (text, told) in [
            ("alice\n", "users:1: there is no colon"),
            ("# x\n:$6$a$b\n", "users:2: there is no name"),
            ("alice:secret\n", "users:1: this is no SHA-crypt hash"),
            ("alice:$1$abc$def\n", "users:1: this is no SHA-crypt hash"),
            (short.as_str(), "users:1: this is no SHA-crypt hash"),
            (twice.as_str(), "users:2: the name is there twice"),
        ] {
            let error = users(text).err().unwrap();
            assert!(error.starts_with(told) && !error.contains("secret") && !error.contains('$'), "{error}");
        }
        assert!(read(Path::new("/nowhere/users")).is_err());
    }
}
