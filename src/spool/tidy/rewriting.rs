//! Gives back the space of complete segments of which little is needed, wherever in the log they are.
//!
//! The new file is written beside the old one, synced, and takes its name; both say the same, so that it does not matter
//! which one a power cut leaves. Whoever holds the old one open reads it to its end. Where it says what another segment
//! said as well, that one is removed only once the name is durable; if it cannot be made so, both stay.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use super::super::index::Sparse;
use super::super::layout::{alert, discard, failed, new_file};
use super::super::rewrite::{self, Rewritten, Source};
use super::super::{SpoolError, segment};
use super::{AGAIN, Opened, Tidy};

/// How many segments are rewritten at once: there is other work, and a stop waits for this.
const AT_ONCE: usize = 8;

impl Tidy {
    /// Rewrites some of the segments that are worth it. What cannot be read or written stays.
    pub(super) fn rewrite(&mut self) {
        for _ in 0..AT_ONCE {
            let sparse = self.shared.lock().index.segments.to_rewrite(&self.sizes);
            let Some(sparse) = sparse.filter(|_| self.not_before <= Instant::now()) else { return };
            match self.rewrite_one(sparse) {
                Ok(true) => {}
                Ok(false) => self.shared.lock().index.segments.is_dense(sparse.number),
                Err(error) => {
                    tracing::warn!("{error}; segment {} gives its space back later", sparse.number);
                    self.not_before = Instant::now() + AGAIN;
                }
            }
        }
    }

    /// Whether it was worth it.
    fn rewrite_one(&self, Sparse { number, before }: Sparse) -> Result<bool, SpoolError> {
        let Some(source) = self.source(number) else { return Ok(false) };
        let before = match before.filter(|_| self.layout.is_sure(number)) {
            Some(before) => self.source(before).filter(|before| rewrite::is_run(&before.header, &source.header)),
            None => None,
        };
        let sparse = Sparse { number, before: before.as_ref().map(|before| before.header.number) };
        let most = before.iter().map(|before| before.bytes.len()).sum::<usize>() + source.bytes.len() / 2;
        let sources: Vec<Source> = before.into_iter().chain([source]).collect();
        let path = self.layout.segment(number);
        let written = rewrite::write(sources).map_err(|e| SpoolError::Io(format!("{}: {e}", path.display())))?;
        let Some(rewritten) = written.filter(|rewritten| rewritten.bytes.len() < most) else { return Ok(false) };
        self.put_in_force(&path, sparse, &rewritten)?;
        Ok(true)
    }

    /// What is needed of a segment; `None`: not all of it can be read. While nothing in it is first, nobody waits for it.
    fn source(&self, number: u32) -> Option<Source> {
        let Opened { header, mut bytes, missing } = self.read(number).ok()?;
        let end = usize::try_from(self.shared.lock().index.segments.end_of(number)?).unwrap_or(usize::MAX);
        if bytes.len() < end || !missing.is_empty() {
            return None;
        }
        bytes.truncate(end);
        let opened = Opened { header, bytes, missing };
        let mut records = Vec::new();
        for frame in opened.frames() {
            records.extend(rewrite::needed(&opened.header, frame.ok()?, &self.shared.lock().index));
        }
        Some(Source { header: opened.header, bytes: opened.bytes, records })
    }

    fn put_in_force(&self, path: &Path, sparse: Sparse, rewritten: &Rewritten) -> Result<(), SpoolError> {
        let draft = path.with_extension("seg.new");
        discard(&draft);
        let write = |file: File| file.write_all_at(&rewritten.bytes, 0).and_then(|()| file.sync_all());
        let written = new_file(&draft).and_then(write).map_err(|e| failed("cannot write", &draft, &e));
        written.inspect_err(|_| discard(&draft))?;
        {
            // Nobody opens the one with the places of the other.
            let mut state = self.shared.lock();
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
        discard(&self.layout.checkpoint(sparse.number));
        if let Some(before) = sparse.before {
            // The old file names it.
            self.layout.sync_names(sparse.number).inspect_err(|error| {
                self.shared.lock().index.segments.hold(before);
                alert(&self.fares.1, error, "the log is made shorter again after the next start");
            })?;
            segment::remove(&self.layout, vec![before]);
        }
        Ok(())
    }
}
