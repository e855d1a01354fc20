//! Checks a client's name and password against the users file or the directories (`auth`), unless
//! [`guesses`](crate::guesses) forbids the attempt.
//!
//! `session` calls it for [`Action::Authenticate`](crate::smtp::server::Action). A failure is answered a second after
//! the request, whatever caused it, so that the time does not reveal which names exist. Logs have the name, never the
//! password.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use parking_lot::MutexGuard;
use tokio::time::{Instant, sleep_until};

use super::{Client, Services, users};
use crate::config::Auth;
use crate::directory::Login;
use crate::guesses::{Closed, Guess, Guesses, Limit, Step};
use crate::in_force::InForce;
use crate::lookup::Standing;
use crate::smtp::reply::{self, Reply};
use crate::smtp::sasl::Credentials;
use crate::strangers::sums::{About, Kind};
use crate::time::UnixTime;

mod hashing;
mod under_way;

pub use hashing::Hashing;
pub use under_way::Answered;
use under_way::UnderWay;

/// Failures are answered this long after the request.
const DELAY: Duration = Duration::from_secs(1);

/// Checks the credentials, and records the name in `client`.
///
/// # Errors
/// The reply for the client.
pub(super) async fn check(services: &Services, client: &mut Client, credentials: Credentials) -> Result<(), Reply> {
    let asked = Instant::now();
    let name: Arc<str> = credentials.name.as_str().into();
    let in_force = services.current.load_full();
    // The connector's current settings: its users may have changed since the session began.
    let auth = client.door(&in_force.config).map_or(Auth::None, |(connector, _)| connector.auth.clone());
    let source = source(&in_force, &auth).await;
    let guess = guesses(services).guess(client.address.ip(), &source, &credentials.name, &credentials.password);
    let (result, told) = match UnderWay::begin(services, guess).await {
        Ok(under_way) => {
            let login = ask(services, client, &in_force, &auth, &under_way, credentials).await;
            let noted = take_note(services, client, &guess, &name, &login, under_way.closed());
            under_way.settle(&login);
            noted
        }
        Err(Step::Refuse) => repeated(services, client, &guess, &name),
        Err(Step::Later | Step::Wait(_) | Step::Ask) => {
            tracing::debug!(user = ?name, "not asked: many passwords fail from this client, or may");
            ("limited", Err(reply::AUTH_UNAVAILABLE))
        }
    };
    services.metrics.authentications.with_label_values(&[&*client.connector.name, result]).inc();
    match told {
        Ok(()) => client.identity.user = Some(name),
        Err(_) => sleep_until(asked + DELAY).await,
    }
    told
}

/// A password that is known to be wrong.
fn repeated(services: &Services, client: &Client, guess: &Guess, user: &str) -> (&'static str, Result<(), Reply>) {
    tracing::debug!(?user, "the same name and password failed within ten minutes: not asked again");
    let limit = guesses(services).refused(guess, UnixTime::steady());
    failed(services, client, limit);
    ("repeated", Err(reply::AUTH_FAILED))
}

/// Logs and records the result; returns the metric's label and the client's reply.
fn take_note(
    services: &Services,
    client: &Client,
    guess: &Guess,
    user: &str,
    login: &Login,
    closed: Option<Closed>,
) -> (&'static str, Result<(), Reply>) {
    let now = UnixTime::steady();
    let tells = |reason| {
        let about = About { sample: user, ..About::new(Kind::Authentication, client.address.ip(), reason) };
        client.tells(&services.strangers, &about)
    };
    match (login, closed) {
        (Login::Accepted, _) => {
            tracing::info!(?user, "authenticated");
            guesses(services).accepted(guess, now);
            ("accepted", Ok(()))
        }
        (Login::Rejected(why), _) => {
            if tells("rejected") {
                tracing::warn!(?user, %why, "authentication failed");
            }
            let limit = guesses(services).refused(guess, now);
            failed(services, client, limit);
            ("rejected", Err(reply::AUTH_FAILED))
        }
        (Login::Unavailable(why) | Login::Unanswered(why), _) => {
            if tells("unavailable") {
                tracing::error!(?user, %why, "authentication is not possible now");
            }
            ("unavailable", Err(reply::AUTH_UNAVAILABLE))
        }
        (Login::NotAsked, Some(Closed::Refused)) => repeated(services, client, guess, user),
        // Caused by the directory, not by the client.
        (Login::NotAsked, Some(Closed::Unanswered)) => {
            if tells("unanswered") {
                tracing::warn!(
                    ?user,
                    "three passwords reached this account within half an hour that were wrong or that the directory \
                    did not answer: it is not asked about more of clients from which the user never logged in"
                );
            }
            ("limited", Err(reply::AUTH_UNAVAILABLE))
        }
        (Login::NotAsked, _) => {
            if tells("not-asked") {
                tracing::warn!(
                    ?user,
                    "three wrong passwords reached this account within half an hour: it is not asked \
                    about more of clients from which the user never logged in, lest the directory locks it"
                );
            }
            let limit = guesses(services).failed(guess, now);
            failed(services, client, limit);
            ("limited", Err(reply::AUTH_UNAVAILABLE))
        }
    }
}

/// Logs once when a client begins to be limited.
fn failed(services: &Services, client: &Client, limit: Limit) {
    let about = About::new(Kind::Guesser, client.address.ip(), "");
    if limit == Limit::Begins && client.tells(&services.strangers, &about) {
        tracing::warn!(client = %client.address.ip().to_canonical(), receive_connector = &*client.connector.name,
            "20 different passwords failed from this client within half an hour: only users who logged in from there \
            within 30 days may do so now, all others are told 454 4.7.0");
    }
}

fn guesses(services: &Services) -> MutexGuard<'_, Guesses> {
    services.guesses.lock()
}

/// Names what is asked, and its version: when that changes, a password that was refused may be right.
async fn source(in_force: &InForce, auth: &Auth) -> String {
    match auth {
        Auth::None => String::new(),
        Auth::Directory => format!("directory:{}", in_force.config.hash),
        Auth::Users(file) => {
            let metadata = tokio::fs::metadata(file).await;
            let state = metadata.and_then(|metadata| Ok((metadata.modified()?, metadata.len())));
            let (modified, length) = state.unwrap_or((UNIX_EPOCH, 0));
            let modified = modified.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
            format!("users:{}:{modified}:{length}", file.display())
        }
    }
}

async fn ask(
    services: &Services,
    client: &Client,
    in_force: &InForce,
    auth: &Auth,
    under_way: &UnderWay<'_>,
    credentials: Credentials,
) -> Login {
    // RFC 4513 5.1.2: a bind with an empty password succeeds as anonymous.
    if credentials.password.is_empty() {
        return Login::Rejected("the password is empty".into());
    }
    match auth {
        Auth::None => Login::Unavailable("the receive connector does not authenticate any more".into()),
        Auth::Users(file) => {
            let is_known = guesses(services).is_known(&under_way.guess, UnixTime::steady());
            let standing = if is_known { Standing::Known } else { Standing::Stranger };
            services.hashing.look(file, client.address.ip(), standing, credentials).await
        }
        Auth::Directory => {
            let (name, password) = (&credentials.name, &credentials.password);
            in_force.resolver.directories().log_in(name, password, under_way).await
        }
    }
}

#[cfg(test)]
mod tests;
