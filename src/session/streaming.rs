//! Content behind the header section, as it comes: kept, and once there is much of it, handed on to the next hops that
//! take part at the pace at which they take it (DESIGN section 7, "Cut-through").

use super::ending::{content, regroup};
use super::transaction::Transaction;
use crate::config::SendConnector;
use crate::delivery::branch::Message;
use crate::delivery::stamping::stamp;
use crate::smtp::address::Address;
use crate::smtp::server::{Carrier, Summary};

/// Bodies up to this size are read first and sent at once, octets.
const READ_FIRST: u64 = 64 * 1024;

impl Transaction {
    /// Takes a piece. What BDAT brings is read first: whether a next hop can take it is known at its end only.
    pub(super) async fn append(&mut self, piece: &[u8], carrier: Carrier) {
        let Some((passed, writing)) = &mut self.content else { return };
        writing.append(piece).await;
        if self.branches.is_empty() || carrier == Carrier::Bdat {
            return;
        }
        if self.streams {
            return self.branches.feed(piece).await;
        }
        if writing.size < READ_FIRST + passed.section_size {
            return;
        }
        self.streams = true;
        let in_force = self.in_force.clone();
        regroup(&mut self.branches, (&in_force, &self.origin), (&self.sender, &self.recipients), passed);
        let summary = Summary { eight_bit: !passed.facts.ascii, bare_lf: false };
        let content = content(passed, writing, summary);
        let Ok(body) = writing.body().await else { return }; // the message is refused at its end
        let (origin, sender) = (&*self.origin, &self.sender);
        let fields = |connector: &SendConnector, named: &[(&Address, &Address)]| {
            stamp(&in_force, connector, &content.identity, named)
        };
        let until = Some(tokio::time::Instant::now()); // what is waited for is the next piece
        let message = Message { origin, sender, content: &content, body, fields: &fields, until };
        self.branches.begin_stream(&message).await;
    }
}
