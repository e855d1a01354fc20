//! What Linux says of our memory, and of how much we may have: the files of `/proc` and of control groups, read.

use std::path::{Component, Path, PathBuf};

/// Where control groups are, of both versions.
const GROUPS: &str = "/sys/fs/cgroup";

/// Octets that we hold and that are in no file, by `/proc/self/status`. What was swapped out is ours, too: else a machine
/// that swaps would never be short of memory.
#[must_use]
pub fn anonymous(status: &str) -> Option<u64> {
    Some(kibibytes(status, "RssAnon:")?.saturating_add(kibibytes(status, "VmSwap:").unwrap_or_default()))
}

/// Octets that the machine has, by `/proc/meminfo`.
#[must_use]
pub fn total(meminfo: &str) -> Option<u64> {
    kibibytes(meminfo, "MemTotal:")
}

/// The files that may say how much our control group may have, and those above it: the least of them counts. By
/// `/proc/self/cgroup`, whose lines are number, controllers and path (cgroups(7)); version 2 has the number 0 and no
/// controllers. In a container the path may be another one than we see: what is not there says nothing, and the topmost
/// group that we see is always among them.
#[must_use]
pub fn limits(cgroup: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in cgroup.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(number), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let (root, file) = match number {
            "0" if controllers.is_empty() => (PathBuf::from(GROUPS), "memory.max"),
            _ if controllers.split(',').any(|controller| controller == "memory") => {
                (Path::new(GROUPS).join("memory"), "memory.limit_in_bytes")
            }
            _ => continue,
        };
        // A group that is not below what we see of the tree is shown as `/../name`.
        let below: Option<PathBuf> = Path::new(path)
            .components()
            .filter(|component| *component != Component::RootDir)
            .map(|component| matches!(component, Component::Normal(_)).then_some(component))
            .collect();
        let below = below.unwrap_or_default();
        files.extend(below.ancestors().map(|group| root.join(group).join(file)));
    }
    files
}

/// Octets that a control group may have; `max`: it has no limit. Version 1 says a number that no machine has instead.
#[must_use]
pub fn limit(file: &str) -> Option<u64> {
    file.trim().parse().ok()
}

fn kibibytes(file: &str, name: &str) -> Option<u64> {
    let value = file.lines().find_map(|line| line.strip_prefix(name))?;
    value.trim().strip_suffix("kB")?.trim_end().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_we_hold() {
        let status = "Name:\tfingerpost\nVmHWM:\t   83300 kB\nVmRSS:\t   52436 kB\nRssAnon:\t   22460 kB\nRssFile:\t   29976 kB\n";
        for (status, octets) in [
            (status.to_owned(), Some(22_460 << 10)),
            (format!("{status}VmSwap:\t     100 kB\n"), Some(22_560 << 10)),
            (format!("{status}VmSwap:\t     0 kB\n"), Some(22_460 << 10)),
            ("VmRSS:\t 52436 kB\nVmSwap:\t 1 kB\n".to_owned(), None),
            ("RssAnon:\t many kB\n".to_owned(), None),
            ("RssAnon:\t 99999999999999999 kB\n".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(anonymous(&status), octets, "{status}");
        }
    }

    #[test]
    fn what_the_machine_has() {
        for (meminfo, octets) in [
            ("MemTotal:       24684192 kB\nMemFree: 1 kB\n", Some(24_684_192 << 10)),
            ("MemFree: 1 kB\nMemTotal: 8 kB", Some(8 << 10)),
            ("MemTotal: 8\n", None),
            ("", None),
        ] {
            assert_eq!(total(meminfo), octets, "{meminfo}");
        }
    }

    #[test]
    fn where_limits_are() {
        let nested = [
            "/sys/fs/cgroup/system.slice/fingerpost.service/memory.max",
            "/sys/fs/cgroup/system.slice/memory.max",
            "/sys/fs/cgroup/memory.max",
        ];
        let first = [
            "/sys/fs/cgroup/memory/docker/0123/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/docker/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        ];
        let hybrid = [&first[..], &["/sys/fs/cgroup/memory.max"]].concat();
        for (cgroup, files) in [
            ("0::/system.slice/fingerpost.service\n", &nested[..]),
            ("0::/\n", &nested[2..]),
            ("0::/../other\n", &nested[2..]),
            ("9:name=systemd:/\n4:memory:/docker/0123\n2:cpu,cpuacct:/x\n0::/\n", &hybrid[..]),
            ("4:hugetlb,memory:/docker/0123", &first[..]),
            ("4:memoryless:/docker\n", &[]),
            ("0::/with:colon", &["/sys/fs/cgroup/with:colon/memory.max", "/sys/fs/cgroup/memory.max"]),
            ("nonsense\n\n1:\n", &[]),
            ("", &[]),
        ] {
            assert_eq!(limits(cgroup), files.iter().map(PathBuf::from).collect::<Vec<_>>(), "{cgroup}");
        }
    }

    #[test]
    fn what_limits_say() {
        for (file, octets) in [
            ("419430400\n", Some(419_430_400)),
            ("9223372036854771712\n", Some(9_223_372_036_854_771_712)),
            ("0", Some(0)),
            ("max\n", None),
            ("", None),
            ("-1\n", None),
        ] {
            assert_eq!(limit(file), octets, "{file}");
        }
    }
}
