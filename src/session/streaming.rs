//! Content after the header section: it is stored, and a large body is sent on to the next hops in the conversation as
//! it comes, at the pace at which they take it (DESIGN section 7, "Cut-through").

use super::end_of_data::{content, regroup};
use super::transaction::Transaction;
use super::{Services, returned};
use crate::config::SendConnector;
use crate::delivery::branch::{Message, Waits};
use crate::delivery::stamping::stamp;
use crate::message::body::BEGINNING;
use crate::smtp::address::Address;
use crate::smtp::server::{Carrier, Summary};

/// Bodies up to this many octets are received completely before they are sent: the digest of their beginning may show a
/// loop.
const READ_FIRST: u64 = BEGINNING as u64;

impl Transaction {
    /// Takes a piece. BDAT content is received completely first: only its end tells whether a next hop can take it.
    pub(super) async fn append(&mut self, services: &Services, session: &str, piece: &[u8], carrier: Carrier) {
        let Some((passed, writing)) = &mut self.content else { return };
        if passed.remembered.is_refused() {
            return;
        }
        passed.remembered.take(piece);
        writing.append(piece).await;
        self.held.content(writing.in_memory());
        if self.branches.is_empty() || carrier == Carrier::Bdat {
            return;
        }
        if self.streams {
            return self.branches.feed(piece).await;
        }
        if writing.size < READ_FIRST + writing.received_size + passed.section_size {
            return;
        }
        if self.is_looped(services, session).await {
            return self.branches.release(); // and is refused at its end
        }
        self.streams = true;
        let Some((passed, writing)) = &mut self.content else { return };
        let in_force = self.in_force.clone();
        regroup(&mut self.branches, &in_force, &self.origin, &self.sender, &self.recipients, passed);
        let summary = Summary { eight_bit: !passed.facts.ascii, bare_lf: false };
        let content = content(passed, writing, summary);
        let Ok(body) = writing.body().await else { return }; // the message is refused at its end
        let (origin, sender) = (&*self.origin, &self.sender);
        let fields = |connector: &SendConnector, named: &[(&Address, &Address)]| {
            stamp(&in_force, connector, &content.identity, named)
        };
        let waits = Waits::Client;
        let message = Message { origin, sender, content: &content, body, fields: &fields, waits, is_ours: &|| true };
        self.branches.begin_stream(&message).await;
    }

    /// Whether no recipient is left now that the beginning of the body is known.
    async fn is_looped(&mut self, services: &Services, session: &str) -> bool {
        let Some((mut passed, writing)) = self.content.take() else { return false };
        let checked = returned::check(services, session, self, &mut passed).await;
        self.content = Some((passed, writing));
        checked.is_err()
    }
}
