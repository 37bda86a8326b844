//! Settings of PostgreSQL.

use std::path::PathBuf;

use super::parser::{ConfigErrors, Parser};
use crate::db::{ConnInfo, DatabaseSettings};

const HEADING: &str = "Database";

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
