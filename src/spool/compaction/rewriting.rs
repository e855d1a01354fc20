//! Frees the space of complete segments of which little is needed, anywhere in the log.
//!
//! The new file is written beside the old one, synced, and renamed over it; both have the same content, so either may
//! be left after a power cut. Readers that have the old one open can read it to its end. If the new file includes
//! another segment's records, that segment is removed only once the new name is durable; if the sync fails, both stay.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use super::super::index::Sparse;
use super::super::layout::{alert, discard, failed, new_file};
use super::super::rewrite::{self, Rewritten, Source};
use super::super::{SpoolError, segment};
use super::{AGAIN, Compactor, Opened};

/// How many segments are rewritten at once: other work, and a stop, have to wait for it.
const AT_ONCE: usize = 8;

/// Why a segment cannot be rewritten.
enum Unreadable {
    /// It has damaged contents, which are handled where they are read.
    Contents,
    Records(String),
}

impl Compactor {
    /// Rewrites some of the segments that are worth it, except the newest. A segment that cannot be read or written
    /// stays.
    pub(super) fn rewrite(&mut self, newest: usize) {
        for _ in 0..AT_ONCE {
            let sparse = self.parts.shared.lock().index.segments.to_rewrite(&self.parts.sizes, newest);
            let Some(sparse) = sparse.filter(|_| self.rewrite_not_before <= Instant::now()) else { return };
            match self.rewrite_one(sparse) {
                Ok(true) => {}
                Ok(false) => self.parts.shared.lock().index.segments.is_dense(sparse.number),
                Err(error) => {
                    tracing::warn!("{error}; segment {} gives its space back later", sparse.number);
                    self.rewrite_not_before = Instant::now() + AGAIN;
                    // On a full disk the reserve helps, by moving.
                    let segments = &mut self.parts.shared.lock().index.segments;
                    if segments.first_needed().0 == sparse.number {
                        segments.is_dense(sparse.number);
                    }
                }
            }
        }
    }

    /// Returns whether it freed enough.
    fn rewrite_one(&mut self, Sparse { number, before }: Sparse) -> Result<bool, SpoolError> {
        let source = match self.source(number) {
            Ok(source) => source,
            Err(Unreadable::Contents) => return Ok(false),
            Err(Unreadable::Records(why)) => {
                // If no live message is in it, its outcomes belong to other messages and wait for those.
                if !self.parts.shared.lock().index.open_in(number).is_empty() {
                    self.put_off(number, &why);
                }
                return Ok(false);
            }
        };
        let before = match before.filter(|_| self.parts.layout.is_sure(number)) {
            Some(before) => self.source(before).ok().filter(|before| rewrite::is_run(&before.header, &source.header)),
            None => None,
        };
        let sparse = Sparse { number, before: before.as_ref().map(|before| before.header.number) };
        let most = before.iter().map(|before| before.length).sum::<usize>() + source.length / 2;
        let sources: Vec<Source> = before.into_iter().chain([source]).collect();
        let path = self.parts.layout.segment(number);
        let written = rewrite::write(sources).map_err(|e| SpoolError::Io(format!("{}: {e}", path.display())))?;
        let Some(rewritten) = written.filter(|rewritten| rewritten.bytes.len() < most) else { return Ok(false) };
        self.put_in_force(&path, sparse, &rewritten)?;
        Ok(true)
    }

    /// The needed parts of a segment.
    fn source(&self, number: u32) -> Result<Source, Unreadable> {
        let read = self.read(number).map_err(|error| Unreadable::Records(error.to_string()));
        let Opened { header, mut bytes, missing } = read?;
        let end = self.parts.shared.lock().index.segments.end_of(number).unwrap_or_default();
        let end = usize::try_from(end).unwrap_or(usize::MAX);
        if bytes.len() < end {
            return Err(Unreadable::Records(format!("it ends at {} of {end} bytes", bytes.len())));
        }
        bytes.truncate(end);
        let opened = Opened { header, bytes, missing };
        if !opened.is_readable() {
            return Err(Unreadable::Records(opened.unread()));
        }
        let mut records = Vec::new();
        for frame in opened.frames() {
            let frame = frame.map_err(|_| Unreadable::Contents)?;
            records.extend(rewrite::needed(&opened.header, frame, &self.parts.shared.lock().index));
        }
        Ok(Source::new(opened.header, &opened.bytes, records))
    }

    fn put_in_force(&self, path: &Path, sparse: Sparse, rewritten: &Rewritten) -> Result<(), SpoolError> {
        let draft = path.with_extension("seg.new");
        discard(&draft);
        let write = |file: File| file.write_all_at(&rewritten.bytes, 0).and_then(|()| file.sync_all());
        let written = new_file(&draft).and_then(write).map_err(|e| failed("cannot write", &draft, &e));
        written.inspect_err(|_| discard(&draft))?;
        {
            // The lock keeps readers from using old positions with the new file.
            let mut state = self.parts.shared.lock();
            if !state.index.has_all(sparse) {
                discard(&draft);
                return Ok(());
            }
            fs::rename(&draft, path).map_err(|e| {
                discard(&draft);
                failed("cannot name", path, &e)
            })?;
            state.rewritten(sparse, rewritten);
        }
        discard(&self.parts.layout.checkpoint(sparse.number));
        if let Some(before) = sparse.before {
            // The old file is named in the log.
            self.parts.layout.sync_names(sparse.number).inspect_err(|error| {
                self.parts.shared.lock().index.segments.hold(before);
                alert(&self.parts.metrics, error, "the log is made shorter again after the next start");
            })?;
            segment::remove(&self.parts.layout, vec![before]);
        }
        Ok(())
    }
}
