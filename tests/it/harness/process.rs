//! A server in a process of its own: what only a process can suffer.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    os::unix::fs::MetadataExt,
    process::{Child, Command, ExitStatus, Stdio},
};

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};

use super::{JWT_SECRET, Shop};

/// The program with these arguments, and nothing of this environment but where programs are.
pub fn command(arguments: &[&str]) -> Command {
    let built = option_env!("CARGO_BIN_EXE_testshop").map(Into::into);
    let mut command = Command::new(std::env::var_os("TESTSHOP_PROGRAM").or(built).expect("a program"));
    command.args(arguments).env_clear().env("PATH", std::env::var("PATH").unwrap());
    command
}

/// The server on a database, listening where there is room, without a log. More may be set, and this be changed.
pub fn serving(database_url: &str) -> Command {
    let mut serve = command(&["serve"]);
    serve.env("DATABASE_URL", database_url).env("JWT_SECRET", JWT_SECRET).env("RUST_LOG", "off");
    serve.env("LISTEN_ADDR", "127.0.0.1:0").env("ADMIN_ADDR", "127.0.0.1:0");
    serve
}

/// Ended with the test.
pub struct Process {
    child: Child,
    pub address: SocketAddr,
    pub admin_address: SocketAddr,
}

impl Process {
    /// Beside a shop, on its database.
    pub fn serve(shop: &Shop, flags: &[&str]) -> Self {
        Self::start(serving(shop.setting("database-url")).args(flags))
    }

    /// Runs a command that serves, and waits until it listens.
    pub fn start(serve: &mut Command) -> Self {
        let mut child = serve.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the program runs");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut after = |words: &str| -> SocketAddr {
            let line = lines.next().expect("it says where it listens").unwrap();
            line.strip_prefix(words).unwrap_or_else(|| panic!("{line}")).parse().unwrap()
        };
        let (address, admin_address) = (after("listening on http://"), after("health and metrics on http://"));
        Self { child, address, admin_address }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed()).unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// It may open no more than so many from now on.
    pub fn limit_descriptors(&self, count: u64) {
        let limit = Rlimit { current: Some(count), maximum: Some(count) };
        prlimit(Some(self.pid()), Resource::Nofile, limit).unwrap();
    }

    /// Ends it without a word.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to stop, and waits until it has.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.ended()
    }

    /// Waits until it has ended by itself.
    pub fn ended(&mut self) -> ExitStatus {
        tokio::task::block_in_place(|| self.child.wait()).unwrap()
    }

    /// Memory in KiB: `VmRSS` now, `VmHWM` at its peak.
    pub fn memory(&self, what: &str) -> i64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(what)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    fn open(&self) -> std::fs::ReadDir {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap()
    }

    /// Descriptors that are open.
    pub fn descriptors(&self) -> usize {
        self.open().count()
    }

    /// KiB on disk of the files that it holds open, named or not.
    pub fn disk(&self) -> u64 {
        let files = self.open().filter_map(|file| std::fs::metadata(file.ok()?.path()).ok());
        files.filter(std::fs::Metadata::is_file).map(|file| file.blocks() / 2).sum()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
