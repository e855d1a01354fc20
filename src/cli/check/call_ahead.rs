//! `check --connect` for a directory that is a mail server: whether it answers, and refuses addresses that do not
//! exist.

use std::sync::Arc;

use super::Finding;
use crate::config::{Config, DirectoryConfig};
use crate::directory::Directories;
use crate::lookup::{Freshness, Lookup, Question};
use crate::routing::table::DomainPattern;
use crate::smtp::address::Address;
use crate::smtp::domain::Domain;

/// How often it is asked, as by a sender that retries: a server with a tarpit may refuse the non-existent address only
/// after `timeout`.
const TRIES: usize = 3;

/// Asks about postmaster of one of its domains, which must be accepted while another address is refused.
pub(super) async fn ask(what: String, config: &Config, built: &Directories, directory: &DirectoryConfig) -> Finding {
    let Some(domain) = domain(config, directory) else {
        let cure = "write its `domains`, or name it as `verify_with` of the send connector whose recipients it knows";
        return Finding::doubtful(what, "is asked about no domain", cure);
    };
    let address = Address::postmaster(&domain);
    let question =
        Question { directory: Arc::clone(&directory.name), address: address.clone(), freshness: Freshness::Live };
    let mut lookup = built.ask(&question).await.lookup;
    for _ in 1..TRIES {
        if matches!(lookup, Lookup::Unavailable(_)) {
            lookup = built.ask(&question).await.lookup;
        }
    }
    match lookup {
        Lookup::Found(recipient) => Finding::well(
            what,
            format!("accepts {address} ({}) and refuses an address that nobody has", recipient.entry),
        ),
        Lookup::NotFound => Finding::doubtful(
            what,
            format!("answers, and does not know {address}"),
            "give the domain a postmaster there (RFC 5321 4.5.1); mail for him goes to `deliver_to` all the same",
        ),
        Lookup::AcceptsEverything(server) => Finding::bad(
            what,
            server.to_string(),
            "let the server refuse unknown recipients at RCPT; until then it says nothing about anybody",
        ),
        Lookup::Ambiguous(_) => Finding::bad(what, "answers twice", "see its send connector's smart hosts"),
        Lookup::Held(why) | Lookup::Unavailable(why) => Finding::bad(
            what,
            format!("gives no clean answer: {why}"),
            "see that the server is up, takes mail from our address, and neither greylists nor delays us",
        ),
    }
}

/// The first domain that it resolves, or whose unresolved recipients it verifies.
fn domain(config: &Config, directory: &DirectoryConfig) -> Option<Domain> {
    let table = &config.routing;
    let vouches = |domain: &Domain| {
        let connector = table.spaces.for_accepted(domain).and_then(|name| table.connectors.get(name));
        connector.is_some_and(|rules| rules.verify_with.as_ref() == Some(&directory.name))
    };
    let exact = table.accepted.iter().filter_map(|domain| match domain.pattern {
        DomainPattern::Exact(domain) => Some(domain),
        DomainPattern::Subdomains(_) => None,
    });
    let mut exact = exact.filter(|domain: &Domain| directory.rules.domains.covers(domain) || vouches(domain));
    exact.next()
}
