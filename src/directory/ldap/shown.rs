//! Whether any entry of a directory shows an attribute. Where none does, the right to read it may be missing, and who
//! lacks it is not known to be nobody (DESIGN section 5, "doubt is temporary").
//!
//! `ldap` asks it where an answer rests on that. One search an hour, which goes on though nobody waits for it any more: a
//! large directory without the attribute is gone through as a whole.

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

/// How long it is believed that an attribute is shown.
const SHOWN: Duration = Duration::from_hours(1);
/// How long that none is.
const NOT_SHOWN: Duration = Duration::from_mins(5);
/// How long that nobody can say.
const UNCLEAR: Duration = Duration::from_secs(5);
/// How long the search may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// References beside the entry.
const MOST_REFERENCES: usize = 256;

/// What the attributes are wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// Entries are found by them.
    Address,
    /// Recipients are told from others by them.
    Kind,
}

/// What is known.
#[derive(Debug, Default)]
pub(super) struct Shown {
    addresses: Mutex<Option<Seen>>,
    kinds: Mutex<Option<Seen>>,
}

#[derive(Debug)]
struct Seen {
    result: Result<(), Arc<str>>,
    until: Instant,
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
    /// What still holds.
    fn now(&self) -> Option<&Result<(), Arc<str>>> {
        (self.until > Instant::now()).then_some(&self.result)
    }
}

impl Asker {
    /// Whether some entry shows one of the attributes.
    ///
    /// # Errors
    /// None does, or nobody can say.
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
        let unclear = |cause: String| (Err(Arc::from(cause)), UNCLEAR);
        let (result, holds) = match timeout(PATIENCE, self.search_for(&attributes)).await {
            Ok(Ok(true)) => (Ok(()), SHOWN),
            Ok(Ok(false)) => {
                let reader = if self.config.bind_dn.is_empty() { "anonymous" } else { &self.config.bind_dn };
                let attributes = attributes.join(", ");
                let cause = format!("no entry of the directory has any of {attributes}: may {reader} read them?");
                tracing::warn!(directory = &*self.name, "{cause}");
                (Err(cause.into()), NOT_SHOWN)
            }
            Ok(Err(cause)) => unclear(cause),
            Err(_) => unclear(format!("no answer within {PATIENCE:?} whether an entry has {}", attributes.join(", "))),
        };
        *known = Some(Seen { result: result.clone(), until: Instant::now() + holds });
        result
    }

    async fn search_for(&self, attributes: &[&str]) -> Result<bool, String> {
        let deadline = Instant::now() + self.config.timeout;
        let connection = self.connection(0, deadline).await.map_err(|cause| cause.to_string())?;
        connection.shows(&self.config, attributes).await.map_err(|failure| failure.to_string())
    }
}

impl Connection {
    /// Whether some entry shows one of the attributes. Some servers find by what they do not show.
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
            // sizeLimitExceeded: there are others, and the one that came shows nothing.
            if result.rc != 4 {
                Failure::check("the search for rights", &result)?;
            }
        }
        self.answered();
        Ok(false)
    }
}
