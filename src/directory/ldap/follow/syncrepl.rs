//! A stream of changes (RFC 4533): first all entries into a new snapshot, then each change as it comes. It restarts
//! from time to time, and on every new connection.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Connection, Doubted, Failure, FollowEnd, Keeper, NextStep, Waiting, full_read};
use crate::directory::ldap::answer;
use crate::directory::ldap::full_read::Filling;
use crate::directory::ldap::stream::{Event, Stream};
use crate::directory::snapshot::position::Position;
use crate::directory::snapshot::served::Outcome;
use crate::directory::snapshot::view::Change;

/// How many events are applied at once.
const BATCH: usize = 1000;
/// A stream that missed a change is restarted, but not more often than this, since all entries are sent again.
const ANEW_EVERY: Duration = Duration::from_mins(10);
/// The most addresses for which it is checked that the stream sends a change.
const MOST_DOUBTED: usize = 64;

impl Keeper {
    pub(super) async fn streamed(
        &self,
        connection: &Arc<Connection>,
        waiting: &mut Option<Waiting>,
    ) -> Result<FollowEnd, Failure> {
        self.ask_probe(connection).await?;
        let mut stream = Stream::begin(connection, &self.config);
        let ended = match self.told(connection, &mut stream).await {
            Ok(outcome) => {
                self.answer(waiting.take(), Ok(outcome));
                self.succeeded();
                self.listen(connection, &mut stream).await
            }
            Err(failure) => Err(failure),
        };
        stream.end().await;
        ended
    }

    /// Receives all entries.
    async fn told(&self, connection: &Connection, stream: &mut Stream) -> Result<Outcome, Failure> {
        let mut filling = Filling::begin(&self.snapshot, &self.progress).await?;
        let (mut bases, mut early) = (self.config.base.len(), Vec::new());
        while bases > 0 {
            let events = full_read::in_time(&self.config, next(stream)).await?;
            let mut entries = Vec::new();
            for event in events {
                match event {
                    Event::Entry(known) => entries.push(known),
                    // Another base is not complete yet.
                    Event::Changed(change) => early.push(change),
                    Event::Told => bases -= 1,
                    Event::Elsewhere(references) => all_is_here(&references)?,
                    Event::Ended(failure) => return Err(failure),
                }
            }
            filling = filling.put(entries).await?;
        }
        self.ask_probe(connection).await?;
        let read = filling.take(Position::Unknown, &self.config).await?;
        Ok(match (read, self.take(early).await?) {
            (Outcome::Taken(read), Outcome::Taken(early)) => Outcome::Taken(read + early),
            (_, last) => last,
        })
    }

    /// Applies each change, and checks every `poll` that the server still answers.
    async fn listen(&self, connection: &Arc<Connection>, stream: &mut Stream) -> Result<FollowEnd, Failure> {
        let again = Instant::now() + self.kept.full_read;
        let mut poll = Instant::now() + self.kept.poll;
        let mut doubted = Vec::new();
        loop {
            tokio::select! {
                events = next(stream) => drop(self.take(changes(events?)?).await?),
                next = self.next(connection, again, poll) => match next? {
                    NextStep::Ended => return Ok(FollowEnd::Connection),
                    NextStep::Read(waiting) => return Ok(FollowEnd::Again(waiting)),
                    // The stream should send the change by itself.
                    NextStep::Look(look) if doubted.len() < MOST_DOUBTED => doubted.push(look),
                    NextStep::Look(_) => {}
                    NextStep::Poll => {
                        self.ask_probe(connection).await?;
                        self.take(Vec::new()).await?;
                        if self.was_not_told(&mut doubted) {
                            return Ok(FollowEnd::Again(None));
                        }
                        poll = Instant::now() + self.kept.poll;
                    }
                },
            }
        }
    }

    /// Whether the stream had time to send a change and has not.
    fn was_not_told(&self, doubted: &mut Vec<Doubted>) -> bool {
        doubted.retain(|doubted| self.snapshot.contradicts(&doubted.key, &doubted.live));
        let Some(silent) = doubted.iter().find(|doubted| doubted.is_old(self.kept.poll)) else { return false };
        let mut anew = self.anew.lock();
        if anew.is_some_and(|at| at.elapsed() < ANEW_EVERY) {
            return false;
        }
        *anew = Some(Instant::now());
        tracing::warn!(
            directory = %self.name,
            address = silent.key,
            "the stream of changes has not told what the directory says itself: everything is read again"
        );
        true
    }

    async fn take(&self, changes: Vec<Change>) -> Result<Outcome, Failure> {
        let snapshot = Arc::clone(&self.snapshot);
        full_read::blocking(move || snapshot.changed(changes, Position::Unknown)).await
    }
}

/// Waits for events and takes all that have come.
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
