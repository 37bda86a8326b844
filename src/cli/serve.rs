//! `serve` and `migrate`.

use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

use crate::{
    config::{Config, ConfigErrors, DatabaseArgs, ServeArgs, ServingRoleArgs, both},
    db::{Database, migrate, roles},
    ops::logs::{self, LogSettings},
    server::Server,
};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio_postgres::Client;

/// How `serve` logs.
#[derive(Debug, clap::Args)]
pub(crate) struct LogArgs {
    /// How log lines look: text, json, or auto: text on a terminal, json otherwise
    #[arg(long, env = "LOG_FORMAT", default_value = "auto")]
    log_format: String,
    /// What is logged: a level, or target=level pairs; access=off silences the line of each request
    #[arg(long = "log", env = "RUST_LOG", default_value = "info")]
    filter: String,
}

/// All settings of `serve`, or all that is wrong with them.
pub(crate) fn settings(settings: &ServeArgs, logging: &LogArgs) -> Result<(Config, LogSettings), ConfigErrors> {
    both(settings.config(), LogSettings::read(&logging.log_format, &logging.filter).map_err(ConfigErrors))
}

/// Serves until SIGTERM or SIGINT. `migrate` is where the schema is to be brought up to date first, if it is.
pub(crate) async fn serve(config: Config, logging: LogSettings, migrate: Option<&DatabaseArgs>) -> anyhow::Result<()> {
    let access = logs::start(logging);
    raise_descriptors(config.server.connections);
    if let Some(database) = migrate {
        apply(&mut patiently(&Database::new(&database.settings()?)).await?).await?;
    }
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let server = Server::start(config, access).await?;
    // whoever started it may have read enough already, and that is no reason to stop
    let _ = writeln!(io::stdout(), "listening on http://{}", server.address);
    let _ = writeln!(io::stdout(), "health and metrics on http://{}", server.admin_address);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    // a second signal means it
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        std::process::exit(1);
    });
    server.stop().await;
    Ok(())
}

/// Besides clients: the pool, Redis, exports, listeners.
const OTHER_DESCRIPTORS: u64 = 256;

/// Takes as many descriptors as the system lets this process have: what it gives by itself is often too little.
fn raise_descriptors(connections: usize) {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let raised = setrlimit(Resource::Nofile, limit).is_ok();
    let needed = connections as u64 + OTHER_DESCRIPTORS;
    if !raised || limit.maximum.is_some_and(|maximum| maximum < needed) {
        tracing::warn!(limit = ?limit.maximum, needed, "fewer descriptors than MAX_CONNECTIONS needs");
    }
}

/// Brings the schema up to date, and the role that serves.
pub(crate) async fn migrate(database: &DatabaseArgs, serving: &ServingRoleArgs) -> anyhow::Result<()> {
    let (database, serving) = both(database.settings(), serving.address())?;
    let mut client = patiently(&Database::new(&database)).await?;
    apply(&mut client).await?;
    if let Some(serving) = serving {
        let role = roles::provision_role(&mut client, &serving).await?;
        super::output::print_line(format!("{role} may serve"))?;
    }
    Ok(())
}

/// A database that is only just starting is waited for so long.
const PATIENCE: Duration = Duration::from_secs(30);

async fn patiently(database: &Database) -> anyhow::Result<Client> {
    let patience = Instant::now() + PATIENCE;
    let mut pause = Duration::from_millis(100);
    loop {
        match database.dedicated().await {
            Ok(client) => return Ok(client),
            Err(failure) if failure.is_away() && Instant::now() + pause < patience => {
                eprintln!("testshop: waiting for the database ({failure})");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(3));
            }
            Err(failure) => return Err(failure.into()),
        }
    }
}

async fn apply(client: &mut Client) -> anyhow::Result<()> {
    let applied = migrate::migrate(client).await?;
    match applied.as_slice() {
        [] => super::output::print_line("the schema is up to date")?,
        names => super::output::print_line(format!("applied {}", names.join(", ")))?,
    }
    Ok(())
}
