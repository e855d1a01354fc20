//! Tells a next hop who the original client was, where the connector wants it (`client_address`) and the next hop
//! takes it.

use super::alerts::Alerts;
use super::connection::{Broken, Connection};
use crate::config::ClientAddress;
use crate::smtp::client::xforward::{self, Offered};
use crate::smtp::envelope::Origin;

/// Says XFORWARD; called before MAIL of each message. A next hop that refuses it has the mail without, and is not told
/// again over this connection. What breaks here breaks again at MAIL, where it is seen to.
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
            // Its reply may still come, and must not be taken for that to MAIL.
            Err(Broken::TimedOut(_)) => return connection.shut(),
            Err(_) => return,
        }
    }
}
