//! Content behind the header section, as it comes: kept, and once there is much of it, handed on to the next hops that
//! take part at the pace at which they take it (DESIGN section 7, "Cut-through").

use super::end_of_data::{content, regroup};
use super::transaction::Transaction;
use super::{Services, returned};
use crate::config::SendConnector;
use crate::delivery::branch::{Message, Waits};
use crate::delivery::stamping::stamp;
use crate::message::body::BEGINNING;
use crate::smtp::address::Address;
use crate::smtp::server::{Carrier, Summary};

/// Bodies up to this size are read first and sent at once, octets: their beginnings may show a loop.
const READ_FIRST: u64 = BEGINNING as u64;

impl Transaction {
    /// Takes a piece. What BDAT brings is read first: whether a next hop can take it is known at its end only.
    pub(super) async fn append(&mut self, (services, session): (&Services, &str), piece: &[u8], carrier: Carrier) {
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
        regroup(&mut self.branches, (&in_force, &self.origin), (&self.sender, &self.recipients), passed);
        let summary = Summary { eight_bit: !passed.facts.ascii, bare_lf: false };
        let content = content(passed, writing, summary);
        let Ok(body) = writing.body().await else { return }; // the message is refused at its end
        let (origin, sender) = (&*self.origin, &self.sender);
        let fields = |connector: &SendConnector, named: &[(&Address, &Address)]| {
            stamp(&in_force, connector, &content.identity, named)
        };
        let waits = Waits::Client;
        let message = Message { origin, sender, content: &content, body, fields: &fields, waits };
        self.branches.begin_stream(&message).await;
    }

    /// Whether nobody is left to send it to, now that the beginning of its body is known.
    async fn is_looped(&mut self, services: &Services, session: &str) -> bool {
        let Some((mut passed, writing)) = self.content.take() else { return false };
        let checked = returned::check(services, session, self, &mut passed).await;
        self.content = Some((passed, writing));
        checked.is_err()
    }
}
