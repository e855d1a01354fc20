//! Checks whether a next hop would relay mail by a source route in the local part (`victim%elsewhere.example@ours`):
//! then any client could use it as an open relay through us.
//!
//! `next_hops` calls it: MAIL with the null sender, RCPT and RSET, never DATA. A server that accepts such a recipient
//! may take it for a user of its own, so it is also asked about a non-existent address and a foreign one.

use std::time::Duration;

use tokio::time::Instant;

use super::Finding;
use crate::config::{AskedServer, Config};
use crate::delivery::attempt::Outbound;
use crate::directory::call_ahead::prober::{Heard, Prober, Until};
use crate::routing::table::{DomainPattern, SourceRoutes};
use crate::smtp::address::Address;
use crate::smtp::domain::Domain;

/// The time limit of one question: some servers delay refusals (Exchange's tarpit is 5 s).
const PATIENCE: Duration = Duration::from_secs(15);
/// An address that does not exist (RFC 6761 6.5).
const ELSEWHERE: &str = "victim@elsewhere.example";

/// Asks it; `None`: its connector has no mail for an accepted domain.
pub(super) async fn ask(what: &str, config: &Config, outbound: &Outbound, server: &AskedServer) -> Option<Finding> {
    let domain = domain(config, &server.connector.name)?;
    let what = format!("source routes at {what}");
    for way_on in ways_on(&domain) {
        match read(outbound.probe(server, &way_on, Until::all(Instant::now() + PATIENCE)).await) {
            RcptVerdict::Refused => {}
            RcptVerdict::Unclear(words) => {
                let cure = "see why it answers so, then check again";
                return Some(Finding::doubtful(what, format!("not told about {way_on}: {words}"), cure));
            }
            RcptVerdict::Taken => {
                let nobody = takes(outbound, server, &format!("fingerpost-check-nobody@{domain}")).await;
                let elsewhere = takes(outbound, server, ELSEWHERE).await;
                return Some(judge(what, &way_on, &nobody, &elsewhere, server.connector.source_routes));
            }
        }
    }
    Some(Finding::well(what, format!("takes no `%`, `!` or `@` in a local part of {domain}")))
}

/// The first accepted domain whose mail goes through this connector.
fn domain(config: &Config, connector: &str) -> Option<Domain> {
    let table = &config.routing;
    table.accepted.iter().find_map(|accepted| {
        let DomainPattern::Exact(domain) = &accepted.pattern else { return None };
        let relays = table.spaces.for_accepted(domain).map(|name| &**name);
        let delivers = accepted.deliver_to.map(|name| &**name);
        let mut found = table.directories.iter().filter(|rules| rules.domains.covers(domain));
        let mut by_directory = || found.any(|rules| rules.deliver_to.as_deref() == Some(connector));
        ([relays, delivers].contains(&Some(connector)) || by_directory()).then(|| domain.clone())
    })
}

fn ways_on(domain: &Domain) -> impl Iterator<Item = Address> {
    ["victim%elsewhere.example", "elsewhere.example!victim", "\"victim@elsewhere.example\""]
        .into_iter()
        .filter_map(move |local| Address::parse(&format!("{local}@{domain}")).ok())
}

/// The server's answer about one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
enum RcptVerdict {
    Taken,
    Refused,
    /// A temporary failure.
    Unclear(String),
}

fn read(heard: Heard) -> RcptVerdict {
    match heard {
        Heard::Accepted(_) => RcptVerdict::Taken,
        Heard::Unknown => RcptVerdict::Refused,
        // "Relaying denied" among others.
        Heard::Unclear(words) | Heard::Failed(words) if words.starts_with('5') => RcptVerdict::Refused,
        Heard::Unclear(words) | Heard::Failed(words) | Heard::Silent(words) | Heard::Withheld(words) => {
            RcptVerdict::Unclear(words)
        }
    }
}

async fn takes(outbound: &Outbound, server: &AskedServer, address: &str) -> RcptVerdict {
    match Address::parse(address) {
        Ok(address) => read(outbound.probe(server, &address, Until::all(Instant::now() + PATIENCE)).await),
        Err(error) => RcptVerdict::Unclear(error.to_string()),
    }
}

/// The finding for a server that accepts a source route, by its answers about a non-existent address in our domain and
/// a foreign one.
fn judge(
    what: String,
    way_on: &Address,
    nobody: &RcptVerdict,
    elsewhere: &RcptVerdict,
    source_routes: SourceRoutes,
) -> Finding {
    if let (RcptVerdict::Taken, RcptVerdict::Refused) = (nobody, elsewhere) {
        let domain = way_on.domain();
        let found = format!("takes {way_on} as it takes everybody of {domain}, and passes on nothing elsewhere for us");
        return Finding::well(what, found);
    }
    let cure =
        "let it read no ways on (Postfix: allow_percent_hack = no, swap_bangpath = no, resolve_dequoted_address = no)";
    match source_routes {
        SourceRoutes::Refuse => {
            let found = format!("takes {way_on} from us and may pass it on; strangers' are refused here (550 5.1.3)");
            Finding::doubtful(what, found, format!("keep source_routes = \"refuse\", and {cure}"))
        }
        SourceRoutes::Pass => {
            let found = format!("OPEN: takes {way_on} from us and may pass it on: anybody could write to anybody");
            Finding::bad(what, found, format!("remove source_routes = \"pass\" from the connector, or {cure}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Found;
    use super::*;

    #[test]
    fn what_it_says_of_others_tells_what_it_means() {
        let unclear = || RcptVerdict::Unclear("451 later".to_owned());
        let way_on = Address::parse("victim%elsewhere.example@contoso.com").unwrap();
        for (nobody, elsewhere, refused, passed) in [
            (RcptVerdict::Refused, RcptVerdict::Refused, "warning", "FAILED"), // knows its users, and this is none
            (RcptVerdict::Refused, RcptVerdict::Taken, "warning", "FAILED"),
            (RcptVerdict::Taken, RcptVerdict::Taken, "warning", "FAILED"), // takes everything from us
            (RcptVerdict::Taken, RcptVerdict::Refused, "ok", "ok"),
            (RcptVerdict::Taken, unclear(), "warning", "FAILED"),
            (unclear(), RcptVerdict::Refused, "warning", "FAILED"),
        ] {
            let judged = |rule| judge("it".to_owned(), &way_on, &nobody, &elsewhere, rule);
            let (refuse, pass) = (judged(SourceRoutes::Refuse), judged(SourceRoutes::Pass));
            assert!(refuse.text().starts_with(refused), "{nobody:?} {elsewhere:?}: {}", refuse.text());
            assert!(pass.text().starts_with(passed), "{nobody:?} {elsewhere:?}: {}", pass.text());
            assert_eq!(matches!(pass.result, Found::Bad { .. }), passed == "FAILED");
        }
    }

    #[test]
    fn only_a_refusal_for_good_is_one() {
        let words = |text: &str| text.to_owned();
        for (heard, said) in [
            (Heard::Accepted(words("250 ok")), RcptVerdict::Taken),
            (Heard::Unknown, RcptVerdict::Refused),
            (Heard::Failed(words("550 5.7.1 relaying denied")), RcptVerdict::Refused),
            (Heard::Unclear(words("501 5.1.3 bad address")), RcptVerdict::Refused),
            (Heard::Unclear(words("450 4.7.1 greylisted")), RcptVerdict::Unclear(words("450 4.7.1 greylisted"))),
            (Heard::Failed(words("connection refused")), RcptVerdict::Unclear(words("connection refused"))),
            (Heard::Silent(words("no answer")), RcptVerdict::Unclear(words("no answer"))),
            (Heard::Withheld(words("no answer yet")), RcptVerdict::Unclear(words("no answer yet"))),
        ] {
            assert_eq!(read(heard.clone()), said, "{heard:?}");
        }
    }
}
