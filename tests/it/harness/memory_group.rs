//! A control group (cgroup, version 2 or 1) with a memory limit, for a server in a process of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// A control group. It is removed when this is dropped; its processes must have ended.
pub struct MemoryGroup {
    dir: PathBuf,
    is_version_2: bool,
}

/// The memory of a control group in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct GroupMemory {
    /// Memory of processes, of the kernel, and of sockets: all but the page cache, which the kernel reclaims at the limit.
    pub unreclaimable: u64,
    /// The part of `unreclaimable` that is buffers of sockets. Version 1 does not count it for the limit.
    pub sockets: u64,
}

impl MemoryGroup {
    /// Creates a group, or returns `None` where this process may not create one.
    pub fn create(limit_bytes: u64) -> Option<Self> {
        let name = format!("testshop-stress-{}", std::process::id());
        let is_version_2 = fs::read_to_string("/sys/fs/cgroup/cgroup.subtree_control")
            .is_ok_and(|controllers| controllers.contains("memory"));
        let root = if is_version_2 { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/memory" };
        let dir = Path::new(root).join(name);
        fs::create_dir(&dir).ok()?;
        let group = Self { dir, is_version_2 };
        if is_version_2 {
            group.write("memory.max", limit_bytes).ok()?;
            // not every kernel limits swap
            let _ = group.write("memory.swap.max", 0);
        } else {
            group.write("memory.limit_in_bytes", limit_bytes).ok()?;
            let _ = group.write("memory.memsw.limit_in_bytes", limit_bytes);
            // version 1 counts socket buffers apart, and only when they have a limit
            group.write("memory.kmem.tcp.limit_in_bytes", limit_bytes).ok()?;
        }
        Some(group)
    }

    fn write(&self, file: &str, number: u64) -> std::io::Result<()> {
        fs::write(self.dir.join(file), number.to_string())
    }

    fn read(&self, file: &str) -> u64 {
        fs::read_to_string(self.dir.join(file)).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    }

    /// Returns the number after `name` in a file of names and numbers.
    fn field(&self, file: &str, name: &str) -> u64 {
        let text = fs::read_to_string(self.dir.join(file)).unwrap_or_default();
        let field = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        field.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
    }

    /// Returns the command with its process in this group. The process has only the variables of `command`.
    pub fn wrap(&self, command: &Command) -> Command {
        let mut shell = Command::new("/bin/sh");
        shell.env_clear().args(["-c", "echo $$ > \"$0\" && exec \"$@\""]).arg(self.dir.join("cgroup.procs"));
        shell.arg(command.get_program()).args(command.get_args());
        shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        shell
    }

    pub fn memory(&self) -> GroupMemory {
        if self.is_version_2 {
            let [anonymous, kernel, sockets] = ["anon", "kernel", "sock"].map(|name| self.field("memory.stat", name));
            return GroupMemory { unreclaimable: anonymous + kernel + sockets, sockets };
        }
        let sockets = self.read("memory.kmem.tcp.usage_in_bytes");
        let anonymous = self.field("memory.stat", "total_rss");
        GroupMemory { unreclaimable: anonymous + self.read("memory.kmem.usage_in_bytes") + sockets, sockets }
    }

    /// Returns the number of processes that the kernel has killed because of the limit.
    pub fn kills(&self) -> u64 {
        self.field(if self.is_version_2 { "memory.events" } else { "memory.oom_control" }, "oom_kill")
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // a process that has ended leaves its group a moment later
        for _ in 0..100 {
            if fs::remove_dir(&self.dir).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}
