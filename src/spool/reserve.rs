//! Space that is kept for a full disk: a file that is given up when outcomes or compaction find no room. While it is
//! gone no new mail is taken.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::layout::{discard, new_file};

/// At most this share of what is free goes into it: a small disk is for mail.
const SHARE: u64 = 16;

/// The reserve.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    size: u64,
    stands: bool,
}

impl Reserve {
    /// Sets it up: `most` bytes, less on a small disk. Where there is no room it is tried again with the next mail.
    pub(super) fn set_up(folder: &Path, most: u64) -> Self {
        let path = folder.join("reserve");
        let there = fs::metadata(&path).map_or(0, |file| file.len());
        let free = rustix::fs::statvfs(folder).map_or(0, |disk| disk.f_bavail.saturating_mul(disk.f_frsize));
        let size = most.min(there.max(free / SHARE));
        let mut reserve = Self { path, size, stands: there == size };
        reserve.restore();
        reserve
    }

    /// Whether there is room for new mail: the reserve stands, or can be set up again now.
    pub(super) fn restore(&mut self) -> bool {
        if !self.stands {
            self.stands = self.fill().is_ok();
            if !self.stands {
                discard(&self.path);
            }
        }
        self.stands
    }

    /// Gives the space up. Whether there was any.
    pub(super) fn release(&mut self) -> bool {
        if self.stands {
            tracing::warn!("the disk is full: outcomes are written from the spool's reserve, no new mail is taken");
            discard(&self.path);
        }
        std::mem::take(&mut self.stands)
    }

    /// Written, not only made longer: that alone takes no space. Not synced: it may be gone after a power cut.
    fn fill(&self) -> io::Result<()> {
        discard(&self.path);
        let mut file: File = new_file(&self.path)?;
        let zeros = [0; 64 * 1024];
        let mut left = self.size;
        while left > 0 {
            let piece = left.min(zeros.len() as u64);
            file.write_all(&zeros[..usize::try_from(piece).unwrap_or(zeros.len())])?;
            left -= piece;
        }
        Ok(())
    }
}
