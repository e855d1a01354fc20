//! Disk space that is reserved for a full disk: a file that is deleted when outcomes, compaction or a start need space,
//! and for nothing else. While it is gone new mail is refused. A small second file is for a start only, since outcomes
//! may have used up the rest.
//!
//! Its bytes are random: with zeros, a file system that compresses or deduplicates would free nothing.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::layout::{discard, new_file};

/// The largest share of the disk: a small disk is for mail. It is a share of the whole, since free space says nothing
/// once the reserve is used up.
const SHARE: u64 = 16;

/// What a start needs: a segment with its header.
const LAST: u64 = 64 * 1024;

#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    size: u64,
    stands: bool,
    /// The file for a start.
    last: PathBuf,
}

impl Reserve {
    /// Creates it with `most` bytes, less on a small disk. Without space it is tried again with the next new mail.
    pub(super) fn set_up(folder: &Path, most: u64) -> Self {
        let path = folder.join("reserve");
        let there = fs::metadata(&path).map_or(0, |file| file.len());
        let all = rustix::fs::statvfs(folder).map_or(0, |disk| disk.f_blocks.saturating_mul(disk.f_frsize));
        let size = most.min(there.max(all / SHARE));
        let last = folder.join("reserve-start");
        let mut reserve = Self { path, size, stands: there == size, last };
        reserve.restore();
        reserve
    }

    /// Whether new mail may be accepted: the reserve exists, or can be created again now.
    pub(super) fn restore(&mut self) -> bool {
        // Checked first, so that it is not tried in vain with each message.
        if !self.stands && self.path.parent().is_some_and(|folder| free(folder) >= self.size) {
            self.stands = fill(&self.path, self.size).is_ok();
            if !self.stands {
                discard(&self.path);
            }
        }
        if self.stands && !self.last.exists() && fill(&self.last, LAST).is_err() {
            discard(&self.last);
        }
        self.stands
    }

    /// Deletes the file for a start; `false`: there was none.
    pub(super) fn release_last(&mut self) -> bool {
        let is_there = self.last.exists();
        discard(&self.last);
        is_there
    }

    /// Deletes the reserve; `false`: there was none.
    pub(super) fn release(&mut self) -> bool {
        if self.stands {
            tracing::warn!("the disk is full: outcomes are written from the spool's reserve, no new mail is taken");
            discard(&self.path);
        }
        std::mem::take(&mut self.stands)
    }
}

/// Writes the bytes: extending a file alone allocates nothing. Not synced: it may be gone after a power cut.
fn fill(path: &Path, size: u64) -> io::Result<()> {
    discard(path);
    let mut file: File = new_file(path)?;
    let mut bytes = vec![0; 64 * 1024];
    let mut left = size;
    while left > 0 {
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let piece = &mut bytes[..length];
        aws_lc_rs::rand::fill(piece).map_err(|_| io::Error::other("the system gives no random numbers"))?;
        file.write_all(piece)?;
        left -= length as u64;
    }
    Ok(())
}

fn free(folder: &Path) -> u64 {
    rustix::fs::statvfs(folder).map_or(0, |disk| disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_bytes_that_do_not_compress_and_is_given_up_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut reserve = Reserve::set_up(folder.path(), 300_000);
        let path = folder.path().join("reserve");
        let bytes = fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 300_000);
        let mut pieces: Vec<&[u8]> = bytes.chunks_exact(16).collect();
        pieces.sort_unstable();
        pieces.dedup();
        assert_eq!(pieces.len(), 300_000 / 16, "no 16 bytes are there twice");
        assert!(reserve.release() && !path.exists());
        assert!(!reserve.release(), "there is none");
        assert!(reserve.restore() && path.exists());
        assert!(reserve.release_last() && !reserve.release_last() && path.exists());
        assert!(reserve.restore() && reserve.release_last(), "it is there again");
    }
}
