//! A message's content on its way into the spool: our Received field, then what the client sent.
//!
//! A small message is written at once, on a thread that may block; a larger one in pieces. Memory does not grow
//! with the message.

use std::io::Write;
use std::sync::Arc;

use crate::in_force::InForce;
use crate::message::envelope::Origin;
use crate::message::received::{self, With};
use crate::smtp::domain::Domain;
use crate::spool::{Draft, Spool, SpoolError};
use crate::time::UnixTime;

/// How much is written at once.
const PIECE: usize = 64 * 1024;

/// Content being written.
pub(super) struct Writing {
    spool: Arc<dyn Spool>,
    received: Received,
    state: State,
}

/// What our Received field says besides the id.
#[derive(Clone)]
struct Received {
    origin: Arc<Origin>,
    with: With,
    by: Domain,
    at: UnixTime,
}

enum State {
    /// Nothing has been written yet: there is no draft.
    Collecting(Vec<u8>),
    /// A draft, and what is to be written next.
    Begun(Written, Vec<u8>),
    /// Writing failed; the rest of the content is thrown away and the message refused at its end.
    Failed(SpoolError),
}

/// Content that has been written.
pub(super) struct Written {
    pub(super) draft: Draft,
    /// Octets, our Received field included.
    pub(super) size: u64,
    /// Octets of our Received field.
    pub(super) received_size: u64,
    /// When we took it, as our Received field says.
    pub(super) at: UnixTime,
}

impl Writing {
    pub(super) fn new(spool: Arc<dyn Spool>, origin: Arc<Origin>, with: With, in_force: &InForce) -> Self {
        let by = in_force.config.server.hostname.clone();
        let received = Received { origin, with, by, at: UnixTime::now() };
        Self { spool, received, state: State::Collecting(Vec::new()) }
    }

    /// Takes a piece; writes when there is enough.
    pub(super) async fn append(&mut self, piece: &[u8]) {
        let buffer = match &mut self.state {
            State::Collecting(buffer) | State::Begun(_, buffer) => buffer,
            State::Failed(_) => return,
        };
        buffer.extend_from_slice(piece);
        if buffer.len() < PIECE {
            return;
        }
        self.state = match std::mem::replace(&mut self.state, State::Collecting(Vec::new())) {
            State::Collecting(buffer) => self.begin(buffer).await,
            State::Begun(written, buffer) => go_on(written, buffer).await,
            failed @ State::Failed(_) => failed,
        };
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// What went wrong now or before.
    pub(super) async fn finish(mut self) -> Result<Written, SpoolError> {
        let state = match std::mem::replace(&mut self.state, State::Collecting(Vec::new())) {
            State::Collecting(buffer) => self.begin(buffer).await,
            State::Begun(written, buffer) => go_on(written, buffer).await,
            failed @ State::Failed(_) => failed,
        };
        match state {
            State::Begun(written, _) => Ok(written),
            State::Failed(error) => Err(error),
            State::Collecting(_) => Err(SpoolError::Io("nothing was written".into())),
        }
    }

    /// Opens a draft, writes our Received field and the first piece.
    async fn begin(&self, buffer: Vec<u8>) -> State {
        let (spool, received) = (self.spool.clone(), self.received.clone());
        blocking(move || {
            let draft = spool.create()?;
            let Received { origin, with, by, at } = &received;
            let mut first = received::field(origin, *with, by, draft.id, *at).into_bytes();
            let received_size = first.len() as u64;
            first.extend_from_slice(&buffer);
            write(Written { draft, size: 0, received_size, at: *at }, first)
        })
        .await
    }
}

async fn go_on(written: Written, buffer: Vec<u8>) -> State {
    blocking(move || write(written, buffer)).await
}

fn write(mut written: Written, mut buffer: Vec<u8>) -> Result<(Written, Vec<u8>), SpoolError> {
    written.draft.file.write_all(&buffer).map_err(|e| SpoolError::Io(format!("{}: {e}", written.draft.id)))?;
    written.size += buffer.len() as u64;
    buffer.clear();
    Ok((written, buffer))
}

async fn blocking<F>(work: F) -> State
where
    F: FnOnce() -> Result<(Written, Vec<u8>), SpoolError> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok((written, buffer))) => State::Begun(written, buffer),
        Ok(Err(error)) => State::Failed(error),
        Err(error) => State::Failed(SpoolError::Io(error.to_string())),
    }
}
