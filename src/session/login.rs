//! Whether a client's name and password are right: asked of the users file or the directories (`auth`).
//!
//! `session` calls it for [`Action::Authenticate`](crate::smtp::server::Action). A failure is told a second after the
//! question, whatever caused it, so that nobody learns from the time which names there are. Logs have the name, never
//! the password.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::{Client, Services, users};
use crate::config::Auth;
use crate::directory::Login;
use crate::in_force::InForce;
use crate::smtp::reply::{self, Reply};
use crate::smtp::sasl::Credentials;

/// When a failure is told.
const DELAY: Duration = Duration::from_secs(1);

/// Finds out, and notes in `client` who it is.
///
/// # Errors
/// What the client is told.
pub(super) async fn check(services: &Services, client: &mut Client, credentials: Credentials) -> Result<(), Reply> {
    let asked = Instant::now();
    let name: Arc<str> = credentials.name.as_str().into();
    let in_force = services.current.load_full();
    // The connector of the same door now: its users may have changed since the session began.
    let auth = client.door(&in_force.config).map_or(Auth::None, |(connector, _)| connector.auth.clone());
    match ask(&in_force, &auth, credentials).await {
        Login::Accepted => {
            tracing::info!(user = ?name, "authenticated");
            client.identity.user = Some(name);
            return Ok(());
        }
        Login::Rejected(why) => tracing::warn!(user = ?name, %why, "authentication failed"),
        Login::Unavailable(why) => {
            tracing::error!(user = ?name, %why, "authentication is not possible now");
            sleep_until(asked + DELAY).await;
            return Err(reply::AUTH_UNAVAILABLE);
        }
    }
    sleep_until(asked + DELAY).await;
    Err(reply::AUTH_FAILED)
}

async fn ask(in_force: &InForce, auth: &Auth, credentials: Credentials) -> Login {
    // RFC 4513 5.1.2: with an empty password a bind succeeds as nobody.
    if credentials.password.is_empty() {
        return Login::Rejected("the password is empty".into());
    }
    match auth {
        Auth::None => Login::Unavailable("the receive connector does not authenticate any more".into()),
        Auth::Users(file) => in_file(file, credentials).await,
        Auth::Directory => in_force.resolver.directories().log_in(&credentials.name, &credentials.password).await,
    }
}

async fn in_file(file: &Path, credentials: Credentials) -> Login {
    let file = file.to_owned();
    let looked = tokio::task::spawn_blocking(move || {
        users::read(&file).map(|users| users.know(&credentials.name, &credentials.password))
    });
    match looked.await {
        Ok(Ok(true)) => Login::Accepted,
        Ok(Ok(false)) => Login::Rejected("unknown name or wrong password".into()),
        Ok(Err(error)) => Login::Unavailable(error.to_string()),
        Err(error) => Login::Unavailable(error.to_string()),
    }
}
