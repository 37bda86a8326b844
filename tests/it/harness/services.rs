//! Servers of a test's own, for what the shared ones must not suffer: stops, fail-overs, certificates.

use std::process::Command;

use super::needed;

/// An instance of `scripts/services.py`; it goes when this is dropped.
pub struct Services {
    name: String,
    /// The URL of PostgreSQL's owner.
    pub database_url: String,
    pub redis_url: String,
}

/// Runs `scripts/services.py`, which then knows nothing of the servers that all tests share.
fn services(arguments: &[&str]) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/services.py");
    let mut command = Command::new("python3");
    command.arg(script).args(arguments).env_remove("DATABASE_URL").env_remove("REDIS_URL");
    // the shop of the test goes on meanwhile: such a test runs on several threads
    let done = tokio::task::block_in_place(|| command.output()).unwrap();
    assert!(done.status.success(), "services.py {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

fn setting(text: &str, name: &str) -> String {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    value.unwrap_or_else(|| panic!("{name} is not in {text}")).to_owned()
}

impl Services {
    /// A fresh PostgreSQL and a fresh Redis.
    pub fn up(purpose: &str) -> Self {
        let name = format!("{}-{purpose}", needed("SERVICES_INSTANCE"));
        let told = services(&["up", &name]);
        Self { name, database_url: setting(&told, "DATABASE_URL"), redis_url: setting(&told, "REDIS_URL") }
    }

    /// A fresh Redis alone.
    pub fn redis(purpose: &str) -> Self {
        let name = format!("{}-{purpose}", needed("SERVICES_INSTANCE"));
        let told = services(&["up", &name, "redis"]);
        Self { name, database_url: String::new(), redis_url: setting(&told, "REDIS_URL") }
    }

    /// Redis ends without a word.
    pub fn kill_redis(&self) {
        services(&["down", &self.name, "redis", "--immediate"]);
    }

    /// A streaming replica of its PostgreSQL.
    pub fn replica(&self) -> Self {
        let told = services(&["replica", &self.name]);
        Self {
            name: format!("{}-replica", self.name),
            database_url: setting(&told, "DATABASE_URL"),
            redis_url: setting(&told, "REDIS_URL"),
        }
    }

    /// PostgreSQL ends as in a crash: it tells its clients, and nothing is tidied up.
    pub fn crash_database(&self) {
        services(&["down", &self.name, "postgres", "--immediate"]);
    }

    /// Every process of PostgreSQL ends by SIGKILL.
    pub fn kill_database(&self) {
        services(&["down", &self.name, "postgres", "--kill"]);
    }

    /// What has ended is started again.
    pub fn start(&self) {
        services(&["up", &self.name]);
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        services(&["remove", &self.name]);
    }
}
