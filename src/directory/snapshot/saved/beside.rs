//! The temporary name of a file that is being written beside the current one.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// The name of a file that will replace another one; dropping it deletes the file.
#[derive(Debug)]
pub(in crate::directory::snapshot) struct Beside {
    pub(in crate::directory::snapshot) new: PathBuf,
    pub(in crate::directory::snapshot) path: PathBuf,
}

impl Beside {
    /// Unique within the process: after a reload two tasks may write.
    pub(in crate::directory::snapshot) fn of(path: &Path) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let extension = path.extension().unwrap_or_default().display();
        Self {
            new: path.with_extension(format!("{extension}-{}-{number}.new", std::process::id())),
            path: path.to_owned(),
        }
    }

    /// Removes what another process left.
    pub(in crate::directory::snapshot) fn clear(path: &Path) {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
            return;
        };
        let (others, ours) = (format!("{name}-"), format!("{name}-{}-", std::process::id()));
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if name.starts_with(&others) && name.ends_with(".new") && !name.starts_with(&ours) {
                // A failure is harmless.
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // If it was installed, it is gone.
        let _ = fs::remove_file(&self.new);
    }
}
