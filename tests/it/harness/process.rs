//! The program in a child process, for tests that need signals, resource limits or the command line.

use std::{
    io::{BufRead, BufReader, Read, Seek},
    net::SocketAddr,
    os::unix::fs::MetadataExt,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
};

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};

use super::{JWT_SECRET, TestApp};

/// Returns a command that runs the program with these arguments. Its environment holds `PATH` only.
pub fn command(arguments: &[&str]) -> Command {
    let built = option_env!("CARGO_BIN_EXE_testshop").map(Into::into);
    let program = std::env::var_os("TESTSHOP_PROGRAM").or(built).expect("TESTSHOP_PROGRAM or a program built by Cargo");
    let mut command = self::program(Path::new(&program));
    command.args(arguments);
    command
}

/// Returns a command that runs another program. Its environment holds `PATH` only.
pub fn program(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", std::env::var("PATH").unwrap());
    command
}

/// Returns a `serve` command on ephemeral ports, without a log. The caller may set more variables or override these.
pub fn serve_command(database_url: &str) -> Command {
    configure_serve(command(&["serve"]), database_url)
}

/// Sets the environment of a `serve` command: ephemeral ports, without a log.
pub fn configure_serve(mut serve: Command, database_url: &str) -> Command {
    serve.env("DATABASE_URL", database_url).env("JWT_SECRET", JWT_SECRET).env("RUST_LOG", "off");
    serve.env("LISTEN_ADDR", "127.0.0.1:0").env("ADMIN_ADDR", "127.0.0.1:0");
    serve
}

/// A running server process. It is killed when this is dropped.
pub struct Process {
    child: Child,
    pub address: SocketAddr,
    pub admin_address: SocketAddr,
}

impl Process {
    /// Starts a server on the database of `app`.
    pub fn serve(app: &TestApp, flags: &[&str]) -> Self {
        Self::start(serve_command(app.setting("database-url")).args(flags))
    }

    /// Runs a `serve` command and waits until the server listens.
    pub fn start(serve: &mut Command) -> Self {
        let mut errors = tempfile::tempfile().unwrap();
        let stderr = errors.try_clone().unwrap();
        let mut child = serve.stdout(Stdio::piped()).stderr(stderr).spawn().expect("the program starts");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut address_after = |prefix: &str| -> SocketAddr {
            // `--migrate` prints its outcome before
            let line = lines.find(|line| line.as_ref().unwrap().starts_with(prefix));
            let Some(Ok(line)) = line else {
                let mut text = String::new();
                errors.rewind().and_then(|()| errors.read_to_string(&mut text)).unwrap();
                panic!("the server prints no address: {text}");
            };
            line[prefix.len()..].parse().unwrap()
        };
        let (address, admin_address) =
            (address_after("listening on http://"), address_after("health and metrics on http://"));
        Self { child, address, admin_address }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed()).unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Sets `RLIMIT_NOFILE` of the process.
    pub fn limit_descriptors(&self, limit: u64) {
        let limit = Rlimit { current: Some(limit), maximum: Some(limit) };
        prlimit(Some(self.pid()), Resource::Nofile, limit).unwrap();
    }

    /// Sends SIGKILL and waits for the end of the process.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends SIGTERM and waits for the end of the process.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait()
    }

    pub fn wait(&mut self) -> ExitStatus {
        tokio::task::block_in_place(|| self.child.wait()).unwrap()
    }

    /// Memory in KiB by its field in `/proc/PID/status`: `VmRSS` is the present, `VmHWM` the peak resident set.
    pub fn memory_kib(&self, field: &str) -> i64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Sets `VmHWM` to the present resident set.
    pub fn reset_peak_memory(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").unwrap();
    }

    /// CPU time that the process has used so far, in seconds.
    pub fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        // utime and stime, in the ticks of 10 ms that Linux reports to user space
        let ticks = |index| fields.split_whitespace().nth(index).unwrap().parse::<f64>().unwrap();
        (ticks(11) + ticks(12)) / 100.0
    }

    fn open_files(&self) -> std::fs::ReadDir {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap()
    }

    /// Number of open file descriptors.
    pub fn descriptors(&self) -> usize {
        self.open_files().count()
    }

    /// Disk space in KiB of the regular files that the process holds open, including unlinked files.
    pub fn open_file_kib(&self) -> u64 {
        let files = self.open_files().filter_map(|file| std::fs::metadata(file.ok()?.path()).ok());
        files.filter(std::fs::Metadata::is_file).map(|file| file.blocks() / 2).sum()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
