//! What would happen to a recipient, and why: what `fingerpost route` prints and `GET /api/route` answers.
//!
//! It decides nothing itself: it calls the [`Resolver`], as the server does, and formats the answer.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::config::{Config, Protocol, door};
use crate::delivery::last_refusals::LastRefusal;
use crate::lookup::Freshness;
use crate::resolve::Resolver;
use crate::routing::verdict::{Decision, Verdict};
use crate::smtp::address::Address;
use crate::smtp::envelope::{Origin, Relay};
use crate::time::UnixTime;

/// A decision as text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    pub address: String,
    /// The assumed client, for display.
    pub from: String,
    /// `resolved`, `relayed`, `redirected`, `refused` or `deferred`.
    pub verdict: String,
    pub row: Option<u8>,
    pub reasons: Vec<String>,
    /// `None`: it is refused.
    pub route: Option<WayOut>,
    /// `550 5.1.1 user unknown`; `None`: it is accepted.
    pub reply: Option<String>,
    /// The last refusal of this recipient by a next hop, with its row in docs/refusals.md.
    #[serde(default)]
    pub last_refusal: Option<String>,
}

/// A route as text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WayOut {
    pub connector: String,
    pub rcpt_to: String,
    /// `smtp` or `maildir`.
    pub protocol: String,
    /// In the order of failover; for Maildirs, their folder.
    pub next_hops: Vec<String>,
}

impl Explained {
    #[must_use]
    pub fn is_accepted(&self) -> bool {
        self.route.is_some()
    }

    /// Several lines for people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("{}: {}", self.address, self.verdict);
        match (&self.route, &self.reply) {
            (Some(way), _) => {
                let rcpt_to = if way.rcpt_to == self.address { "" } else { way.rcpt_to.as_str() };
                text.push_str(&format!(
                    " through {} ({} to {})",
                    way.connector,
                    way.protocol,
                    way.next_hops.join(", ")
                ));
                if !rcpt_to.is_empty() {
                    text.push_str(&format!(", as {rcpt_to}"));
                }
            }
            (None, Some(reply)) => text.push_str(&format!(": {reply}")),
            (None, None) => {}
        }
        text.push_str(&format!("\n  from {}\n", self.from));
        for reason in &self.reasons {
            text.push_str(&format!("  {reason}\n"));
        }
        if let Some(last) = &self.last_refusal {
            text.push_str(&format!("  last refused: {last}\n"));
        }
        text
    }
}

/// Decides for one address, as if a message came from this client; `None`: a stranger.
pub async fn explain(
    config: &Config,
    resolver: &Resolver,
    address: &Address,
    from: Option<IpAddr>,
) -> Result<Explained, String> {
    let (origin, from) = origin(config, from)?;
    let decision = resolver.resolve(&origin, address, Freshness::Any, UnixTime::now()).await;
    Ok(in_words(config, &decision, from))
}

/// A decision as text.
#[must_use]
pub fn in_words(config: &Config, decision: &Decision, from: String) -> Explained {
    let (route, reply) = match &decision.verdict {
        Verdict::Accept(route) => {
            let (protocol, next_hops) = next_hops(config, &route.connector, route.next_hop_domain.as_str());
            let rcpt_to = route.rcpt_to.to_string();
            (Some(WayOut { connector: route.connector.to_string(), rcpt_to, protocol, next_hops }), None)
        }
        Verdict::Refuse(reply) => (None, Some(reply.to_string())),
    };
    Explained {
        address: decision.address.to_string(),
        from,
        verdict: decision.label().to_owned(),
        row: decision.row(),
        reasons: decision.reasons.iter().map(ToString::to_string).collect(),
        route,
        reply,
        last_refusal: None,
    }
}

/// A refusal as text.
#[must_use]
pub fn refusal_in_words(last: &LastRefusal) -> String {
    let LastRefusal { at, next_hop, reply, row } = last;
    format!("{at} by {next_hop}: {reply} (refusal {row})")
}

fn next_hops(config: &Config, connector: &str, domain: &str) -> (String, Vec<String>) {
    match config.send_connector(connector).map(|connector| &connector.protocol) {
        Some(Protocol::Smtp(smtp)) if smtp.smart_hosts.is_empty() => {
            ("smtp".into(), vec![format!("the MX of {domain}")])
        }
        Some(Protocol::Smtp(smtp)) => {
            (smtp.speaks.name().into(), smtp.smart_hosts.iter().map(ToString::to_string).collect())
        }
        Some(Protocol::Maildir(folder)) => ("maildir".into(), vec![folder.display().to_string()]),
        None => ("unknown".into(), Vec::new()),
    }
}

/// The origin of mail from a client, and its description.
fn origin(config: &Config, from: Option<IpAddr>) -> Result<(Origin, String), String> {
    let Some(client) = from else {
        let origin = Origin { relay: Relay::AcceptedDomains, ..Origin::report() };
        return Ok((origin, "a stranger (say --from IP for another client)".into()));
    };
    let Some(door) = door::choose(config, None, client) else {
        return Err(format!("no receive connector takes connections from {client}; see remote_networks"));
    };
    let organization = match &*door.organization {
        "" => String::new(),
        organization => format!(", organization {organization}"),
    };
    let words = format!("{client} through receive connector {}{organization}", door.name);
    let origin = Origin {
        receive_connector: door.name.clone(),
        organization: door.organization.clone(),
        resolves_first: door.resolves_first,
        relay: door.relay_by_address(),
        client: Some(client),
        ..Origin::report()
    };
    Ok((origin, words))
}
