//! Changes as the server tells them: LDAP Content Synchronization, refreshAndPersist (RFC 4533 3.4). One search a base,
//! each in a task of its own: the client library panics on some malformed messages, which ends the stream and nothing
//! else.
//!
//! `follow` takes what comes. No cookie is kept: a new stream begins with everything.

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

/// How many messages wait for whoever takes them.
const WAITING: usize = 1024;

/// What comes.
#[derive(Debug)]
pub(super) enum Event {
    /// An entry, while everything is being told.
    Entry(Known),
    /// One base has been told as a whole.
    Told,
    /// A change since.
    Changed(Change),
    /// A part of the directory that was not searched.
    Elsewhere(Vec<String>),
    /// No more comes.
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

    /// Ends the searches, and waits until the server was told.
    pub(super) async fn end(mut self) {
        self.stop.cancel();
        while self.events.recv().await.is_some() {}
    }
}

/// Lets a stream run in a task of its own, whose panic is the end of the stream and is told.
async fn guarded(stream: impl Future<Output = ()> + Send + 'static, events: mpsc::Sender<Event>) {
    if AbortOnDropHandle::new(tokio::spawn(stream)).await.is_err() {
        // Nobody may be left to take it.
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
        // Nobody may be left to take it.
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
            // While all of it is told a question waits behind what was sent before: that is no silence.
            self.connection.answered();
            if self.told {
                // From now on it is questions that must not wait.
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

    /// What an entry of this base goes by. One that moves to another base is told twice, in any order: gone from here,
    /// there now.
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

/// Whether somebody takes what comes.
#[derive(PartialEq)]
enum Listener {
    There,
    Gone,
}

/// Tells the server that nobody listens any more.
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
