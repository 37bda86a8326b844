//! Settings. Each is a flag and an environment variable with a default and limits; all errors are reported together.
//!
//! Each argument sets its `help_heading`, since `next_help_heading` would also apply to the arguments after the struct.

mod accounts;
mod cache;
mod database;
mod files;
mod http;
mod memory;
mod memory_limit;
mod parser;

use std::time::Duration;

use self::{
    accounts::AccountArgs,
    cache::CacheArgs,
    database::ReplicaArgs,
    files::FileArgs,
    http::{HttpArgs, REQUEST_BUDGET_BYTES},
    memory::{MemoryArgs, MemorySettings},
    parser::Parser,
};
pub(crate) use self::{
    accounts::{AccountSettings, PasswordArgs},
    cache::CacheSettings,
    database::{DatabaseArgs, LeaseArgs, ServingRoleArgs},
    files::FileSettings,
    http::HttpSettings,
    memory::{MAX_DOWNLOADS, MemoryPlan},
    parser::{ConfigErrors, zip_errors},
};
use crate::{cache::CacheMode, db::DatabaseSettings, redis::RedisSettings};

/// The settings of `serve` as text.
#[derive(Debug, Clone, clap::Args)]
pub struct ServeArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    lease: LeaseArgs,
    #[command(flatten)]
    replica: ReplicaArgs,
    #[command(flatten)]
    cache: CacheArgs,
    #[command(flatten)]
    accounts: AccountArgs,
    #[command(flatten)]
    http: HttpArgs,
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    memory: MemoryArgs,
}

/// The settings of `serve`, validated.
#[derive(Debug, Clone)]
pub struct Config {
    pub(crate) database: DatabaseSettings,
    /// The duration of leases on version reads; zero: there are none.
    pub(crate) lease: Duration,
    pub(crate) replica: Option<DatabaseSettings>,
    pub(crate) redis: Option<RedisSettings>,
    pub(crate) cache: CacheSettings,
    pub(crate) accounts: AccountSettings,
    pub(crate) http: HttpSettings,
    pub(crate) files: FileSettings,
    pub(crate) memory: MemoryPlan,
}

impl Config {
    /// Returns the size limit of cached exports in bytes: 0 without a cache.
    pub(crate) fn export_cache_bytes(&self) -> u64 {
        if self.cache.mode == CacheMode::Off { 0 } else { self.files.export_bytes }
    }
}

impl ServeArgs {
    pub(crate) fn database(&self) -> &DatabaseArgs {
        &self.database
    }

    /// Returns the settings, or all errors in them.
    pub fn config(&self) -> Result<Config, ConfigErrors> {
        Parser::run(|parser| {
            let database = self.database.parse(parser);
            let files = self.files.parse(parser);
            let memory = self.memory_plan(parser, &database, &files);
            Config {
                lease: self.lease.parse(parser, &database),
                replica: self.replica.parse(parser, &database),
                database,
                redis: self.cache.parse_redis(parser),
                cache: self.cache.parse(parser),
                accounts: self.accounts.parse(parser),
                http: self.http.parse(parser, memory.max_connections),
                files,
                memory,
            }
        })
    }

    fn memory_plan(&self, parser: &mut Parser, database: &DatabaseSettings, files: &FileSettings) -> MemoryPlan {
        let settings = MemorySettings {
            max_connections: self.http.max_connections(parser),
            cache_bytes: self.cache.bytes(parser),
            entry_bytes: self.cache.entry_bytes(parser),
            pool_size: database.pool_size,
            request_budget_bytes: REQUEST_BUDGET_BYTES,
            imports: files.import_concurrency,
            exports: files.export_concurrency,
            streams: files.stream_concurrency,
        };
        self.memory.plan(parser, settings)
    }
}
