//! PostgreSQL and Redis servers for one test, which may stop, crash or reconfigure them.

use std::process::Command;

use super::required_env;

/// Returns the path of a PgBouncer with prepared statements in transaction mode, or `None` if this machine has none.
pub fn pgbouncer() -> Option<String> {
    let path = services(&["pooler", "--installed"]);
    Some(path.trim().to_owned()).filter(|path| !path.is_empty())
}

/// An instance of `scripts/services`. It is removed when this is dropped.
pub struct Services {
    name: String,
    /// For the owner role; empty in an instance without PostgreSQL.
    pub database_url: String,
    pub redis_url: String,
}

/// Runs `scripts/services` without the URLs of the shared servers, and returns its output.
fn services(arguments: &[&str]) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/services");
    let mut command = Command::new("python3");
    command.arg(script).args(arguments).env_remove("DATABASE_URL").env_remove("REDIS_URL");
    // the server under test goes on meanwhile, so tests that use this need the multi-threaded runtime
    let output = tokio::task::block_in_place(|| command.output()).unwrap();
    assert!(output.status.success(), "scripts/services {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn variable(variables: &str, name: &str) -> String {
    let value = variables.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    value.unwrap_or_else(|| panic!("{name} is not in {variables}")).to_owned()
}

impl Services {
    /// Starts a new PostgreSQL and a new Redis. The purpose is a part of their name and unique among the tests.
    pub fn up(purpose: &str) -> Self {
        let name = format!("{}-{purpose}", required_env("SERVICES_INSTANCE"));
        let variables = services(&["up", &name]);
        Self { name, database_url: variable(&variables, "DATABASE_URL"), redis_url: variable(&variables, "REDIS_URL") }
    }

    /// Starts a new Redis without PostgreSQL.
    pub fn redis(purpose: &str) -> Self {
        let name = format!("{}-{purpose}", required_env("SERVICES_INSTANCE"));
        let variables = services(&["up", &name, "redis"]);
        Self { name, database_url: String::new(), redis_url: variable(&variables, "REDIS_URL") }
    }

    /// Names servers that [`Services::start_standby`] starts.
    pub fn named(purpose: &str) -> Self {
        let name = format!("{}-{purpose}", required_env("SERVICES_INSTANCE"));
        Self { name, database_url: String::new(), redis_url: String::new() }
    }

    /// Ends Redis by SIGKILL.
    pub fn kill_redis(&self) {
        services(&["down", &self.name, "redis", "--immediate"]);
    }

    /// Starts a streaming replica of this PostgreSQL.
    pub fn replica(&self) -> Self {
        let variables = services(&["replica", &self.name]);
        Self {
            name: format!("{}-replica", self.name),
            database_url: variable(&variables, "DATABASE_URL"),
            redis_url: variable(&variables, "REDIS_URL"),
        }
    }

    /// Makes the PostgreSQL of `standby` a streaming replica of this one, which is restarted. What it contained is lost.
    pub fn start_standby(&self, standby: &mut Self) {
        let variables = services(&["replica", &self.name, &standby.name]);
        standby.database_url = variable(&variables, "DATABASE_URL");
    }

    /// Shuts PostgreSQL down in immediate mode: clients get an error message, and the next start recovers from the log.
    pub fn crash_database(&self) {
        services(&["down", &self.name, "postgres", "--immediate"]);
    }

    /// Ends every process of PostgreSQL by SIGKILL.
    pub fn kill_database(&self) {
        services(&["down", &self.name, "postgres", "--kill"]);
    }

    /// Starts the servers that are down.
    pub fn start(&self) {
        services(&["up", &self.name]);
    }

    /// Starts PostgreSQL.
    pub fn start_database(&self) {
        services(&["up", &self.name, "postgres"]);
    }

    /// Starts Redis.
    pub fn start_redis(&self) {
        services(&["up", &self.name, "redis"]);
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        services(&["remove", &self.name]);
    }
}
