//! Adds the stamp to a transaction with a next hop (DESIGN section 6, rule 3).

use crate::config::SendConnector;
use crate::in_force::InForce;
use crate::message::header::Identity;
use crate::message::stamp::{self, NewStamp};
use crate::smtp::address::Address;
use crate::time::UnixTime;

/// The stamp for these recipients, each as received and as sent. Empty if none is needed: the connector has no
/// organization, and the recipients' domains are not accepted.
pub(crate) fn stamp(
    in_force: &InForce,
    connector: &SendConnector,
    identity: &Identity,
    recipients: &[(&Address, &Address)],
) -> String {
    let config = &in_force.config;
    let accepted = |address: &Address| config.routing.accepted.find(address.domain()).is_some();
    let due = || recipients.iter().any(|(received, sent)| accepted(received) || accepted(sent));
    if connector.organization.is_empty() && !due() {
        return String::new();
    }
    let mut addresses: Vec<&Address> = Vec::with_capacity(recipients.len());
    for address in recipients.iter().flat_map(|(received, sent)| [*received, *sent]) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    let (installation, via) = (&*config.server.installation, &*connector.name);
    stamp::sign(
        in_force.keys.signing(),
        &NewStamp { installation, via, time: UnixTime::now(), recipients: &addresses, identity },
    )
}
