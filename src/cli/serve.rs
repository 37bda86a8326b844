//! `serve` and `migrate`.

use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_postgres::Client;

use super::output::print_line;
use crate::{
    config::{Config, ConfigErrors, DatabaseArgs, LeaseArgs, ServeArgs, ServingRoleArgs, zip_errors},
    db::{
        Database, migrate, roles,
        schema::{PRE_RELEASE, Schema},
    },
    ops::logs::{self, LogSettings},
    server::Server,
};

#[derive(Debug, clap::Args)]
pub(crate) struct LogArgs {
    /// text, json, or auto: text on a terminal, JSON otherwise
    #[arg(long, env = "LOG_FORMAT", default_value = "auto")]
    log_format: String,
    /// A level, or target=level pairs; access=off omits the access log
    #[arg(long = "log", env = "RUST_LOG", default_value = "info")]
    filter: String,
}

/// Returns the settings of `serve`, or all errors in them.
pub(crate) fn settings(settings: &ServeArgs, logging: &LogArgs) -> Result<(Config, LogSettings), ConfigErrors> {
    zip_errors(settings.config(), LogSettings::parse(&logging.log_format, &logging.filter).map_err(ConfigErrors))
}

/// Serves until SIGTERM or SIGINT. If `migrate` is given, migrates the schema first.
pub(crate) async fn serve(config: Config, logging: LogSettings, migrate: Option<&DatabaseArgs>) -> anyhow::Result<()> {
    let access = logs::start(logging);
    tracing::info!(
        max_connections = config.memory.max_connections,
        cache_bytes = config.memory.cache_bytes,
        limit_bytes = config.memory.limit.map(|limit| limit.bytes),
        "memory at all limits: {}",
        config.memory.describe()
    );
    raise_nofile_limit(config.http.server.max_connections);
    if let Some(database) = migrate {
        apply_migrations(&mut connect_with_retry(&Database::new(&database.settings()?)).await?, config.lease).await?;
    }
    refuse_incompatible_schema(&Database::new(&config.database)).await?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let server = Server::start(config, access).await?;
    // errors are ignored: standard output may be a pipe that has been closed
    let _ = writeln!(io::stdout(), "listening on http://{}", server.address);
    let _ = writeln!(io::stdout(), "health and metrics on http://{}", server.admin_address);
    stop_signal(&mut terminate, &mut interrupt).await;
    tokio::spawn(async move {
        stop_signal(&mut terminate, &mut interrupt).await;
        std::process::exit(1);
    });
    server.stop().await;
    Ok(())
}

/// Fails when the schema does not work with this program. A database that is unavailable, or without a schema, does not
/// prevent the start: the server is then unready until it can be used.
async fn refuse_incompatible_schema(database: &Database) -> anyhow::Result<()> {
    let Ok(mut client) = database.dedicated().await else { return Ok(()) };
    match migrate::schema(&mut client).await {
        Ok(Schema::Incompatible(reason)) => anyhow::bail!(reason),
        Ok(Schema::PreRelease) => anyhow::bail!(PRE_RELEASE),
        Ok(Schema::Pending(missing)) => tracing::warn!(?missing, "the schema lacks migrations: run testshop migrate"),
        Ok(Schema::UpToDate) => {}
        Ok(Schema::Newer(newer)) => tracing::info!("{newer}"),
        Err(error) => tracing::warn!(%error, "the schema cannot be read"),
    }
    Ok(())
}

/// Waits for SIGTERM or SIGINT.
async fn stop_signal(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// File descriptors beside those of client connections: the pool, Redis, exports, listeners.
const RESERVED_FDS: u64 = 256;

/// Raises the soft limit of file descriptors to the hard limit; the default soft limit is often too low.
fn raise_nofile_limit(connections: usize) {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let raised = setrlimit(Resource::Nofile, limit).is_ok();
    let needed = connections as u64 + RESERVED_FDS;
    if !raised || limit.maximum.is_some_and(|maximum| maximum < needed) {
        tracing::warn!(limit = ?limit.maximum, needed, "file descriptor limit is too low for MAX_CONNECTIONS");
    }
}

/// Migrates the schema, sets the duration of leases, and creates or updates the serving role if it is set.
pub(crate) async fn migrate(
    database: &DatabaseArgs,
    lease: &LeaseArgs,
    serving: &ServingRoleArgs,
) -> anyhow::Result<()> {
    let ((database, lease), serving) = zip_errors(lease.settings(database), serving.conn_info())?;
    let mut client = connect_with_retry(&Database::new(&database)).await?;
    apply_migrations(&mut client, lease).await?;
    if let Some(serving) = serving {
        let role = roles::provision_role(&mut client, &serving).await?;
        print_line(format!("provisioned role {role}"))?;
    }
    Ok(())
}

/// How long to wait for a database that is starting.
const DB_WAIT_TIMEOUT: Duration = Duration::from_secs(30);
const MIN_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(3);

async fn connect_with_retry(database: &Database) -> anyhow::Result<Client> {
    let deadline = Instant::now() + DB_WAIT_TIMEOUT;
    let mut backoff = MIN_BACKOFF;
    loop {
        match database.dedicated().await {
            Ok(client) => return Ok(client),
            Err(error) if error.is_unavailable() && Instant::now() + backoff < deadline => {
                eprintln!("testshop: waiting for the database ({error})");
                tokio::time::sleep(backoff).await;
                backoff = (backoff * 2).min(MAX_BACKOFF);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

async fn apply_migrations(client: &mut Client, lease: Duration) -> anyhow::Result<()> {
    let migrated = migrate::migrate(client).await?;
    match (&migrated.newer, migrated.applied.as_slice()) {
        (Some(newer), _) => print_line(format!("nothing to migrate: {newer}"))?,
        (None, []) => print_line("the schema is up to date")?,
        (None, names) => print_line(format!("applied {}", names.join(", ")))?,
    }
    let former = migrate::set_lease_duration(client, lease).await?;
    if former != lease {
        print_line(format!("changed the duration of leases from {} to {} ms", former.as_millis(), lease.as_millis()))?;
    }
    Ok(())
}
