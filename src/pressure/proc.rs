//! Parses Linux' files about our memory and its limits: `/proc` and control groups.

use std::path::{Component, Path, PathBuf};

/// The mount point of control groups, of both versions.
const GROUPS: &str = "/sys/fs/cgroup";

/// Octets of our memory without mapped files, by `/proc/self/status`. Swapped memory is included: otherwise a machine
/// that swaps would never be short of memory.
#[must_use]
pub fn anonymous(status: &str) -> Option<u64> {
    Some(kibibytes(status, "RssAnon:")?.saturating_add(kibibytes(status, "VmSwap:").unwrap_or_default()))
}

/// Octets of the machine's memory, by `/proc/meminfo`.
#[must_use]
pub fn total(meminfo: &str) -> Option<u64> {
    kibibytes(meminfo, "MemTotal:")
}

/// The files with the limits of our control group and its parents, of which the lowest applies. By `/proc/self/cgroup`,
/// whose lines are number, controllers and path (cgroups(7)); version 2 has the number 0 and no controllers. In a
/// container the path may differ from the visible one: files that do not exist are ignored, and the topmost visible
/// group is always included.
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
        // A group outside the visible part of the tree is shown as `/../name`.
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

/// The limit of a control group in octets; `max`: none. Version 1 has a huge number instead.
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
