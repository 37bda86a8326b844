//! PgBouncer between servers and PostgreSQL, with the configuration of `deploy`.

use std::{
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
};

use super::{ReservedPort, services::pgbouncer, wait_until};

/// A PgBouncer process in transaction mode. It is killed when this is dropped.
pub struct Pooler {
    program: String,
    child: Child,
    /// Reserved across restarts of the process.
    port: ReservedPort,
    directory: tempfile::TempDir,
}

impl Pooler {
    /// Starts PgBouncer in front of PostgreSQL at this address, for the role with this URL. Returns `None` when there is no
    /// PgBouncer on this machine that supports prepared statements.
    pub async fn start(server: SocketAddr, url: &str) -> Option<Self> {
        let (program, port, directory) = (pgbouncer()?, ReservedPort::new(), tempfile::tempdir().unwrap());
        let users = directory.path().join("users");
        let deployed = include_str!("../../../deploy/pgbouncer/pgbouncer.ini");
        let config = deployed.lines().map(|line| match line.split_once(" = ").map(|(name, _)| name) {
            Some("testshop") => format!("* = host={} port={}\n", server.ip(), server.port()),
            Some("listen_addr") => "listen_addr = 127.0.0.1\n".to_owned(),
            Some("listen_port") => format!("listen_port = {}\n", port.port()),
            Some("auth_file") => format!("auth_file = {}\n", users.display()),
            _ => format!("{line}\n"),
        });
        std::fs::write(directory.path().join("pgbouncer.ini"), config.collect::<String>()).unwrap();
        let (user, password) =
            url.split_once('@').unwrap().0.trim_start_matches("postgres://").split_once(':').unwrap();
        std::fs::write(&users, format!("\"{user}\" \"{password}\"\n")).unwrap();
        // PgBouncer runs as another user if this is root
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let child = spawn(&program, directory.path());
        let pooler = Self { program, child, port, directory };
        pooler.wait_until_listening().await;
        Some(pooler)
    }

    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Sends SIGKILL and waits for the end of the process.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts the process after [`Self::kill`].
    pub async fn restart(&mut self) {
        self.child = spawn(&self.program, self.directory.path());
        self.wait_until_listening().await;
    }

    async fn wait_until_listening(&self) {
        let address = self.address();
        wait_until("PgBouncer listens", async || tokio::net::TcpStream::connect(address).await.is_ok()).await;
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(program: &str, directory: &Path) -> Child {
    let mut command = Command::new(program);
    if rustix::process::geteuid().is_root() {
        let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let has_postgres = users.lines().any(|line| line.starts_with("postgres:"));
        command.args(["-u", if has_postgres { "postgres" } else { "nobody" }]);
    }
    command.arg(directory.join("pgbouncer.ini")).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("PgBouncer starts")
}
