//! Every setting: flag, environment variable, default, bound. All faults are reported at once.

mod parser;

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    path::PathBuf,
    time::Duration,
};

use clap::Args;
use ipnet::IpNet;
use secrecy::{ExposeSecret, SecretString};

use self::parser::Parser;
pub(crate) use self::parser::{ConfigErrors, both};

use crate::{
    cache::CacheMode,
    db::{ConnInfo, DatabaseSettings},
    http::{connection::Timeouts, request::BodyLimits, serve::ServerLimits},
    redis::RedisSettings,
};

// what the help of the subcommands sorts the settings under
const DATABASE: &str = "Database";
const CACHE: &str = "Cache";
const ACCOUNTS: &str = "Accounts";
const HTTP: &str = "HTTP";
const FILES: &str = "Large lists and files";

/// Where the database is: all that most subcommands need.
#[derive(Debug, Clone, Args)]
pub(crate) struct DatabaseArgs {
    /// PostgreSQL: postgres://user:password@host:port/name, or host=/socket/dir dbname=... [required]
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, help_heading = DATABASE)]
    database_url: Option<String>,
    /// A file that holds DATABASE_URL
    #[arg(long, env = "DATABASE_URL_FILE", help_heading = DATABASE)]
    database_url_file: Option<PathBuf>,
    /// Connections in the pool
    #[arg(long, env = "DB_POOL_SIZE", default_value = "16", help_heading = DATABASE)]
    db_pool_size: String,
    /// The time one statement may take (exports, imports and streamed lists have EXPORT_TIMEOUT)
    #[arg(long, env = "STATEMENT_TIMEOUT", default_value = "5s", help_heading = DATABASE)]
    statement_timeout: String,
}

/// The role that serves, for `migrate` to set up.
#[derive(Debug, Clone, Args)]
pub(crate) struct ServingRoleArgs {
    /// DATABASE_URL as `serve` will have it: its role is made if it is missing, and may do what serving needs, no more
    #[arg(long, env = "API_DATABASE_URL", hide_env_values = true, help_heading = DATABASE)]
    api_database_url: Option<String>,
    /// A file that holds API_DATABASE_URL
    #[arg(long, env = "API_DATABASE_URL_FILE", help_heading = DATABASE)]
    api_database_url_file: Option<PathBuf>,
}

/// How passwords are stored: what `serve` and the subcommands that set one need.
#[derive(Debug, Clone, Args)]
pub(crate) struct PasswordArgs {
    /// Iterations of PBKDF2 for new passwords
    #[arg(long, env = "PBKDF2_ITERATIONS", default_value = "600000", help_heading = ACCOUNTS)]
    pbkdf2_iterations: String,
}

/// The settings of `serve`, as they were given.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    passwords: PasswordArgs,
    /// A streaming replica: large reads come from there whenever it shows the very version that a request needs
    #[arg(long, env = "DATABASE_REPLICA_URL", hide_env_values = true, help_heading = DATABASE)]
    database_replica_url: Option<String>,
    /// A file that holds DATABASE_REPLICA_URL
    #[arg(long, env = "DATABASE_REPLICA_URL_FILE", help_heading = DATABASE)]
    database_replica_url_file: Option<PathBuf>,
    /// Redis or Valkey: redis://:password@host:port/db, rediss:// over TLS, redis+sentinel://:password@host,host/master;
    /// without it there is no shared cache
    #[arg(long, env = "REDIS_URL", hide_env_values = true, help_heading = CACHE)]
    redis_url: Option<String>,
    /// A file that holds REDIS_URL
    #[arg(long, env = "REDIS_URL_FILE", help_heading = CACHE)]
    redis_url_file: Option<PathBuf>,
    /// PEM file of the certificates that a rediss:// server's may be signed with; without it, whom this machine trusts
    #[arg(long, env = "REDIS_CA_FILE", help_heading = CACHE)]
    redis_ca_file: Option<PathBuf>,
    /// What every key in Redis begins with; shops that share one Redis need different ones
    #[arg(long, env = "REDIS_PREFIX", default_value = "testshop", help_heading = CACHE)]
    redis_prefix: String,
    /// Signs tokens; at least 32 bytes; several, comma-separated: the first signs, all verify [required]
    #[arg(long, env = "JWT_SECRET", hide_env_values = true, help_heading = ACCOUNTS)]
    jwt_secret: Option<String>,
    /// A file that holds JWT_SECRET
    #[arg(long, env = "JWT_SECRET_FILE", help_heading = ACCOUNTS)]
    jwt_secret_file: Option<PathBuf>,
    /// Where clients are served; port 0: any, printed at start
    #[arg(long, env = "LISTEN_ADDR", default_value = "0.0.0.0:8000", help_heading = HTTP)]
    listen_addr: String,
    /// Where health and metrics are served
    #[arg(long, env = "ADMIN_ADDR", default_value = "127.0.0.1:9000", help_heading = HTTP)]
    admin_addr: String,
    /// full (in-process over Redis), redis, or off: to measure what each layer is worth
    #[arg(long, env = "CACHE_MODE", default_value = "full", help_heading = CACHE)]
    cache_mode: String,
    /// Bytes that the in-process cache may keep: half for the whole list, half for all others
    #[arg(long, env = "CACHE_BYTES", default_value = "134217728", help_heading = CACHE)]
    cache_bytes: String,
    /// A list of more bytes is streamed and not kept
    #[arg(long, env = "CACHE_ENTRY_BYTES", default_value = "33554432", help_heading = CACHE)]
    cache_entry_bytes: String,
    /// While the database is away, how old a list may be that is served, labelled as stale; 0s: none, 503 instead
    #[arg(long, env = "STALE_IF_ERROR", default_value = "30s", help_heading = CACHE)]
    stale_if_error: String,
    /// Threads that serve requests; 0: one less than there are cores, at least one: PostgreSQL and hashing need one too
    #[arg(long, env = "WORKER_THREADS", default_value = "0", help_heading = HTTP)]
    worker_threads: String,
    /// Threads that hash passwords; 0: one less than there are cores, at least one
    #[arg(long, env = "PBKDF2_THREADS", default_value = "0", help_heading = ACCOUNTS)]
    pbkdf2_threads: String,
    /// How long an access token lives
    #[arg(long, env = "ACCESS_TOKEN_TTL", default_value = "1h", help_heading = ACCOUNTS)]
    access_token_ttl: String,
    /// How long a login that nobody renews can be renewed
    #[arg(long, env = "REFRESH_TOKEN_TTL", default_value = "14d", help_heading = ACCOUNTS)]
    refresh_token_ttl: String,
    /// How long a login lasts in all, however often it is renewed
    #[arg(long, env = "SESSION_TTL", default_value = "90d", help_heading = ACCOUNTS)]
    session_ttl: String,
    /// on, or off for load tests of login and register
    #[arg(long, env = "RATE_LIMIT", default_value = "on", help_heading = ACCOUNTS)]
    rate_limit: String,
    /// Networks (CIDR, comma-separated) whose X-Forwarded-For counts
    #[arg(long, env = "TRUSTED_PROXIES", default_value = "", help_heading = HTTP)]
    trusted_proxies: String,
    /// Connections of clients at a time
    #[arg(long, env = "MAX_CONNECTIONS", default_value = "8192", help_heading = HTTP)]
    max_connections: String,
    /// Bytes of a request body
    #[arg(long, env = "MAX_BODY_BYTES", default_value = "262144", help_heading = HTTP)]
    max_body_bytes: String,
    /// From the first byte of a request to the end of its head
    #[arg(long, env = "HEAD_TIMEOUT", default_value = "10s", help_heading = HTTP)]
    head_timeout: String,
    /// The time in which a request's body has to arrive
    #[arg(long, env = "BODY_TIMEOUT", default_value = "10s", help_heading = HTTP)]
    body_timeout: String,
    /// How long a connection may rest between two requests
    #[arg(long, env = "IDLE_TIMEOUT", default_value = "75s", help_heading = HTTP)]
    idle_timeout: String,
    /// How long a client may take nothing of its reply
    #[arg(long, env = "WRITE_TIMEOUT", default_value = "30s", help_heading = HTTP)]
    write_timeout: String,
    /// The time a request may take until its reply begins
    #[arg(long, env = "REQUEST_TIMEOUT", default_value = "10s", help_heading = HTTP)]
    request_timeout: String,
    /// The time an export, an import, or a list too large to keep, may take
    #[arg(long, env = "EXPORT_TIMEOUT", default_value = "300s", help_heading = FILES)]
    export_timeout: String,
    /// Lists too large to keep that are sent at a time, each on a connection of its own
    #[arg(long, env = "STREAM_CONCURRENCY", default_value = "16", help_heading = FILES)]
    stream_concurrency: String,
    /// Exports that are made at a time
    #[arg(long, env = "EXPORT_CONCURRENCY", default_value = "2", help_heading = FILES)]
    export_concurrency: String,
    /// Bytes of a file that is imported
    #[arg(long, env = "IMPORT_BYTES", default_value = "67108864", help_heading = FILES)]
    import_bytes: String,
    /// Imports at a time
    #[arg(long, env = "IMPORT_CONCURRENCY", default_value = "2", help_heading = FILES)]
    import_concurrency: String,
    /// Where files are made, kept and received, without names; without it, where the system keeps temporary files
    #[arg(long, env = "EXPORT_DIR", help_heading = FILES)]
    export_dir: Option<PathBuf>,
    /// Bytes of finished export files that are kept
    #[arg(long, env = "EXPORT_BYTES", default_value = "1073741824", help_heading = FILES)]
    export_bytes: String,
    /// After SIGTERM, how long to go on serving, unready, so that a balancer turns elsewhere before connections end
    #[arg(long, env = "SHUTDOWN_DELAY", default_value = "0s", help_heading = HTTP)]
    shutdown_delay: String,
    /// After that, the time that running requests get
    #[arg(long, env = "DRAIN_TIMEOUT", default_value = "25s", help_heading = HTTP)]
    drain_timeout: String,
}

/// The settings of `serve`, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// PostgreSQL.
    pub(crate) database: DatabaseSettings,
    /// A replica for large reads, if there is one.
    pub(crate) replica: Option<DatabaseSettings>,
    /// Redis, if there is one.
    pub(crate) shared: Option<RedisSettings>,
    /// The first signs, all verify.
    pub(crate) jwt_secrets: Vec<SecretString>,
    /// Where clients are served.
    pub(crate) listen_addr: SocketAddr,
    /// Where operators are served.
    pub(crate) admin_addr: SocketAddr,
    /// Layers of the cache in use.
    pub(crate) cache_mode: CacheMode,
    /// Bytes in the process.
    pub(crate) cache_bytes: usize,
    /// Bytes of one list that is kept.
    pub(crate) cache_entry_bytes: usize,
    /// Age of a list that may be served while the database is away.
    pub(crate) stale_if_error: Duration,
    /// For new passwords.
    pub(crate) pbkdf2_iterations: NonZeroU32,
    /// That serve requests.
    pub(crate) worker_threads: usize,
    /// That hash passwords.
    pub(crate) pbkdf2_threads: usize,
    /// Life of an access token.
    pub(crate) access_token_ttl: Duration,
    /// How long a login that nobody renews can be renewed.
    pub(crate) refresh_token_ttl: Duration,
    /// How old a login may become by renewals.
    pub(crate) session_ttl: Duration,
    /// Whether logins and registrations are throttled.
    pub(crate) rate_limit: bool,
    /// Whose `X-Forwarded-For` counts.
    pub(crate) trusted_proxies: Vec<IpNet>,
    /// Bounds of connections.
    pub(crate) server: ServerLimits,
    /// Bounds of bodies.
    pub(crate) body: BodyLimits,
    /// Until a reply begins.
    pub(crate) request_timeout: Duration,
    /// Of an export, an import or a streamed list.
    pub(crate) export_timeout: Duration,
    /// Exports at a time.
    pub(crate) export_concurrency: usize,
    /// Streamed lists at a time.
    pub(crate) stream_concurrency: usize,
    /// Bytes of a file that is imported.
    pub(crate) import_bytes: u64,
    /// Imports at a time.
    pub(crate) import_concurrency: usize,
    /// Where exports are kept, and imports received.
    pub(crate) export_dir: Option<PathBuf>,
    /// Bytes of exports that are kept.
    pub(crate) export_bytes: u64,
}

const MIN_SECRET_BYTES: usize = 32;

impl Config {
    /// Bytes of finished exports that are kept: none where nothing is.
    pub(crate) fn kept_export_bytes(&self) -> u64 {
        if self.cache_mode == CacheMode::Off { 0 } else { self.export_bytes }
    }
}

impl DatabaseArgs {
    /// The database alone, or everything that is wrong with it.
    pub(crate) fn settings(&self) -> Result<DatabaseSettings, ConfigErrors> {
        let mut reader = Parser::default();
        let settings = self.read(&mut reader);
        reader.finish(settings)
    }

    fn read(&self, reader: &mut Parser) -> DatabaseSettings {
        let url = reader.secret("DATABASE_URL", self.database_url.as_deref(), self.database_url_file.as_ref());
        if url.is_none() {
            reader.fault("DATABASE_URL", "is required");
        }
        DatabaseSettings {
            address: reader.database("DATABASE_URL", url.as_ref(), ConnInfo::primary),
            pool_size: reader.number("DB_POOL_SIZE", &self.db_pool_size, 1, 10_000),
            statement_timeout: reader.duration("STATEMENT_TIMEOUT", &self.statement_timeout),
        }
    }
}

impl ServingRoleArgs {
    /// How `serve` will reach the database, if it is told.
    pub(crate) fn address(&self) -> Result<Option<ConnInfo>, ConfigErrors> {
        let (mut reader, name) = (Parser::default(), "API_DATABASE_URL");
        let url = reader.secret(name, self.api_database_url.as_deref(), self.api_database_url_file.as_ref());
        let address = url.map(|url| reader.database(name, Some(&url), ConnInfo::primary));
        reader.finish(address)
    }
}

impl PasswordArgs {
    /// Iterations for new passwords.
    pub(crate) fn iterations(&self) -> Result<NonZeroU32, ConfigErrors> {
        let mut reader = Parser::default();
        let iterations = self.read(&mut reader);
        reader.finish(iterations)
    }

    fn read(&self, reader: &mut Parser) -> NonZeroU32 {
        let iterations = reader.number("PBKDF2_ITERATIONS", &self.pbkdf2_iterations, 1, 10_000_000);
        NonZeroU32::new(iterations).unwrap_or(NonZeroU32::MIN)
    }
}

impl ServeArgs {
    /// The part that tells where the database is.
    pub(crate) fn database(&self) -> &DatabaseArgs {
        &self.database
    }

    /// The settings, or everything that is wrong with them.
    pub fn config(&self) -> Result<Config, ConfigErrors> {
        let mut reader = Parser::default();
        let config = self.read(&mut reader);
        reader.finish(config)
    }

    fn read(&self, reader: &mut Parser) -> Config {
        let database = self.database.read(reader);
        Config {
            replica: self.replica(reader, &database),
            database,
            shared: self.shared(reader),
            jwt_secrets: self.jwt_secrets(reader),
            listen_addr: reader.address("LISTEN_ADDR", &self.listen_addr),
            admin_addr: reader.address("ADMIN_ADDR", &self.admin_addr),
            cache_mode: reader.word(
                "CACHE_MODE",
                &self.cache_mode,
                &[("full", CacheMode::Full), ("redis", CacheMode::Redis), ("off", CacheMode::Off)],
            ),
            cache_bytes: reader.number("CACHE_BYTES", &self.cache_bytes, 0, usize::MAX),
            cache_entry_bytes: reader.number("CACHE_ENTRY_BYTES", &self.cache_entry_bytes, 0, usize::MAX),
            stale_if_error: reader.duration("STALE_IF_ERROR", &self.stale_if_error),
            pbkdf2_iterations: self.passwords.read(reader),
            worker_threads: reader.threads("WORKER_THREADS", &self.worker_threads),
            pbkdf2_threads: reader.threads("PBKDF2_THREADS", &self.pbkdf2_threads),
            access_token_ttl: reader.life("ACCESS_TOKEN_TTL", &self.access_token_ttl),
            refresh_token_ttl: reader.life("REFRESH_TOKEN_TTL", &self.refresh_token_ttl),
            session_ttl: reader.life("SESSION_TTL", &self.session_ttl),
            rate_limit: reader.word("RATE_LIMIT", &self.rate_limit, &[("on", true), ("off", false)]),
            trusted_proxies: self.proxies(reader),
            server: ServerLimits {
                connections: reader.number("MAX_CONNECTIONS", &self.max_connections, 1, 1_000_000),
                timeouts: Timeouts {
                    head: reader.duration("HEAD_TIMEOUT", &self.head_timeout),
                    idle: reader.duration("IDLE_TIMEOUT", &self.idle_timeout),
                    write: reader.duration("WRITE_TIMEOUT", &self.write_timeout),
                },
                delay: reader.duration("SHUTDOWN_DELAY", &self.shutdown_delay),
                drain: reader.duration("DRAIN_TIMEOUT", &self.drain_timeout),
            },
            body: BodyLimits {
                bytes: reader.number("MAX_BODY_BYTES", &self.max_body_bytes, 1, 1 << 30),
                time: reader.duration("BODY_TIMEOUT", &self.body_timeout),
            },
            request_timeout: reader.duration("REQUEST_TIMEOUT", &self.request_timeout),
            export_timeout: reader.duration("EXPORT_TIMEOUT", &self.export_timeout),
            export_concurrency: reader.number("EXPORT_CONCURRENCY", &self.export_concurrency, 1, 100),
            stream_concurrency: reader.number("STREAM_CONCURRENCY", &self.stream_concurrency, 1, 10_000),
            import_bytes: reader.number("IMPORT_BYTES", &self.import_bytes, 1, 1 << 40),
            import_concurrency: reader.number("IMPORT_CONCURRENCY", &self.import_concurrency, 1, 100),
            export_dir: self.export_dir.clone().filter(|dir| !dir.as_os_str().is_empty()),
            export_bytes: reader.number("EXPORT_BYTES", &self.export_bytes, 0, u64::MAX),
        }
    }

    fn replica(&self, reader: &mut Parser, primary: &DatabaseSettings) -> Option<DatabaseSettings> {
        let (name, file) = ("DATABASE_REPLICA_URL", self.database_replica_url_file.as_ref());
        let url = reader.secret(name, self.database_replica_url.as_deref(), file)?;
        let address = reader.database(name, Some(&url), ConnInfo::replica);
        Some(DatabaseSettings { address, ..primary.clone() })
    }

    fn shared(&self, reader: &mut Parser) -> Option<RedisSettings> {
        let url = reader.secret("REDIS_URL", self.redis_url.as_deref(), self.redis_url_file.as_ref())?;
        let roots = match self.redis_ca_file.as_ref().filter(|path| !path.as_os_str().is_empty()) {
            None => None,
            Some(path) => match std::fs::read(path) {
                Ok(pem) => Some(pem),
                Err(error) => {
                    reader.fault("REDIS_CA_FILE", format!("{} cannot be read: {error}", path.display()));
                    None
                }
            },
        };
        let settings = RedisSettings { url, roots, prefix: self.redis_prefix.clone() };
        if let Err(error) = settings.check() {
            reader.fault("REDIS_URL", error);
        }
        Some(settings)
    }

    fn jwt_secrets(&self, reader: &mut Parser) -> Vec<SecretString> {
        let Some(given) = reader.secret("JWT_SECRET", self.jwt_secret.as_deref(), self.jwt_secret_file.as_ref()) else {
            reader.fault("JWT_SECRET", format!("is required: at least {MIN_SECRET_BYTES} random bytes"));
            return Vec::new();
        };
        let secrets: Vec<SecretString> =
            given.expose_secret().split(',').map(|secret| secret.trim().to_owned().into()).collect();
        for (number, secret) in secrets.iter().enumerate() {
            let length = secret.expose_secret().len();
            if length < MIN_SECRET_BYTES {
                let which = if secrets.len() > 1 { format!("secret {} ", number + 1) } else { String::new() };
                reader.fault("JWT_SECRET", format!("{which}has {length} bytes, needs at least {MIN_SECRET_BYTES}"));
            }
        }
        secrets
    }

    fn proxies(&self, reader: &mut Parser) -> Vec<IpNet> {
        let networks = self.trusted_proxies.split(',').map(str::trim).filter(|text| !text.is_empty());
        networks
            .filter_map(|text| {
                let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
                network.map_err(|_| reader.fault("TRUSTED_PROXIES", format!("is \"{text}\", which is no network"))).ok()
            })
            .collect()
    }
}
