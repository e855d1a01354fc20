//! A small file system of its own, which can be full and have room again. Needs root.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// How often a file system that grows meanwhile is measured anew.
const TRIES: usize = 20;

/// A file system in memory; it is gone with what is in it when this is dropped.
pub struct Volume {
    folder: TempDir,
    /// MiB.
    size: u64,
}

impl Volume {
    /// Mounts one of so many MiB, whose owner is this user.
    ///
    /// # Panics
    /// Where nobody may mount it: then the test cannot tell anything.
    pub fn mount(size: u64, owner: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("fp-volume-").tempdir_in("/tmp").expect("/tmp is writable");
        let options = format!("size={size}m,mode=700,uid={owner},gid={owner}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none"]).arg(folder.path()).output();
        let why = match mounted {
            Ok(output) if output.status.success() => return Self { folder, size },
            Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) => error.to_string(),
        };
        panic!(
            "a file system of {size} MiB cannot be mounted, without which this test tells nothing: run it as root ({why})"
        );
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A path on it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// From now on it has no room for anything more.
    pub fn fill(&self) {
        // It cannot be made smaller than it is, and it may grow meanwhile.
        let is_full = (0..TRIES).any(|_| {
            let stat = rustix::fs::statvfs(self.path()).expect("it is mounted");
            self.resize(&format!("{}", (stat.f_blocks - stat.f_bfree) * stat.f_frsize))
        });
        assert!(is_full, "{}: its size cannot be changed", self.path().display());
    }

    /// It has room again.
    pub fn make_room(&self) {
        assert!(self.resize(&format!("{}m", self.size)), "{}: its size cannot be changed", self.path().display());
    }

    fn resize(&self, size: &str) -> bool {
        let options = format!("remount,size={size}");
        let mounted = Command::new("mount").args(["-o", &options]).arg(self.path()).output();
        mounted.is_ok_and(|output| output.status.success())
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // What stands on it may end a moment later.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}
