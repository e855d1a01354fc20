//! Reading a segment whole, around what the disk cannot give: a start is not to fail for one bad sector. `recover` and
//! `compaction` call it; what reads as zeros is told from records by their checksums.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

/// How often a start reads what the disk does not give, and the pauses between.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_secs(1);

/// What is read again by itself where a longer read failed.
const BLOCK: usize = 4096;
/// What is read at once.
const PIECE: usize = 1 << 20;

/// The same, tried again for some seconds while the disk does not give all of it: it may have a bad moment.
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

/// A segment's bytes, and which of them the disk did not give.
pub(super) fn whole(path: &Path) -> io::Result<(Vec<u8>, Vec<Range<usize>>)> {
    let file = File::open(path)?;
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    Ok(around(length, |to, at| file.read_exact_at(to, at as u64)))
}

/// Zeros where reading fails.
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
