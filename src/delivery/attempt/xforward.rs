//! XFORWARD: tells a next hop who the original client is, if the connector is configured so (`client_address`) and the
//! next hop offers it.

use super::alerts::Alerts;
use super::connection::{Broken, Connection};
use crate::config::ClientAddress;
use crate::smtp::client::xforward::{self, Offered};
use crate::smtp::envelope::Origin;

/// Sends XFORWARD; called before MAIL of each message. If the next hop refuses it, the mail is sent without, and it is
/// not sent again on this connection. A broken connection is handled at MAIL.
pub(super) async fn xforward(connection: &mut Connection, origin: &Origin, alerts: &Alerts) {
    let offered = connection.offers.xforward;
    if connection.terms.smtp.client_address == ClientAddress::None || offered.is_empty() {
        return;
    }
    for command in xforward::commands(origin, offered) {
        match connection.command(&command).await {
            Ok(reply) if reply.is_positive() => {}
            Ok(reply) => {
                let next_hop = &connection.next_hop;
                if let Some(untold) = alerts.line(next_hop, "xforward") {
                    tracing::warn!(%next_hop, %reply, untold, "the next hop refuses XFORWARD; mail goes on without");
                }
                connection.offers.xforward = Offered::default();
                return;
            }
            // The reply may still come, and must not be taken for that to MAIL.
            Err(Broken::TimedOut(_)) => return connection.shut(),
            Err(_) => return,
        }
    }
}
