//! Reads a whole segment, skipping sectors that the disk cannot read: a start must not fail for one bad sector.
//! `recover` and `compaction` call it; checksums tell the zeros in their place from records.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

/// How often a start tries to read, and the pauses.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_secs(1);

/// The unit in which a failed read is repeated.
const BLOCK: usize = 4096;
/// The size of one read.
const PIECE: usize = 1 << 20;

/// Repeats reading for some seconds until it is complete: a disk may fail temporarily.
pub(super) fn patiently<T>(mut read: impl FnMut() -> io::Result<T>, is_all: impl Fn(&T) -> bool) -> io::Result<T> {
    for _ in 1..TRIES {
        match read() {
            Ok(all) if is_all(&all) => return Ok(all),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(error),
            Ok(_) | Err(_) => std::thread::sleep(PAUSE),
        }
    }
    read()
}

/// A segment's bytes, and the ranges that the disk could not read.
pub(super) fn whole(path: &Path) -> io::Result<(Vec<u8>, Vec<Range<usize>>)> {
    let file = File::open(path)?;
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    Ok(around(length, |to, at| file.read_exact_at(to, at as u64)))
}

/// Reads around failures; unreadable blocks are zeros.
fn around(length: usize, read: impl Fn(&mut [u8], usize) -> io::Result<()>) -> (Vec<u8>, Vec<Range<usize>>) {
    let (mut bytes, mut missing) = (vec![0; length], Vec::new());
    for (number, piece) in bytes.chunks_mut(PIECE).enumerate() {
        let from = number * PIECE;
        if read(piece, from).is_ok() {
            continue;
        }
        for (number, block) in piece.chunks_mut(BLOCK).enumerate() {
            let from = from + number * BLOCK;
            if read(block, from).is_err() {
                block.fill(0);
                missing.push(from..from + block.len());
            }
        }
    }
    (bytes, missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_block_costs_itself() {
        let disk: Vec<u8> = (0..PIECE * 2 + 5000).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let bad = PIECE + 3 * BLOCK..PIECE + 4 * BLOCK;
        let read = |to: &mut [u8], at: usize| {
            let range = at..at + to.len();
            if range.start < bad.end && bad.start < range.end {
                to.fill(7);
                return Err(io::Error::other("a bad sector"));
            }
            to.copy_from_slice(&disk[range]);
            Ok(())
        };
        let (bytes, missing) = around(disk.len(), read);
        assert_eq!(missing, std::slice::from_ref(&bad));
        assert!(bytes[..bad.start] == disk[..bad.start] && bytes[bad.end..] == disk[bad.end..]);
        assert!(bytes[bad].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_disk_that_has_a_bad_moment_is_asked_again() {
        let mut answers = vec![Ok(7), Err(io::Error::other("EIO"))];
        let read = || answers.pop().unwrap_or(Ok(9));
        assert_eq!(patiently(read, |all| *all == 9).unwrap(), 9);
        let gone = || Err::<(), _>(io::ErrorKind::NotFound.into());
        assert_eq!(patiently(gone, |()| true).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_file_is_read_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("segment");
        std::fs::write(&path, b"as it is").unwrap();
        assert_eq!(whole(&path).unwrap(), (b"as it is".to_vec(), vec![]));
    }
}
