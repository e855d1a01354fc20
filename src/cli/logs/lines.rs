//! Log lines on their way out: whoever logs puts them here and goes on; a thread writes them, all that have come
//! within a moment in one go. A system call for each line would cost a busy server more than a message's protocol does.
//!
//! Warnings and errors are written at once, with what waits before them; `kill -9` can lose other lines of the last
//! [`GATHER`]. When the reader of the log does not keep up, whoever logs waits.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// How long a first line waits for company.
const GATHER: Duration = Duration::from_millis(10);
/// Octets that wait at most.
const MOST: usize = 1 << 20;

/// Where lines are put.
#[derive(Clone)]
pub(super) struct Lines(Arc<Shared>);

struct Shared {
    waiting: Mutex<Waiting>,
    /// Lines have come, or no more will be written by the thread.
    filled: Condvar,
    /// There is room again.
    emptied: Condvar,
    /// Whoever takes lines to write them holds it, so that they stay in their order.
    out: Mutex<Box<dyn Write + Send>>,
}

#[derive(Default)]
struct Waiting {
    lines: Vec<u8>,
    /// The thread has ended, or is about to: every line is written at once.
    closed: bool,
}

/// Everything is written out when this is dropped.
pub(crate) struct Flushed {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Lines {
    /// Starts the thread that writes to `out`.
    ///
    /// # Errors
    /// There can be no more threads.
    pub(super) fn start(out: impl Write + Send + 'static) -> io::Result<(Self, Flushed)> {
        let shared = Arc::new(Shared {
            waiting: Mutex::default(),
            filled: Condvar::new(),
            emptied: Condvar::new(),
            out: Mutex::new(Box::new(out)),
        });
        let of_thread = shared.clone();
        let thread = thread::Builder::new().name("log".into()).spawn(move || of_thread.write_what_comes())?;
        Ok((Self(shared.clone()), Flushed { shared, thread: Some(thread) }))
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until there will be no more.
    fn write_what_comes(&self) {
        loop {
            let idle = |waiting: &mut Waiting| waiting.lines.is_empty() && !waiting.closed;
            let waiting = self.filled.wait_while(self.waiting(), idle).unwrap_or_else(PoisonError::into_inner);
            if waiting.closed {
                return;
            }
            drop(waiting);
            thread::sleep(GATHER);
            self.write_out();
        }
    }

    /// Writes all that waits.
    fn write_out(&self) {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = std::mem::take(&mut self.waiting().lines);
        self.emptied.notify_all();
        let _ = out.write_all(&lines); // there is nowhere to say that the log cannot be written
    }

    /// Puts a line behind the others.
    fn put(&self, line: &[u8], when: When) {
        let full = |waiting: &mut Waiting| waiting.lines.len() >= MOST && !waiting.closed;
        let mut waiting = self.emptied.wait_while(self.waiting(), full).unwrap_or_else(PoisonError::into_inner);
        let first = waiting.lines.is_empty();
        waiting.lines.extend_from_slice(line);
        let at_once = when == When::AtOnce || waiting.closed;
        drop(waiting);
        match first {
            _ if at_once => self.write_out(),
            true => self.filled.notify_one(),
            false => {}
        }
    }
}

impl Drop for Flushed {
    fn drop(&mut self) {
        self.shared.waiting().closed = true;
        self.shared.filled.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.shared.write_out();
    }
}

/// When a line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    AtOnce,
    Soon,
}

/// One line's way.
pub(super) struct Line<'a> {
    lines: &'a Lines,
    when: When,
}

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.lines.0.put(line, self.when);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        Line { lines: self, when: When::Soon }
    }

    fn make_writer_for(&'a self, about: &Metadata<'_>) -> Self::Writer {
        let when = if *about.level() <= Level::WARN { When::AtOnce } else { When::Soon };
        Line { lines: self, when }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Passes on what is written, each time after a permit.
    struct Gate {
        permits: Receiver<()>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.permits.recv();
            self.written.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn gate() -> (Lines, Flushed, Sender<()>, Receiver<Vec<u8>>) {
        let ((permit, permits), (written, read)) = (channel(), channel());
        let (lines, flushed) = Lines::start(Gate { permits, written }).unwrap();
        (lines, flushed, permit, read)
    }

    #[test]
    fn lines_come_out_whole_in_their_order_and_none_is_left() {
        let (lines, flushed, permit, read) = gate();
        drop(permit); // every write may go on
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let lines = lines.clone();
                thread::spawn(move || {
                    for number in 0..500 {
                        let when = if number % 100 == 0 { When::AtOnce } else { When::Soon };
                        lines.0.put(format!("{writer} {number}\n").as_bytes(), when);
                    }
                })
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        drop(flushed);
        let text = String::from_utf8(read.try_iter().flatten().collect()).unwrap();
        for writer in 0..4 {
            let own: Vec<_> = text.lines().filter_map(|line| line.strip_prefix(&format!("{writer} "))).collect();
            assert_eq!(own, (0..500).map(|number| number.to_string()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn who_logs_waits_for_a_reader_that_does_not_keep_up() {
        let (lines, _flushed, permit, read) = gate();
        let line = vec![b'x'; MOST];
        lines.0.put(&line, When::Soon); // the thread takes it and waits for its permit
        let logging = thread::spawn({
            let (lines, line) = (lines.clone(), line.clone());
            move || (0..3).for_each(|_| lines.0.put(&line, When::Soon))
        });
        for _ in 0..4 {
            assert!(lines.0.waiting().lines.len() <= MOST);
            permit.send(()).unwrap();
            assert_eq!(read.recv().unwrap().len(), MOST);
        }
        logging.join().unwrap();
    }
}
