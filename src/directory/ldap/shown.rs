//! Checks whether any entry of a directory shows an attribute. If none does, the right to read it may be missing, so
//! its absence proves nothing (DESIGN section 5, "doubt is temporary").
//!
//! `ldap` asks it where an answer depends on that. It searches once an hour, and the search continues without a caller:
//! in a large directory without the attribute it visits all entries.

use std::sync::Arc;
use std::time::Duration;

use ldap3::{Scope, SearchOptions};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::Asker;
use super::connection::Connection;
use super::search::{self, Failure};
use crate::config::LdapConfig;
use crate::directory::filter::Filter;

/// How long "some entry shows it" is believed.
const SHOWN: Duration = Duration::from_hours(1);
/// How long "none shows it" is believed.
const NOT_SHOWN: Duration = Duration::from_mins(5);
/// How long "unknown" is believed, because the directory does not answer or the search fails; doubled with each
/// consecutive failure, up to the time for "none shows it", since the search may visit all entries.
const UNCLEAR: Duration = Duration::from_secs(5);
/// The time limit of the search.
const PATIENCE: Duration = Duration::from_secs(60);
/// The most references beside the entry.
const MOST_REFERENCES: usize = 256;

/// The purpose of the attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// They are used to find entries.
    Address,
    /// They tell recipients from other entries.
    Kind,
}

#[derive(Debug, Default)]
pub(super) struct Shown {
    addresses: Mutex<Option<Seen>>,
    kinds: Mutex<Option<Seen>>,
}

#[derive(Debug)]
struct Seen {
    result: Result<(), Arc<str>>,
    until: Instant,
    /// Consecutive failures of the search.
    failures: u32,
}

/// The result of the search.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Shown,
    NotShown,
    /// The directory did not answer.
    Unanswered(String),
    /// The search hit a limit of the server or of ours.
    Fails(String),
}

impl Outcome {
    fn of(found: Result<bool, Failure>) -> Self {
        match found {
            Ok(true) => Self::Shown,
            Ok(false) => Self::NotShown,
            Err(failure) if failure.is_servers_fault() => Self::Unanswered(failure.to_string()),
            Err(failure) => Self::Fails(failure.to_string()),
        }
    }

    /// How long it is believed, and the number of consecutive failures, given the number before.
    fn holds(&self, failures: u32) -> (Duration, u32) {
        match self {
            Self::Shown => (SHOWN, 0),
            Self::NotShown => (NOT_SHOWN, 0),
            Self::Unanswered(_) => (UNCLEAR, failures),
            Self::Fails(_) => (NOT_SHOWN.min(UNCLEAR * 2_u32.pow(failures.min(10))), failures.saturating_add(1)),
        }
    }
}

impl Shown {
    fn of(&self, by: By) -> &Mutex<Option<Seen>> {
        match by {
            By::Address => &self.addresses,
            By::Kind => &self.kinds,
        }
    }
}

impl Seen {
    /// The result, if it is still believed.
    fn now(&self) -> Option<&Result<(), Arc<str>>> {
        (self.until > Instant::now()).then_some(&self.result)
    }
}

impl Asker {
    /// Whether some entry shows one of the attributes.
    ///
    /// # Errors
    /// None does, or it is unknown.
    pub(super) async fn shown(self: &Arc<Self>, by: By) -> Result<(), Arc<str>> {
        if self.is_shown(by) {
            return Ok(());
        }
        let asker = Arc::clone(self);
        let search = tokio::spawn(async move { asker.see(by).await });
        search.await.unwrap_or_else(|_| Err("the search for rights broke off".into()))
    }

    /// Whether it is known that some entry does.
    pub(super) fn is_shown(&self, by: By) -> bool {
        let known = self.shown.of(by).try_lock();
        known.is_ok_and(|known| known.as_ref().and_then(Seen::now).is_some_and(|result| result.is_ok()))
    }

    async fn see(&self, by: By) -> Result<(), Arc<str>> {
        let attributes = match by {
            By::Address => self.config.profile.found_by(),
            By::Kind => self.config.profile.kinds_by(),
        };
        let mut known = self.shown.of(by).lock().await;
        if let Some(result) = known.as_ref().and_then(Seen::now) {
            return result.clone();
        }
        let names = attributes.join(", ");
        let outcome = match timeout(PATIENCE, self.search_for(&attributes)).await {
            Ok(outcome) => outcome,
            Err(_) => Outcome::Fails(format!("no answer within {PATIENCE:?}")),
        };
        let (holds, failures) = outcome.holds(known.as_ref().map_or(0, |seen| seen.failures));
        let reader = if self.config.bind_dn.is_empty() { "anonymous" } else { &self.config.bind_dn };
        let result: Result<(), Arc<str>> = match outcome {
            Outcome::Shown => Ok(()),
            Outcome::Unanswered(cause) => Err(cause.into()),
            Outcome::NotShown => Err(format!("no entry of the directory has any of {names}: may {reader} read them?").into()),
            Outcome::Fails(cause) => Err(format!(
                "the search whether any entry has one of {names} fails: {cause}; give {reader} no limit of time and entries \
                 there, or index them for presence"
            )
            .into()),
        };
        // If the directory does not answer, that is logged elsewhere.
        if let Err(cause) = &result
            && holds > UNCLEAR
        {
            tracing::warn!(directory = &*self.name, "{cause}");
        }
        *known = Some(Seen { result: result.clone(), until: Instant::now() + holds, failures });
        result
    }

    async fn search_for(&self, attributes: &[&str]) -> Outcome {
        let deadline = Instant::now() + self.config.timeout;
        match self.connection(0, deadline).await {
            Ok(connection) => Outcome::of(connection.shows(&self.config, attributes).await),
            Err(cause) => Outcome::Unanswered(cause.to_string()),
        }
    }
}

impl Connection {
    /// Searches for an entry that shows one of the attributes. Some servers match attributes that they do not return.
    async fn shows(&self, config: &LdapConfig, attributes: &[&str]) -> Result<bool, Failure> {
        let filter = Filter::Any(attributes.iter().copied().map(Filter::Present).collect()).to_string();
        for base in &config.base {
            let mut ldap = self.ldap();
            ldap.with_search_options(SearchOptions::new().sizelimit(1));
            let mut stream = ldap.streaming_search(base, Scope::Subtree, &filter, attributes.to_vec()).await?;
            let mut references = 0;
            while let Some(item) = stream.next().await? {
                let shows = if item.is_ref() || item.is_intermediate() {
                    references += 1;
                    false
                } else {
                    let entry = search::entry(item)?;
                    attributes.iter().any(|name| entry.first(&name.to_ascii_lowercase()).is_some())
                };
                if shows || references > MOST_REFERENCES {
                    let search = stream.ldap_handle().last_id();
                    stream.finish().await; // what still comes is thrown away
                    ldap.abandon(search).await?;
                    return if shows { Ok(true) } else { Err(Failure::Endless) };
                }
            }
            let result = stream.finish().await;
            // sizeLimitExceeded: there are more entries, and the one returned shows nothing.
            if result.rc != 4 {
                Failure::check("the search for rights", &result)?;
            }
        }
        self.answered();
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_that_fails_is_repeated_less_and_less_often() {
        let code = |code| Err(Failure::Refused { doing: "the search for rights", code, text: String::new() });
        let (mut failures, mut seconds) = (0, Vec::new());
        for found in [
            code(3),
            code(11),
            // The directory is away for a moment.
            Err(Failure::Broken("lost".to_owned())),
            code(52),
            code(3),
            Err(Failure::Endless),
            code(50),
            code(3),
            code(3),
            code(3),
            Ok(true),
            code(3),
            Ok(false),
            code(3),
        ] {
            let (holds, after) = Outcome::of(found).holds(failures);
            failures = after;
            seconds.push(holds.as_secs());
        }
        assert_eq!(seconds, [5, 10, 5, 5, 20, 40, 80, 160, 300, 300, 3_600, 5, 300, 5]);
        let (longest, _) = Outcome::Fails(String::new()).holds(u32::MAX);
        assert_eq!(longest, NOT_SHOWN);
    }
}
