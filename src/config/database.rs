//! Settings of PostgreSQL.

use std::{path::PathBuf, time::Duration};

use super::parser::{ConfigErrors, Parser};
use crate::db::{ConnInfo, DatabaseSettings};

const HEADING: &str = "Database";
const MIN_LEASE: Duration = Duration::from_millis(5);
/// The check constraints of the column `lease_ms` have the same limit.
const MAX_LEASE: Duration = Duration::from_secs(1);

/// The database settings of every subcommand that connects to it.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct DatabaseArgs {
    /// PostgreSQL: postgres://user:password@host:port/name, or host=/socket/dir dbname=... [required]
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, help_heading = HEADING)]
    database_url: Option<String>,
    /// File that contains DATABASE_URL
    #[arg(long, env = "DATABASE_URL_FILE", help_heading = HEADING)]
    database_url_file: Option<PathBuf>,
    /// Connections in the pool
    #[arg(long, env = "DB_POOL_SIZE", default_value = "16", help_heading = HEADING)]
    db_pool_size: String,
    /// Time limit of one statement (exports, imports and streamed lists have EXPORT_TIMEOUT)
    #[arg(long, env = "STATEMENT_TIMEOUT", default_value = "5s", help_heading = HEADING)]
    statement_timeout: String,
}

impl DatabaseArgs {
    /// Returns the settings, or all errors in them.
    pub(crate) fn settings(&self) -> Result<DatabaseSettings, ConfigErrors> {
        Parser::run(|parser| self.parse(parser))
    }

    pub(super) fn parse(&self, parser: &mut Parser) -> DatabaseSettings {
        let url = parser.secret("DATABASE_URL", self.database_url.as_deref(), self.database_url_file.as_ref());
        if url.is_none() {
            parser.error("DATABASE_URL", "is required");
        }
        DatabaseSettings {
            conninfo: parser.conn_info("DATABASE_URL", url.as_ref(), ConnInfo::primary),
            pool_size: parser.number("DB_POOL_SIZE", &self.db_pool_size, 1, 10_000),
            statement_timeout: parser.duration("STATEMENT_TIMEOUT", &self.statement_timeout),
        }
    }
}

/// The duration of leases, for `serve` and `migrate`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct LeaseArgs {
    /// How long a version read may serve cached responses without asking PostgreSQL again; a write waits at most this
    /// long (5ms to 1s). `migrate` stores it in the database. 0s: each request waits for a version read
    #[arg(long, env = "LEASE", default_value = "0s", help_heading = HEADING)]
    lease: String,
}

impl LeaseArgs {
    /// Returns the settings of the database and the duration of leases, or all errors in them.
    pub(crate) fn settings(&self, database: &DatabaseArgs) -> Result<(DatabaseSettings, Duration), ConfigErrors> {
        Parser::run(|parser| {
            let database = database.parse(parser);
            let lease = self.parse(parser, &database);
            (database, lease)
        })
    }

    /// A write that waits for leases must end within its statement timeout, and the write behind it within the lock
    /// timeout: [`MAX_LEASE`] is half of that.
    pub(super) fn parse(&self, parser: &mut Parser, database: &DatabaseSettings) -> Duration {
        let lease = parser.duration("LEASE", &self.lease);
        if lease.is_zero() {
            return lease;
        }
        if !(MIN_LEASE..=MAX_LEASE).contains(&lease) {
            parser.error("LEASE", format!("is \"{}\", which is neither 0s nor between 5ms and 1s", self.lease));
        } else if lease * 2 > database.statement_timeout {
            parser.error("LEASE", format!("is \"{}\", which is more than half of STATEMENT_TIMEOUT", self.lease));
        }
        lease
    }
}

/// The role that `serve` uses, for `migrate` to create.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ServingRoleArgs {
    /// Connection URL of the serving role; the role is created or updated, with only the rights that serving needs
    #[arg(long, env = "API_DATABASE_URL", hide_env_values = true, help_heading = HEADING)]
    api_database_url: Option<String>,
    /// File that contains API_DATABASE_URL
    #[arg(long, env = "API_DATABASE_URL_FILE", help_heading = HEADING)]
    api_database_url_file: Option<PathBuf>,
}

impl ServingRoleArgs {
    /// Returns the connection info of the serving role, or `None` if it is not set.
    pub(crate) fn conn_info(&self) -> Result<Option<ConnInfo>, ConfigErrors> {
        let name = "API_DATABASE_URL";
        Parser::run(|parser| {
            let url = parser.secret(name, self.api_database_url.as_deref(), self.api_database_url_file.as_ref());
            url.map(|url| parser.conn_info(name, Some(&url), ConnInfo::primary))
        })
    }
}

#[derive(Debug, Clone, clap::Args)]
pub(super) struct ReplicaArgs {
    /// Streaming replica; serves large reads when it shows the requested version
    #[arg(long, env = "DATABASE_REPLICA_URL", hide_env_values = true, help_heading = HEADING)]
    database_replica_url: Option<String>,
    /// File that contains DATABASE_REPLICA_URL
    #[arg(long, env = "DATABASE_REPLICA_URL_FILE", help_heading = HEADING)]
    database_replica_url_file: Option<PathBuf>,
}

impl ReplicaArgs {
    /// The replica has the pool size and the statement timeout of the primary.
    pub(super) fn parse(&self, parser: &mut Parser, primary: &DatabaseSettings) -> Option<DatabaseSettings> {
        let (name, file) = ("DATABASE_REPLICA_URL", self.database_replica_url_file.as_ref());
        let url = parser.secret(name, self.database_replica_url.as_deref(), file)?;
        let conninfo = parser.conn_info(name, Some(&url), ConnInfo::replica);
        Some(DatabaseSettings { conninfo, ..primary.clone() })
    }
}
