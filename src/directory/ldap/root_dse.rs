//! A server's root DSE (RFC 4512 5.1), and the method by which its changes can be followed.

use ldap3::{Scope, SearchOptions};

use super::connection::Connection;
use super::full_read;
use super::search::{Failure, Search};
use crate::config::LdapConfig;
use crate::directory::filter::Filter;
use crate::directory::profile::Entry;

/// LDAP Content Synchronization (RFC 4533 2.2).
const SYNC_REQUEST: &str = "1.3.6.1.4.1.4203.1.9.1.1";
/// Active Directory, and AD LDS (MS-ADTS 3.1.1.3.4.3).
const ACTIVE_DIRECTORY: [&str; 2] = ["1.2.840.113556.1.4.800", "1.2.840.113556.1.4.1851"];

/// What is used of the root DSE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Root {
    pub(super) streams: bool,
    /// Update sequence numbers, if the server has them.
    pub(super) numbers: Option<Numbers>,
}

/// Active Directory's update sequence numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Numbers {
    /// The controller: the distinguished name of its settings.
    pub(super) service: String,
    /// The number of its last change.
    pub(super) highest: u64,
}

impl Connection {
    pub(super) async fn root(&self) -> Result<Root, Failure> {
        let attributes = &["supportedControl", "supportedCapabilities", "highestCommittedUSN", "dsServiceName"];
        let search = Search { base: "", scope: Scope::Base, filter: "(objectClass=*)", attributes };
        let reply = self.ask(search).await?;
        reply.entries.first().map(root).ok_or(Failure::Malformed("no root entry"))
    }

    /// The controller's `invocationId`; if that may not be read, its distinguished name.
    pub(super) async fn invocation(&self, service: &str) -> Result<Vec<u8>, Failure> {
        let search =
            Search { base: service, scope: Scope::Base, filter: "(objectClass=*)", attributes: &["invocationId"] };
        let id = match self.ask(search).await {
            Ok(reply) => reply.entries.into_iter().next().map(|entry| entry.id).unwrap_or_default(),
            Err(failure) if failure.is_servers_fault() => return Err(failure),
            Err(_) => Vec::new(),
        };
        Ok(if id.is_empty() { service.as_bytes().to_vec() } else { id })
    }

    /// Whether we may read update sequence numbers: a filter on an attribute that may not be read finds nothing
    /// (MS-ADTS 3.1.1.3.1.3.1).
    pub(super) async fn shows_numbers(&self, config: &LdapConfig) -> Result<bool, Failure> {
        let (numbered, attributes) = (Filter::AtLeast("uSNChanged", 1).to_string(), &["1.1"][..]);
        let found = async {
            for base in &config.base {
                let (scope, filter) = match &config.probe {
                    Some(probe) => {
                        let probe = config.profile.filter([probe]);
                        (Scope::Subtree, Filter::Narrowed(&numbered, Box::new(probe)).to_string())
                    }
                    None => (Scope::Base, numbered.clone()),
                };
                let reply = self.ask(Search { base, scope, filter: &filter, attributes }).await?;
                if !reply.entries.is_empty() {
                    return Ok(true);
                }
            }
            Ok(false)
        };
        full_read::in_time(config, found).await
    }

    /// One entry by its name, as text or not; `None`: there is none.
    pub(super) async fn entry(&self, dn: &str, attributes: &[&str]) -> Result<Option<Entry>, Failure> {
        let search = Search { base: dn, scope: Scope::Base, filter: "(objectClass=*)", attributes };
        match self.ask(search).await {
            Ok(reply) => Ok(reply.entries.into_iter().next()),
            Err(Failure::Refused { code: NO_SUCH_OBJECT, .. }) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Options of a search without a size limit of ours.
    pub(super) fn without_limit() -> SearchOptions {
        SearchOptions::new().sizelimit(0)
    }
}

const NO_SUCH_OBJECT: u32 = 32;

fn root(entry: &Entry) -> Root {
    let has = |name: &str, oid: &str| entry.values(name).iter().any(|value| value == oid);
    let is_active_directory = ACTIVE_DIRECTORY.iter().any(|oid| has("supportedcapabilities", oid));
    let highest = entry.first("highestcommittedusn").and_then(|usn| usn.parse().ok());
    let service = entry.first("dsservicename").filter(|service| !service.is_empty());
    let numbers = highest
        .zip(service)
        .filter(|_| is_active_directory)
        .map(|(highest, service)| Numbers { service: service.to_owned(), highest });
    Root { streams: has("supportedcontrol", SYNC_REQUEST), numbers }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_followed_as_the_server_says() {
        let (sync, ad) = (("supportedControl", SYNC_REQUEST), ("supportedCapabilities", ACTIVE_DIRECTORY[0]));
        let (usn, service) = (("highestCommittedUSN", "4711"), ("dsServiceName", "CN=NTDS Settings,CN=DC1"));
        let numbers = Some(Numbers { service: "CN=NTDS Settings,CN=DC1".to_owned(), highest: 4711 });
        for (attributes, streams, expected) in [
            (&[][..], false, None),
            (&[sync], true, None),
            (&[ad, usn, service], false, numbers),
            // Other directories have an attribute of that name with another meaning.
            (&[usn, service], false, None),
            (&[ad, usn], false, None),
        ] {
            let mut entry = Entry::new("");
            attributes.iter().for_each(|(name, value)| entry.add(name, [(*value).to_owned()]));
            assert_eq!(root(&entry), Root { streams, numbers: expected });
        }
    }
}
