//! Further checks of an LDAP directory by `check --connect`: attributes without an index, entries that lack attributes,
//! and its clock.

use std::sync::Arc;
use std::time::Duration;

use ldap3::Scope;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};
use tokio::time::{Instant, timeout_at};

use super::search::Search;
use super::{Asker, LdapDirectory, answer};
use crate::directory::odd::{self, Groups};
use crate::smtp::address::Address;

/// How long entries are read.
const READ_FOR: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examination {
    /// The time of a search for a non-existent address, by the attribute searched.
    pub took: Vec<(String, Duration)>,
    /// Entries that contradict themselves, or lack attributes that similar entries have, grouped.
    pub odd: Groups,
    /// The number of entries read.
    pub read: usize,
    /// Whether those are all.
    pub is_whole: bool,
    /// How many seconds its clock is ahead of ours; `None`: it does not give the time (only Active Directory does).
    pub clock: Option<i64>,
}

impl LdapDirectory {
    /// Searches for a non-existent address by each attribute alone, reads entries, and compares the clock.
    ///
    /// # Errors
    /// Why there is no clean answer.
    pub async fn examine(&self, nobody: &Address) -> Result<Examination, Arc<str>> {
        let deadline = Instant::now() + self.asker.config.timeout * 4;
        let examined = timeout_at(deadline, self.asker.examine(nobody, deadline)).await;
        let mut examined = examined.unwrap_or_else(|_| Err("it takes too long".into()))?;
        // If the time is up, what was read so far is used.
        let read = timeout_at(Instant::now() + READ_FOR, self.asker.read_for_odd(&mut examined)).await;
        examined.is_whole = matches!(read, Ok(Ok(())));
        Ok(examined)
    }
}

impl Asker {
    async fn examine(&self, nobody: &Address, deadline: Instant) -> Result<Examination, Arc<str>> {
        let connection = self.connection(0, deadline).await?;
        let mut took = Vec::new();
        for filter in self.config.profile.each_filter(nobody) {
            let begun = Instant::now();
            let asked = connection.search(&self.config, &filter.to_string()).await;
            asked.map_err(|failure| Arc::from(failure.to_string()))?;
            took.push((filter.attribute().to_owned(), begun.elapsed()));
        }
        let search = Search { base: "", scope: Scope::Base, filter: "(objectClass=*)", attributes: &["currentTime"] };
        let root = connection.ask(search).await.map_err(|failure| Arc::from(failure.to_string()))?;
        let told = root.entries.first().and_then(|root| root.first("currenttime")).and_then(seconds);
        let clock = told.map(|told| told - OffsetDateTime::now_utc().unix_timestamp());
        Ok(Examination { took, odd: Groups::new(), read: 0, is_whole: false, clock })
    }

    /// Reads all entries: a filter for a missing attribute would not find those in which it may not be read.
    async fn read_for_odd(&self, examined: &mut Examination) -> Result<(), Arc<str>> {
        let connection = self.connection(0, Instant::now() + self.config.timeout).await?;
        let (profile, disabled) = (&self.config.profile, answer::disabled_accounts(&self.config));
        let (filter, attributes) = (profile.everybody().to_string(), profile.attributes());
        for base in &self.config.base {
            let mut cookie = Vec::new();
            loop {
                let search = Search { base, scope: Scope::Subtree, filter: &filter, attributes: &attributes };
                let page = connection.page(search, cookie).await.map_err(|failure| Arc::from(failure.to_string()))?;
                examined.read += page.reply.entries.len();
                for known in page.reply.entries.iter().map(|entry| profile.know(entry, disabled)) {
                    if let Some(odd) = known.odd().filter(|_| !known.claims.is_empty()) {
                        *examined.odd.entry(odd::group(odd).to_owned()).or_default() += 1;
                    }
                }
                cookie = page.cookie;
                if cookie.is_empty() {
                    break;
                }
            }
        }
        Ok(())
    }
}

/// A generalized time (RFC 4517 3.3.13) as Active Directory writes it: `20261128032217.0Z`.
fn seconds(text: &str) -> Option<i64> {
    let whole = text.get(..14)?;
    let format = format_description!("[year][month][day][hour][minute][second]");
    PrimitiveDateTime::parse(whole, format).ok().map(|time| time.assume_utc().unix_timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        assert_eq!(seconds("20261128032217.0Z"), Some(1_795_836_137));
        assert_eq!(seconds("20261128"), None);
        assert_eq!(seconds("20261328032217.0Z"), None);
    }
}
