//! The thread that keeps the log short and quick to read, beside the committer: it moves what is live in old segments to
//! the end of the log, a little at a time, and writes checkpoints of complete ones.
//!
//! A message is moved by a record that says how it stands with all that became of it; the committer adds what has changed
//! in between. Segments go in their order, so that no outcome is forgotten before the message that
//! it is about.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::SpoolError;
use super::aside;
use super::changes::Changes;
use super::checkpoint;
use super::clock::{EVERY, QueueClock};
use super::entry::{Change, Entry, Outcome, Record, State};
use super::header::{self, Header};
use super::index::{At, Kept, Place, Sizes};
use super::job::{Job, Moved, What};
use super::layout::{Layout, discard, failed};
use super::reading;
use super::record::{Frame, Frames, Held};
use super::shared::Shared;

/// Bytes and messages that are moved at once: others wait no longer than for that.
const PIECE: usize = 1 << 20;
const PIECE_MESSAGES: usize = 512;
/// When it failed, it is tried again after this.
const AGAIN: Duration = Duration::from_secs(5);

/// What there is to do.
#[derive(Debug, Clone, Copy)]
pub(super) enum Task {
    /// A segment is complete: there may be a checkpoint to write.
    Complete,
    /// Messages are to be moved.
    Clean,
}

/// The thread's state.
pub(super) struct Tidy {
    layout: Layout,
    sizes: Sizes,
    shared: Shared,
    jobs: Sender<Job>,
    clock: QueueClock,
    /// After a failure.
    not_before: Instant,
}

/// A segment in memory.
struct Opened {
    header: Header,
    bytes: Vec<u8>,
}

impl Tidy {
    /// Ready to run.
    pub(super) fn new(layout: Layout, sizes: Sizes, shared: Shared, (jobs, clock): (Sender<Job>, QueueClock)) -> Self {
        Self { layout, sizes, shared, jobs, clock, not_before: Instant::now() }
    }

    /// Works until nobody can ask any more.
    pub(super) fn run(mut self, tasks: &Receiver<Task>) {
        let mut save_at = Instant::now();
        loop {
            let now = Instant::now();
            if save_at <= now {
                self.clock.save();
                save_at = now + EVERY;
            }
            match tasks.recv_timeout(save_at - now) {
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
                Ok(Task::Complete) => self.checkpoints(),
                Ok(Task::Clean) => {
                    if self.not_before <= Instant::now()
                        && let Err(error) = self.clean()
                    {
                        tracing::warn!("{error}; the log is made shorter later");
                        self.not_before = Instant::now() + AGAIN;
                    }
                    self.shared.lock().cleaning = false;
                }
            }
        }
        self.clock.save();
    }

    /// A checkpoint that cannot be written is done without.
    fn checkpoints(&self) {
        let wanting = self.shared.lock().index.without_checkpoint(&self.sizes);
        for number in wanting {
            if let Err(error) = self.checkpoint(number) {
                tracing::debug!("{error}; the next start reads the whole segment");
            }
        }
    }

    fn checkpoint(&self, number: u32) -> Result<(), SpoolError> {
        let path = self.layout.checkpoint(number);
        let opened = self.read(number)?;
        let whole: Result<Vec<Frame>, _> = opened.frames().collect();
        let mut frames = whole.map_err(|_| SpoolError::Io(format!("segment {number} is damaged")))?;
        frames.retain(|frame| checkpoint::is_needed(number, frame, &self.shared.lock().index));
        let written = checkpoint::write(&opened.header, opened.bytes.len() as u64, &frames);
        let bytes = written.map_err(|e| SpoolError::Io(format!("{}: {e}", path.display())))?;
        let draft = path.with_extension("sum.new");
        let named = write(&draft, &bytes).and_then(|()| fs::rename(&draft, &path));
        named.map_err(|e| {
            discard(&draft);
            failed("cannot write", &path, &e)
        })?;
        self.shared.lock().index.has_checkpoint(number, bytes.len() as u64);
        Ok(())
    }

    fn clean(&self) -> Result<(), SpoolError> {
        loop {
            let Some(number) = self.shared.lock().index.to_clean(&self.sizes) else { return Ok(()) };
            let cleaned = self.clean_one(number);
            // If it failed: all in it may be over by now, and the segment gone.
            if self.shared.lock().index.first_needed().0 == number {
                cleaned?;
                self.lay_aside(number)?;
            }
            self.ask(What::Release)?;
        }
    }

    /// Gives up what is left of a segment because it cannot be read: the segment is kept for a person to look at.
    fn lay_aside(&self, number: u32) -> Result<(), SpoolError> {
        let open = self.shared.lock().index.open_in(number);
        if open.is_empty() {
            return Ok(());
        }
        let size = fs::metadata(self.layout.segment(number)).map_or(0, |segment| segment.len());
        let all = 0..usize::try_from(size).unwrap_or(usize::MAX);
        aside::keep_segment(&self.layout, number, &[all])?;
        let dropped = |(id, recipient)| {
            tracing::error!(%id, recipient, "spool: its message cannot be read and leaves the queue");
            Change { id, recipient, state: State::Done(Outcome::Dropped), route: None }
        };
        let changes = open.into_iter().map(dropped).collect();
        self.ask(What::Record(Record { accepted: Vec::new(), changes }, Vec::new()))
    }

    fn clean_one(&self, number: u32) -> Result<(), SpoolError> {
        let opened = self.read(number)?;
        let (mut moves, mut bytes, mut changes) = (Vec::new(), 0, Changes::new(&self.layout));
        for frame in opened.frames() {
            let Some(frame) = frame.map_or_else(|damaged| damaged.frame, Some) else { continue };
            for (nth, statement) in (0..).zip(&frame.logged.accepted) {
                let offset = u32::try_from(frame.range.start).unwrap_or(u32::MAX);
                let at = At { segment: number, offset, nth };
                let id = statement.entry.id;
                let found = self.shared.lock().index.get(id).filter(|kept| kept.at == at).cloned();
                let Some(found) = found else { continue };
                let entry = Entry::clone(&statement.entry);
                let Some(moved) = self.moved(&opened, entry, found, &mut changes) else { continue };
                bytes += moved.content.len();
                moves.push(moved);
            }
            if bytes >= PIECE || moves.len() >= PIECE_MESSAGES {
                bytes = 0;
                self.ask(What::Moves(std::mem::take(&mut moves)))?;
            }
        }
        if moves.is_empty() { Ok(()) } else { self.ask(What::Moves(moves)) }
    }

    /// A message as it stands now, with all that became of it since its record. `None`: its content cannot be read; it is
    /// kept for a person to look at.
    fn moved(&self, opened: &Opened, mut entry: Entry, found: Kept, changes: &mut Changes<'_>) -> Option<Moved> {
        changes.apply(&mut entry, &found);
        let (held, content) = match found.content {
            Place::File { folder, sum } => (Held::File { folder, sum }, Bytes::new()),
            Place::Segment { offset, length, sum } => {
                let rest = opened.bytes.get(offset as usize..).unwrap_or_default();
                let content = rest.get(..length as usize).unwrap_or(rest);
                if content.len() != length as usize || crc32c::crc32c(content) != sum {
                    aside::keep_message(&self.layout, &entry, content);
                    return None;
                }
                (Held::Here { length, sum }, Bytes::copy_from_slice(content))
            }
        };
        Some(Moved { entry, found, held, content })
    }

    fn read(&self, number: u32) -> Result<Opened, SpoolError> {
        Opened::read(&self.layout.segment(number))
    }

    /// Asks the committer and waits.
    fn ask(&self, what: What) -> Result<(), SpoolError> {
        let (answer, answered) = oneshot::channel();
        let ended = || SpoolError::Io("the spool has stopped".into());
        self.jobs.send(Job { what, answer }).map_err(|_| ended())?;
        answered.blocking_recv().map_err(|_| ended())?
    }
}

impl Opened {
    fn read(path: &Path) -> Result<Self, SpoolError> {
        let (bytes, _) = reading::whole(path).map_err(|e| failed("cannot read", path, &e))?;
        let header = Header::read(&bytes);
        let header = header.map_err(|_| SpoolError::Io(format!("{} has no header any more", path.display())))?;
        Ok(Self { header, bytes })
    }

    fn frames(&self) -> Frames<'_> {
        Frames::new((self.header.mark, self.header.format), &self.bytes, header::LENGTH)
    }
}

fn write(draft: &Path, bytes: &[u8]) -> io::Result<()> {
    crate::private::create(draft)?.write_all(bytes)
}
