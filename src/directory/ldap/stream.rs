//! LDAP Content Synchronization, refreshAndPersist (RFC 4533 3.4). One search for each base, in a task of its own: the
//! client library panics on some malformed messages, which ends only the stream.
//!
//! `follow` takes the events. No cookie is kept: a new stream begins with all entries.

use std::sync::Arc;

use ldap3::controls::{
    Control, ControlType, EntryState, MakeCritical as _, RefreshMode, SyncInfo, SyncRequest, SyncState, parse_syncinfo,
};
use ldap3::{ResultEntry, Scope, SearchStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::answer;
use super::backpressure::Taker;
use super::connection::Connection;
use super::search::{self, Failure};
use crate::config::LdapConfig;
use crate::directory::known::{Id, Known};
use crate::directory::profile::Entry;
use crate::directory::snapshot::view::Change;

/// The length of the queue of events.
const WAITING: usize = 1024;

/// An event of a stream.
#[derive(Debug)]
pub(super) enum Event {
    /// An entry in the initial phase.
    Entry(Known),
    /// The initial phase of one base is complete.
    Told,
    Changed(Change),
    /// References to parts of the directory that were not searched.
    Elsewhere(Vec<String>),
    /// The stream has ended.
    Ended(Failure),
}

/// The streams of all bases. Dropping it ends them.
pub(super) struct Stream {
    pub(super) events: mpsc::Receiver<Event>,
    stop: CancellationToken,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

impl Stream {
    pub(super) fn begin(connection: &Arc<Connection>, config: &Arc<LdapConfig>) -> Self {
        let (sender, events) = mpsc::channel(WAITING);
        let stop = CancellationToken::new();
        let task = |(number, base): (u32, &String)| {
            let base = Base {
                connection: Arc::clone(connection),
                config: Arc::clone(config),
                number,
                base: base.clone(),
                events: sender.clone(),
                told: false,
            };
            AbortOnDropHandle::new(tokio::spawn(guarded(base.run(stop.clone()), sender.clone())))
        };
        let tasks = (0..).zip(&config.base).map(task).collect();
        Self { events, stop, _tasks: tasks }
    }

    /// Ends the searches, and waits until that is sent to the server.
    pub(super) async fn end(mut self) {
        self.stop.cancel();
        while self.events.recv().await.is_some() {}
    }
}

/// Runs a stream in its own task; a panic becomes its last event.
async fn guarded(stream: impl Future<Output = ()> + Send + 'static, events: mpsc::Sender<Event>) {
    if AbortOnDropHandle::new(tokio::spawn(stream)).await.is_err() {
        // The receiver may be gone.
        let _ = events.send(Event::Ended(Failure::Malformed("a message of the stream of changes"))).await;
    }
}

/// The stream of one base.
struct Base {
    connection: Arc<Connection>,
    config: Arc<LdapConfig>,
    number: u32,
    base: String,
    events: mpsc::Sender<Event>,
    told: bool,
}

impl Base {
    async fn run(mut self, stop: CancellationToken) {
        let failure = match self.read(&stop).await {
            Ok(()) => return,
            Err(failure) => failure,
        };
        // The receiver may be gone.
        let _ = self.events.send(Event::Ended(failure)).await;
    }

    async fn read(&mut self, stop: &CancellationToken) -> Result<(), Failure> {
        let config = Arc::clone(&self.config);
        let (filter, attributes) = (config.profile.everybody().to_string(), config.profile.attributes());
        let mut ldap = self.connection.ldap();
        ldap.with_search_options(Connection::without_limit());
        let request = SyncRequest { mode: RefreshMode::RefreshAndPersist, cookie: None, reload_hint: false };
        ldap.with_controls(request.critical());
        let mut stream = ldap.streaming_search(&self.base, Scope::Subtree, &filter, attributes).await?;
        let mut taker = Taker::new(&self.connection.gate);
        loop {
            let item = tokio::select! {
                () = stop.cancelled() => {
                    drop(taker);
                    return abandon(stream).await;
                }
                item = taker.next(stream.next()) => item?,
            };
            // In the initial phase a question waits behind entries that were sent before, so each message counts as an
            // answer.
            self.connection.answered();
            if self.told {
                // From now on questions must not wait.
                taker.catches_up();
            }
            let Some(item) = item else { break };
            if self.take(item).await? == Listener::Gone {
                return abandon(stream).await;
            }
        }
        Failure::check("the stream of changes", &stream.finish().await)?;
        Err(Failure::Broken("the server ended the stream of changes".to_owned()))
    }

    async fn take(&mut self, item: ResultEntry) -> Result<Listener, Failure> {
        let mut events = Vec::new();
        if item.is_ref() {
            events.push(Event::Elsewhere(search::references(item)?));
        } else if item.is_intermediate() {
            events.extend(self.informed(parse_syncinfo(item)));
        } else {
            events.extend(self.changed(item)?);
        }
        for event in events {
            if self.events.send(event).await.is_err() {
                return Ok(Listener::Gone);
            }
        }
        Ok(Listener::There)
    }

    /// RFC 4533 2.5.
    fn informed(&mut self, info: SyncInfo) -> Vec<Event> {
        match info {
            SyncInfo::RefreshDelete { refresh_done: true, .. }
            | SyncInfo::RefreshPresent { refresh_done: true, .. }
                if !self.told =>
            {
                self.told = true;
                vec![Event::Told]
            }
            SyncInfo::SyncIdSet { refresh_deletes: true, sync_uuids, .. } => {
                sync_uuids.iter().map(|id| Event::Changed(Change::Gone(Id::of(&self.id(id))))).collect()
            }
            SyncInfo::NewCookie(_)
            | SyncInfo::RefreshDelete { .. }
            | SyncInfo::RefreshPresent { .. }
            | SyncInfo::SyncIdSet { .. } => Vec::new(),
        }
    }

    /// The id of an entry in this base. An entry that moves to another base is reported for both, in any order: removed
    /// from one, added to the other.
    fn id(&self, uuid: &[u8]) -> Vec<u8> {
        [&self.number.to_le_bytes()[..], uuid].concat()
    }

    /// RFC 4533 2.3.
    fn changed(&self, item: ResultEntry) -> Result<Option<Event>, Failure> {
        let state = item.1.iter().find(|Control(kind, _)| matches!(kind, Some(ControlType::SyncState)));
        let Some(Control(_, raw)) = state else { return Err(Failure::Malformed("an entry without its state")) };
        let SyncState { state, entry_uuid, .. } = raw.parse();
        let mut entry: Entry = search::entry(item)?;
        entry.id = self.id(&entry_uuid);
        Ok(match state {
            EntryState::Delete => Some(Event::Changed(Change::Gone(Id::of(&entry.id)))),
            EntryState::Present => None,
            EntryState::Add | EntryState::Modify => {
                let known = self.config.profile.know(&entry, answer::disabled_accounts(&self.config));
                Some(if self.told { Event::Changed(Change::of(known)) } else { Event::Entry(known) })
            }
        })
    }
}

/// Whether the receiver still exists.
#[derive(PartialEq)]
enum Listener {
    There,
    Gone,
}

/// Tells the server that the search is abandoned.
async fn abandon<'a>(mut stream: SearchStream<'a, &'a str, Vec<&'a str>>) -> Result<(), Failure> {
    let search = stream.ldap_handle().last_id();
    let mut ldap = stream.ldap_handle().clone();
    stream.finish().await;
    ldap.abandon(search).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stream_that_breaks_off_is_told() {
        for (breaks, told) in [(true, true), (false, false)] {
            let (sender, mut events) = mpsc::channel(1);
            guarded(async move { assert!(!breaks, "as the client library does") }, sender).await;
            assert_eq!(matches!(events.recv().await, Some(Event::Ended(Failure::Malformed(_)))), told);
        }
    }
}
