//! Checks passwords against a users file. Hashing takes milliseconds of CPU on purpose, so only a few run at once, in
//! turns by client; a user who logged in from the same client before does not wait behind all others. Each runs on its
//! own thread, which does not delay the end of the program.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

use super::users;
use crate::directory::Login;
use crate::directory::shares::{Most, Shares};
use crate::lookup::{Behalf, Standing};
use crate::smtp::sasl::Credentials;

/// How long a password may wait for its turn.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest password, in octets: the cost of a hash grows with it, and `openssl passwd` accepts no more.
const LONGEST: usize = 256;

/// Shares of hashing by client.
pub struct Hashing(Arc<Shares>);

impl Default for Hashing {
    fn default() -> Self {
        let strangers = thread::available_parallelism().map_or(1, |processors| (processors.get() / 4).max(1));
        let most = Most { all: strangers + 1, networks: strangers, strangers, each: 1 };
        Self(Shares::new(most, PATIENCE))
    }
}

impl Hashing {
    /// Whether the file has this name with this password.
    pub(super) async fn look(
        &self,
        file: &Path,
        client: IpAddr,
        standing: Standing,
        credentials: Credentials,
    ) -> Login {
        if credentials.password.len() > LONGEST {
            return Login::Rejected(format!("the password is longer than {LONGEST} octets"));
        }
        let turn = match self.0.turn(&Behalf::client(client), standing).await {
            Ok(turn) => turn,
            Err(_) => return Login::Unavailable(format!("other passwords were looked at for {PATIENCE:?}")),
        };
        let (file, (told, result)) = (file.to_owned(), oneshot::channel());
        let look = move || {
            let known = users::read(&file).map(|users| users.know(&credentials.name, &credentials.password));
            drop(turn);
            // The session may have ended.
            let _ = told.send(known);
        };
        if let Err(error) = thread::Builder::new().name("password".to_owned()).spawn(look) {
            return Login::Unavailable(error.to_string());
        }
        match result.await {
            Ok(Ok(true)) => Login::Accepted,
            Ok(Ok(false)) => Login::Rejected("unknown name or wrong password".into()),
            Ok(Err(error)) => Login::Unavailable(error.to_string()),
            Err(_) => Login::Unavailable("the look broke off; the log has the reason".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, timeout};

    use super::*;

    fn credentials(name: &str, password: &str) -> Credentials {
        Credentials { name: name.to_owned(), password: password.to_owned() }
    }

    /// Takes the turns of this many clients.
    async fn hold(hashing: &Hashing, clients: u8) -> Vec<crate::directory::shares::Turn> {
        let mut held = Vec::new();
        for last in 0..clients {
            let behalf = Behalf::client([198, 51, 100, last].into());
            held.push(hashing.0.turn(&behalf, Standing::Stranger).await.unwrap());
        }
        held
    }

    #[tokio::test]
    async fn few_are_looked_at_at_once_and_who_was_here_before_does_not_wait() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("users");
        // `openssl passwd -5 -salt saltsalt secret`.
        std::fs::write(&file, "ann:$5$saltsalt$0IyaXrmV7.sGNS6tirgqHLqX/G.FBvgkYA.lpPdS5sA\n").unwrap();
        let hashing = Hashing(Shares::new(Most { all: 3, networks: 2, strangers: 2, each: 1 }, PATIENCE));
        let held = hold(&hashing, 2).await;
        let (new, soon) = (IpAddr::from([192, 0, 2, 1]), Duration::from_millis(300));
        for name in ["ann", "nobody"] {
            let waits = hashing.look(&file, new, Standing::Stranger, credentials(name, "secret"));
            assert!(timeout(soon, waits).await.is_err(), "{name} waits like any other");
        }
        assert_eq!(hashing.look(&file, new, Standing::Known, credentials("ann", "secret")).await, Login::Accepted);
        let long = hashing.look(&file, new, Standing::Stranger, credentials("ann", &"x".repeat(257)));
        assert!(matches!(timeout(soon, long).await, Ok(Login::Rejected(_))), "nobody looks at it");
        drop(held);
        assert_eq!(hashing.look(&file, new, Standing::Stranger, credentials("ann", "secret")).await, Login::Accepted);
        let wrong = hashing.look(&file, new, Standing::Stranger, credentials("nobody", "secret")).await;
        assert!(matches!(wrong, Login::Rejected(_)), "{wrong:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        let hashing = Hashing(Shares::new(Most { all: 2, networks: 1, strangers: 1, each: 1 }, PATIENCE));
        let _held = hold(&hashing, 1).await;
        let began = Instant::now();
        let late =
            hashing.look(Path::new("users"), [192, 0, 2, 1].into(), Standing::Stranger, credentials("ann", "x")).await;
        assert!(matches!(late, Login::Unavailable(_)), "{late:?}");
        assert_eq!(began.elapsed(), PATIENCE);
    }
}
