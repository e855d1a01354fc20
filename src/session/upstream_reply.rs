//! A next hop's reply as the client gets it: with its code, its organisation's name and its text.

use crate::config::{Protocol, SendConnector};
use crate::smtp::envelope::Origin;
use crate::smtp::hide::hide;
use crate::smtp::reply::Reply;

/// Keeps the codes; for strangers internal names are removed (`hide_internal_hosts`).
pub(super) fn passed_on(reply: &Reply, connector: &SendConnector, origin: &Origin) -> Reply {
    let speaker = if connector.organization.is_empty() { &connector.name } else { &connector.organization };
    let words = match &connector.protocol {
        Protocol::Smtp(smtp) if smtp.hide_internal_hosts && origin.is_stranger() => {
            hide(&reply.text, &smtp.smart_host_names())
        }
        Protocol::Smtp(_) | Protocol::Maildir(_) => reply.text.to_string(),
    };
    reply.saying(format!("{speaker} said: {}", words.replace('\n', " ")))
}
