//! The memory that the process may use: the limit of its control group (cgroup, version 2 or 1) or of one of its
//! ancestors, otherwise the physical memory.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

/// The origin of a [`MemoryLimit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LimitSource {
    /// `MEMORY_LIMIT`.
    Setting,
    ControlGroup,
    PhysicalMemory,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MemoryLimit {
    pub(crate) bytes: u64,
    pub(crate) source: LimitSource,
}

impl fmt::Display for LimitSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Setting => "MEMORY_LIMIT",
            Self::ControlGroup => "the limit of the control group",
            Self::PhysicalMemory => "the physical memory",
        })
    }
}

impl MemoryLimit {
    /// Returns the limit of this process, or `None` if the system does not tell.
    pub(super) fn detect() -> Option<Self> {
        Self::detect_below(Path::new("/"))
    }

    /// Reads `/proc` and `/sys` below `root`.
    fn detect_below(root: &Path) -> Option<Self> {
        let physical = physical_memory(&fs::read_to_string(root.join("proc/meminfo")).ok()?);
        let physical = physical.map(|bytes| Self { bytes, source: LimitSource::PhysicalMemory });
        // without a limit, version 1 reports a number that exceeds every memory
        let of_group = control_group_limit(root).filter(|bytes| physical.is_none_or(|limit| *bytes < limit.bytes));
        of_group.map(|bytes| Self { bytes, source: LimitSource::ControlGroup }).or(physical)
    }
}

/// Returns the bytes of `MemTotal`.
fn physical_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Returns the lowest limit of the control groups that contain this process.
fn control_group_limit(root: &Path) -> Option<u64> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let files = groups.lines().flat_map(|line| {
        // HIERARCHY:CONTROLLERS:PATH; version 2 has hierarchy 0 and no list of controllers
        let mut columns = line.splitn(3, ':').skip(1);
        let (controllers, path) = (columns.next().unwrap_or_default(), columns.next().unwrap_or_default());
        match controllers {
            "" => limit_files(&root.join("sys/fs/cgroup"), path, "memory.max"),
            _ if controllers.split(',').any(|controller| controller == "memory") => {
                limit_files(&root.join("sys/fs/cgroup/memory"), path, "memory.limit_in_bytes")
            }
            _ => Vec::new(),
        }
    });
    // a group without a limit has the text `max`; in a container, groups outside of it are not visible
    files.filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok()).min()
}

/// Returns the file `name` of the group `path` and of all its ancestors.
fn limit_files(mount: &Path, path: &str, name: &str) -> Vec<PathBuf> {
    let ancestors = Path::new(path.trim_start_matches('/')).ancestors();
    ancestors.map(|group| mount.join(group).join(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(files: &[(&str, &str)]) -> Option<MemoryLimit> {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        MemoryLimit::detect_below(root.path())
    }

    const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal:        4194304 kB\nMemFree:         1 kB\n");
    const V2: (&str, &str) = ("proc/self/cgroup", "0::/shop/api\n");
    const V1: (&str, &str) = ("proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/docker/1\n0::/\n");

    fn control_group(bytes: u64) -> MemoryLimit {
        MemoryLimit { bytes, source: LimitSource::ControlGroup }
    }

    #[test]
    fn lowest_limit_of_the_groups_counts() {
        let own = ("sys/fs/cgroup/shop/api/memory.max", "max\n");
        assert_eq!(limit(&[MEMINFO, V2, own, ("sys/fs/cgroup/shop/memory.max", "1000\n")]), Some(control_group(1000)));
        let own = ("sys/fs/cgroup/shop/api/memory.max", "900\n");
        assert_eq!(limit(&[MEMINFO, V2, own, ("sys/fs/cgroup/shop/memory.max", "1000\n")]), Some(control_group(900)));
        // a container sees its own group as the root
        assert_eq!(
            limit(&[MEMINFO, ("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/memory.max", "800\n")]),
            Some(control_group(800))
        );
        let group = ("sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes", "700\n");
        assert_eq!(limit(&[MEMINFO, V1, group]), Some(control_group(700)));
        let visible = ("sys/fs/cgroup/memory/memory.limit_in_bytes", "600\n");
        assert_eq!(limit(&[MEMINFO, V1, visible]), Some(control_group(600)));
    }

    #[test]
    fn without_a_group_limit_the_physical_memory_counts() {
        let physical = Some(MemoryLimit { bytes: 4 << 30, source: LimitSource::PhysicalMemory });
        let unlimited = ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(limit(&[MEMINFO, V1, unlimited]), physical);
        assert_eq!(limit(&[MEMINFO, V2, ("sys/fs/cgroup/shop/memory.max", "max\n")]), physical);
        assert_eq!(limit(&[MEMINFO]), physical);
        assert_eq!(limit(&[]), None);
    }
}
