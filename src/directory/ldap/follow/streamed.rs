//! A stream of changes (RFC 4533): everything first, into a new snapshot, then each change as it comes. From time to time,
//! and on every new connection, it begins anew.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Accept, Connection, Ended, Failure, Keeper, Next, Refresh, accept, whole};
use crate::directory::ldap::answer;
use crate::directory::ldap::stream::{Event, Stream};
use crate::directory::ldap::whole::{Filling, Taking};
use crate::directory::snapshot::position::Position;
use crate::directory::snapshot::served::Outcome;
use crate::directory::snapshot::view::Change;

/// How much is taken at once.
const BATCH: usize = 1000;

impl Keeper {
    pub(super) async fn streamed(
        &self,
        connection: &Arc<Connection>,
        waiting: Option<Refresh>,
    ) -> Result<Ended, Failure> {
        self.ask_probe(connection).await?;
        let mut stream = Stream::begin(connection, &self.config);
        let read = self.told(connection, &mut stream, accept(waiting.as_ref())).await;
        self.answer(waiting, &read);
        let ended = match read {
            Ok(_) => {
                self.succeeded();
                self.listen(connection, &mut stream).await
            }
            Err(failure) => Err(failure),
        };
        stream.end().await;
        ended
    }

    /// Takes everything in.
    async fn told(&self, connection: &Connection, stream: &mut Stream, accept: Accept) -> Result<Outcome, Failure> {
        let mut filling = Filling::begin(&self.snapshot, &self.progress).await?;
        let (mut bases, mut early) = (self.config.base.len(), Vec::new());
        while bases > 0 {
            let events = whole::in_time(&self.config, next(stream)).await?;
            let mut entries = Vec::new();
            for event in events {
                match event {
                    Event::Entry(known) => entries.push(known),
                    // Another base is still being told.
                    Event::Changed(change) => early.push(change),
                    Event::Told => bases -= 1,
                    Event::Elsewhere(references) => all_is_here(&references)?,
                    Event::Ended(failure) => return Err(failure),
                }
            }
            filling = filling.put(entries).await?;
        }
        self.ask_probe(connection).await?;
        let outcome = filling.take(Taking { position: Position::Unknown, accept }, &self.config).await?;
        if early.is_empty() { Ok(outcome) } else { self.take(early).await }
    }

    /// Takes each change in, and makes sure every `poll` that somebody is there to tell of one.
    async fn listen(&self, connection: &Arc<Connection>, stream: &mut Stream) -> Result<Ended, Failure> {
        let again = Instant::now() + self.kept.full_read;
        let mut poll = Instant::now() + self.kept.poll;
        loop {
            tokio::select! {
                events = next(stream) => drop(self.take(changes(events?)?).await?),
                next = self.next(connection, again, poll) => match next {
                    Next::Ended => return Ok(Ended::Connection),
                    Next::Read(waiting) => return Ok(Ended::Again(waiting)),
                    // The stream tells it by itself.
                    Next::Look(_) => {}
                    Next::Poll => {
                        self.ask_probe(connection).await?;
                        self.take(Vec::new()).await?;
                        poll = Instant::now() + self.kept.poll;
                    }
                },
            }
        }
    }

    async fn take(&self, changes: Vec<Change>) -> Result<Outcome, Failure> {
        let snapshot = Arc::clone(&self.snapshot);
        whole::blocking(move || snapshot.changed(changes, Position::Unknown)).await
    }
}

/// What has come.
async fn next(stream: &mut Stream) -> Result<Vec<Event>, Failure> {
    let mut events = Vec::new();
    if stream.events.recv_many(&mut events, BATCH).await == 0 {
        return Err(Failure::Malformed("a message of the stream of changes"));
    }
    Ok(events)
}

fn changes(events: Vec<Event>) -> Result<Vec<Change>, Failure> {
    let mut changes = Vec::new();
    for event in events {
        match event {
            Event::Changed(change) => changes.push(change),
            Event::Entry(known) => changes.push(Change::of(known)),
            Event::Elsewhere(references) => all_is_here(&references)?,
            Event::Told => {}
            Event::Ended(failure) => return Err(failure),
        }
    }
    Ok(changes)
}

fn all_is_here(references: &[String]) -> Result<(), Failure> {
    answer::all_is_here(references).map_err(Failure::Doubt)
}
