//! A queue of log lines: logging only appends to it and never waits for the log's reader; a thread writes the lines of
//! a short interval together. A system call for each line would cost a busy server more than the protocol of a message.
//!
//! Lines wait in order, each kind with a size limit of its own ([`Room`]), so that a flood of one kind loses no line of
//! another. Lines beyond the limit are lost and counted, and a line with their number follows those that waited.
//! Warnings are written at once, with all lines before them; `kill -9` can lose other lines of the last [`GATHER`].

use std::io::{self, Write};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use prometheus::IntCounter;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// How long a first line waits for others.
const GATHER: Duration = Duration::from_millis(10);
/// How long the end waits for the reader.
const LAST: Duration = Duration::from_millis(400);
/// The pause after a write that a non-blocking descriptor did not accept.
const PAUSE: Duration = Duration::from_millis(10);

/// The kinds of lines with their size limits; the thread may hold as much again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// Informational lines.
    Info,
    /// Warnings; strangers can cause some of them, so alerts have a limit of their own.
    Warning,
    /// Errors, and lines marked `alert`: an operator has to act.
    Alert,
}

impl Room {
    /// The size limit in octets.
    const fn size(self) -> usize {
        match self {
            Self::Info => 4 << 20,
            Self::Warning | Self::Alert => 1 << 20,
        }
    }

    fn of(about: &Metadata<'_>) -> Self {
        match *about.level() {
            Level::ERROR => Self::Alert,
            _ if about.fields().field("alert").is_some() => Self::Alert,
            Level::WARN => Self::Warning,
            _ => Self::Info,
        }
    }
}

/// Counts of lost lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Lost {
    pub(super) lines: u64,
    /// Warnings and alerts among them. For lines that were lost in writing the kind is unknown.
    pub(super) warnings: u64,
}

#[derive(Clone)]
pub(super) struct Lines(Arc<Inner>);

struct Inner {
    waiting: Mutex<Waiting>,
    /// Notified when the thread has something to do.
    filled: Condvar,
    /// Notified when lines were written.
    written: Condvar,
    lost: IntCounter,
}

#[derive(Default)]
struct Waiting {
    lines: Vec<u8>,
    /// Waiting octets by [`Room`].
    octets: [usize; 3],
    /// Lost lines that have not been reported.
    lost: Lost,
    /// Whether the thread should write at once.
    at_once: bool,
    /// Whether the thread is writing.
    writing: bool,
}

/// When this is dropped, waiting lines are written, unless the reader takes too long.
pub(crate) struct Flushed(Lines);

/// Formats the line that reports lost lines.
type Describe = Box<dyn Fn(Lost) -> String + Send>;

impl Lines {
    /// Starts the thread that writes to `out`. It is never joined, since a reader may block it for ever.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(super) fn start(
        out: impl Write + Send + 'static,
        lost: IntCounter,
        describe: Describe,
    ) -> io::Result<(Self, Flushed)> {
        let (waiting, filled, written) = Default::default();
        let shared = Arc::new(Inner { waiting, filled, written, lost });
        let mut writer = Writer { shared: shared.clone(), out, describe, failed: false };
        thread::Builder::new().name("log".into()).spawn(move || writer.write_what_comes())?;
        Ok((Self(shared.clone()), Flushed(Self(shared))))
    }

    /// Appends a line if there is room for it.
    pub(super) fn put(&self, line: &[u8], room: Room) {
        let mut waiting = self.0.waiting.lock();
        let octets = &mut waiting.octets[room as usize];
        // A line longer than the limit is accepted alone.
        if *octets > 0 && *octets + line.len() > room.size() {
            waiting.lost.lines += 1;
            waiting.lost.warnings += u64::from(room != Room::Info);
            self.0.lost.inc();
            return;
        }
        let before = *octets;
        *octets += line.len();
        // A room that fills up is written before the interval is over.
        let half_full = before < room.size() / 2 && *octets >= room.size() / 2;
        let (first, at_once) = (waiting.lines.is_empty(), half_full || room != Room::Info);
        waiting.lines.extend_from_slice(line);
        waiting.at_once |= at_once;
        drop(waiting);
        if first || at_once {
            self.0.filled.notify_one();
        }
    }

    /// Waits until everything is written, for `patience` at most.
    pub(super) fn flush(&self, patience: Duration) {
        let mut waiting = self.0.waiting.lock();
        waiting.at_once = true;
        self.0.filled.notify_one();
        let unwritten = |waiting: &mut Waiting| waiting.writing || !waiting.lines.is_empty();
        self.0.written.wait_while_for(&mut waiting, unwritten, patience);
    }

    /// Whether the reader has taken everything up to a moment ago.
    pub(super) fn keeps_up(&self) -> bool {
        !self.0.waiting.lock().writing
    }
}

impl Drop for Flushed {
    fn drop(&mut self) {
        self.0.flush(LAST);
    }
}

/// The thread's side.
struct Writer<W> {
    shared: Arc<Inner>,
    out: W,
    describe: Describe,
    /// Whether the last write failed, perhaps within a line: the disk is full, or the reader has gone.
    failed: bool,
}

impl<W: Write> Writer<W> {
    fn write_what_comes(&mut self) {
        loop {
            let (mut lines, lost) = self.take();
            if lost.lines > 0 {
                lines.extend_from_slice((self.describe)(lost).as_bytes());
            }
            let end_of_torn_line = usize::from(self.failed);
            lines.splice(0..0, [b'\n'; 1].into_iter().take(end_of_torn_line));
            let written = self.write(&lines);
            let mut waiting = self.shared.waiting.lock();
            waiting.writing = false;
            self.failed = written < lines.len();
            if self.failed {
                // The report of lost lines was not written either, and is not counted.
                let left = lines[written.max(end_of_torn_line)..].iter().filter(|octet| **octet == b'\n').count();
                let left = u64::try_from(left).unwrap_or_default().saturating_sub(u64::from(lost.lines > 0));
                self.shared.lost.inc_by(left);
                waiting.lost.lines += lost.lines + left;
                waiting.lost.warnings += lost.warnings;
            }
            drop(waiting);
            self.shared.written.notify_all();
        }
    }

    /// Waits for lines and for the interval; returns them, and the number of lost lines after them.
    fn take(&self) -> (Vec<u8>, Lost) {
        // Lines are lost while others wait, or while writing fails; in the latter case the next line brings the report.
        let idle = |waiting: &mut Waiting| waiting.lines.is_empty();
        let shared = &self.shared;
        let mut waiting = shared.waiting.lock();
        shared.filled.wait_while(&mut waiting, idle);
        shared.filled.wait_while_for(&mut waiting, |waiting| !waiting.at_once, GATHER);
        waiting.at_once = false;
        waiting.writing = true;
        waiting.octets = [0; 3];
        (std::mem::take(&mut waiting.lines), std::mem::take(&mut waiting.lost))
    }

    /// Writes; returns how many octets could be written.
    fn write(&mut self, mut left: &[u8]) -> usize {
        let all = left.len();
        while !left.is_empty() {
            match self.out.write(left) {
                Ok(0) => break,
                Ok(written) => left = &left[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Another process made the shared descriptor non-blocking.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(PAUSE),
                Err(_) => break, // there is nowhere to say that the log cannot be written
            }
        }
        all - left.len()
    }
}

pub(super) struct Line<'a> {
    lines: &'a Lines,
    room: Room,
}

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.lines.put(line, self.room);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        Line { lines: self, room: Room::Info }
    }

    fn make_writer_for(&'a self, about: &Metadata<'_>) -> Self::Writer {
        Line { lines: self, room: Room::of(about) }
    }
}

#[cfg(test)]
mod tests;
