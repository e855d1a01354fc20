//! Limits the disk space of the trace: `[trace] max_size`, and never space that mail needs. The oldest files are
//! removed first; if that is not enough, new events are lost and counted.

use std::path::Path;

use super::files::{self, DayFile};

/// The largest share of the disk: a tenth.
const OF_DISK: u64 = 10;
/// A day's file is ended at this share of the limit, so that its older events can be removed.
const PARTS: u64 = 8;

/// The limits of the trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// `[trace] max_size`, bytes.
    pub max_size: u64,
    /// `[spool] min_free`, bytes: with less free space, mail is refused.
    pub min_free: u64,
}

/// The disk with the trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Disk {
    /// In bytes.
    pub(super) size: u64,
    /// Bytes that an unprivileged process may still write.
    pub(super) free: u64,
}

impl Default for Room {
    fn default() -> Self {
        Self { max_size: 4 << 30, min_free: 0 }
    }
}

impl Disk {
    /// The disk with this folder.
    ///
    /// # Errors
    /// The system cannot tell.
    pub(super) fn of(folder: &Path) -> std::io::Result<Self> {
        let stat = rustix::fs::statvfs(folder)?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Ok(Self { size: bytes(stat.f_blocks), free: bytes(stat.f_bavail) })
    }
}

impl Room {
    /// The most bytes of the trace on this disk.
    fn limit(&self, disk: Disk) -> u64 {
        self.max_size.min(disk.size / OF_DISK)
    }

    /// Bytes that stay free: a quarter more than the threshold at which mail is refused, so that the trace gives way
    /// first.
    fn kept_free(&self) -> u64 {
        self.min_free.saturating_add(self.min_free / 4)
    }

    /// The file for `more` bytes of a day; `None`: there is no space. Removes older files if necessary.
    pub(super) fn make(&self, folder: &Path, day: &str, more: u64) -> std::io::Result<Option<DayFile>> {
        let disk = Disk::of(folder)?;
        let known: Vec<(DayFile, u64)> =
            files::all(folder).into_iter().map(|file| (size(&file), file)).map(|(size, file)| (file, size)).collect();
        let current = self.current(folder, &known, day, self.limit(disk));
        let (gone, fits) = self.plan(disk, &known, &current, more);
        for file in gone {
            std::fs::remove_file(&file.path)?;
            tracing::info!(file = %file.path.display(), "an old trace file was removed: [trace] max_size, or the disk is nearly full");
        }
        Ok(fits.then_some(current))
    }

    /// The last part of the day, or a new one if that is large.
    fn current(&self, folder: &Path, known: &[(DayFile, u64)], day: &str, limit: u64) -> DayFile {
        match known.iter().rfind(|(file, _)| file.day == day) {
            Some((file, size)) if *size < limit / PARTS => file.clone(),
            Some((file, _)) => DayFile::new(folder, day, file.part.saturating_add(1)),
            None => DayFile::new(folder, day, 1),
        }
    }

    /// Which files to remove, and whether there is enough space then.
    fn plan<'a>(
        &self,
        disk: Disk,
        known: &'a [(DayFile, u64)],
        current: &DayFile,
        more: u64,
    ) -> (Vec<&'a DayFile>, bool) {
        let mut taken = known.iter().map(|(_, size)| size).sum::<u64>().saturating_add(more);
        let mut free = disk.free.saturating_sub(more);
        let mut gone = Vec::new();
        for (file, size) in known.iter().filter(|(file, _)| file != current) {
            if taken <= self.limit(disk) && free >= self.kept_free() {
                break;
            }
            (taken, free) = (taken - size, free.saturating_add(*size));
            gone.push(file);
        }
        (gone, taken <= self.limit(disk) && free >= self.kept_free())
    }
}

fn size(file: &DayFile) -> u64 {
    std::fs::metadata(&file.path).map_or(0, |about| about.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: Room = Room { max_size: 1000, min_free: 400 };

    /// Days 1, 2 and 3 with files of these sizes; `more` for day 3.
    fn plan(disk: Disk, sizes: [u64; 3], more: u64) -> (Vec<String>, bool) {
        let folder = Path::new("trace");
        let known: Vec<_> = (1..).map(|n| DayFile::new(folder, &format!("1970-01-0{n}"), 1)).zip(sizes).collect();
        let (gone, fits) = ROOM.plan(disk, &known, &known[2].0, more);
        (gone.into_iter().map(|file| file.day[9..].to_owned()).collect(), fits)
    }

    #[test]
    fn the_oldest_go_first_and_then_new_events_are_lost() {
        let disk = Disk { size: 100_000, free: 50_000 };
        for (sizes, more, gone, fits) in [
            ([300, 300, 300], 100, vec![], true),
            ([300, 300, 300], 101, vec!["1"], true),
            ([300, 300, 300], 401, vec!["1", "2"], true),
            ([300, 300, 900], 200, vec!["1", "2"], false),
        ] {
            let gone: Vec<String> = gone.into_iter().map(str::to_owned).collect();
            assert_eq!(plan(disk, sizes, more), (gone, fits), "{sizes:?} {more}");
        }
        let small = Disk { size: 5000, free: 3000 };
        assert_eq!(plan(small, [300, 100, 100], 100), (vec!["1".to_owned()], true), "a tenth of the disk");
    }

    #[test]
    fn it_gives_way_before_mail_does() {
        for (free, gone, fits) in [(600, 0, true), (599, 1, true), (300, 1, true), (299, 2, true)] {
            let (files, room) = plan(Disk { size: 100_000, free }, [300, 300, 100], 100);
            assert_eq!((files.len(), room), (gone, fits), "{free} bytes free");
        }
    }

    #[test]
    fn a_large_day_goes_on_in_another_file() {
        let folder = tempfile::tempdir().unwrap();
        let room = Room { max_size: 800, min_free: 0 };
        let mut parts = Vec::new();
        for _ in 0..20 {
            let file = room.make(folder.path(), "1970-01-01", 60).unwrap().unwrap();
            std::fs::OpenOptions::new().append(true).create(true).open(&file.path).unwrap();
            let before = std::fs::read(&file.path).unwrap();
            std::fs::write(&file.path, [before, vec![b'x'; 60]].concat()).unwrap();
            parts.push(file.part);
        }
        assert_eq!(parts[..6], [1, 1, 2, 2, 3, 3]);
        let left = files::all(folder.path());
        assert!(left.iter().map(size).sum::<u64>() <= 800 && left.first().is_some_and(|first| first.part > 3));
    }
}
