//! Measures the machine: free space and inodes, our memory and its limit.

use std::path::Path;
use std::{fs, io};

use super::proc;
use super::weigh::Inodes;

/// What a file system has left for an unprivileged process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Disk {
    pub(super) free: u64,
    /// `None`: it has no fixed number of inodes (btrfs).
    pub(super) inodes: Option<Inodes>,
}

/// Measures the file system of a path.
///
/// # Errors
/// The system's.
pub(super) fn disk(path: &Path) -> io::Result<Disk> {
    let stat = rustix::fs::statvfs(path)?;
    let inodes = Inodes { free: stat.f_favail, total: stat.f_files };
    Ok(Disk { free: stat.f_bavail.saturating_mul(stat.f_frsize), inodes: (inodes.total > 0).then_some(inodes) })
}

/// Octets of our memory without mapped files.
pub(super) fn anonymous() -> Option<u64> {
    proc::anonymous(&fs::read_to_string("/proc/self/status").ok()?)
}

/// The limit of our memory in octets: the lowest of our control groups', the machine's and the configured one. If
/// `ProcSubset=pid` hides `/proc/meminfo`, a system call gives the machine's.
pub(super) fn limit(configured: Option<u64>) -> u64 {
    let files = proc::limits(&fs::read_to_string("/proc/self/cgroup").unwrap_or_default());
    let groups = files.iter().filter_map(|file| proc::limit(&fs::read_to_string(file).ok()?));
    let meminfo = fs::read_to_string("/proc/meminfo").ok().and_then(|meminfo| proc::total(&meminfo));
    let machine = meminfo.unwrap_or_else(|| {
        let info = rustix::system::sysinfo();
        info.totalram.saturating_mul(info.mem_unit.into())
    });
    // A group with a limit of zero is not the one that we run in.
    groups.filter(|limit| *limit > 0).chain(configured).fold(machine, u64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_can_be_looked_at() {
        assert!(disk(&std::env::temp_dir()).unwrap().free > 0);
        let (anonymous, limit) = (anonymous().unwrap(), limit(None));
        assert!(anonymous > 0 && anonymous < limit, "{anonymous} of {limit}");
        assert_eq!(super::limit(Some(1000)), 1000);
        assert_eq!(super::limit(Some(u64::MAX)), limit, "nobody has more than there is");
    }
}
