//! Active Directory: every controller numbers its changes (USN). Objects with a higher number than the last one seen
//! are read, including those that lost their addresses; deletions, and moves out of the bases, show at the next full
//! read.

use std::sync::Arc;

use ldap3::Scope;
use tokio::time::Instant;

use super::{Connection, Failure, FollowEnd, Keeper, NextStep, Waiting, full_read};
use crate::directory::filter::Filter;
use crate::directory::ldap::answer;
use crate::directory::ldap::search::Search;
use crate::directory::snapshot::MOST_CHANGES;
use crate::directory::snapshot::position::Position;
use crate::directory::snapshot::view::Change;

/// The controller that is followed.
struct Controller {
    service: String,
    invocation: Vec<u8>,
}

impl Controller {
    fn at(&self, usn: u64) -> Position {
        Position::Usn { invocation: self.invocation.clone(), usn }
    }
}

/// The result of a search for changes.
enum Found {
    /// Changes were applied.
    Taken,
    /// There are too many, or the controller's numbers have gone back: it was restored from a backup, and reuses
    /// numbers.
    Unclear,
}

impl Keeper {
    pub(super) async fn numbered(
        &self,
        connection: &Arc<Connection>,
        service: String,
        waiting: &mut Option<Waiting>,
    ) -> Result<FollowEnd, Failure> {
        let invocation = full_read::in_time(&self.config, connection.invocation(&service)).await?;
        let controller = Controller { service, invocation };
        let fits = match self.snapshot.position() {
            // Numbers of another controller mean nothing here.
            Position::Usn { invocation, .. } => invocation == controller.invocation,
            Position::Unknown => false,
        };
        if !fits || waiting.is_some() || self.snapshot.served().is_none() {
            self.read_all(connection, &controller, waiting).await?;
        }
        loop {
            self.ask_probe(connection).await?;
            if let Found::Unclear = self.changes(connection, &controller).await? {
                self.read_all(connection, &controller, waiting).await?;
                continue;
            }
            let now = Instant::now();
            match self.next(connection, now + self.snapshot.until_whole_read(), now + self.kept.poll).await? {
                NextStep::Ended => return Ok(FollowEnd::Connection),
                NextStep::Look(doubted) => self.look(connection, &doubted).await?,
                NextStep::Poll => {}
                NextStep::Read(who) => {
                    *waiting = who;
                    self.read_all(connection, &controller, waiting).await?;
                }
            }
        }
    }

    async fn read_all(
        &self,
        connection: &Arc<Connection>,
        controller: &Controller,
        waiting: &mut Option<Waiting>,
    ) -> Result<(), Failure> {
        // Taken before the read: what changes during it is read again afterwards.
        let usn = self.highest(connection, controller).await?;
        self.whole(connection, controller.at(usn), waiting).await
    }

    /// Applies what has changed since the last search.
    async fn changes(&self, connection: &Connection, controller: &Controller) -> Result<Found, Failure> {
        let Position::Usn { usn: seen, .. } = self.snapshot.position() else { return Ok(Found::Unclear) };
        let highest = self.highest(connection, controller).await?;
        if highest < seen {
            return Ok(Found::Unclear);
        }
        let changes = if highest > seen { self.changed_since(connection, seen).await? } else { Some(Vec::new()) };
        let Some(changes) = changes else { return Ok(Found::Unclear) };
        let (snapshot, position) = (Arc::clone(&self.snapshot), controller.at(highest));
        full_read::blocking(move || snapshot.changed(changes, position)).await?;
        self.succeeded();
        Ok(Found::Taken)
    }

    /// `None`: too many.
    async fn changed_since(&self, connection: &Connection, seen: u64) -> Result<Option<Vec<Change>>, Failure> {
        let filter = Filter::AtLeast("uSNChanged", seen + 1).to_string();
        let attributes = full_read::with_id(&self.config);
        let disabled = answer::disabled_accounts(&self.config);
        let mut changes = Vec::new();
        for base in &self.config.base {
            let mut cookie = Vec::new();
            loop {
                let search = Search { base, scope: Scope::Subtree, filter: &filter, attributes: &attributes };
                let page = full_read::in_time(&self.config, connection.page(search, cookie)).await?;
                let known = page.reply.entries.iter().map(|entry| self.config.profile.know(entry, disabled));
                changes.extend(known.map(Change::of));
                if changes.len() > MOST_CHANGES {
                    return Ok(None);
                }
                cookie = page.cookie;
                if cookie.is_empty() {
                    break;
                }
            }
        }
        Ok(Some(changes))
    }

    /// The number of the controller's last change.
    async fn highest(&self, connection: &Connection, controller: &Controller) -> Result<u64, Failure> {
        let root = full_read::in_time(&self.config, connection.root()).await?;
        match root.numbers {
            Some(numbers) if numbers.service == controller.service => Ok(numbers.highest),
            Some(_) | None => Err(Failure::Broken("another controller answers than a moment ago".to_owned())),
        }
    }
}
