//! A next hop's words as the client hears them: its code, its organisation's name, what it said.

use crate::config::{Protocol, SendConnector};
use crate::smtp::envelope::Origin;
use crate::smtp::hide::hide;
use crate::smtp::reply::Reply;

/// The reply with its codes as they were; for strangers without internal names (`hide_internal_hosts`).
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
