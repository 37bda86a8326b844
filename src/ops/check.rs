//! `testshop check`: whether everything that the settings name is reachable and usable.

use std::{fmt::Display, num::NonZeroU32};

use tokio_postgres::Client;

use crate::{
    auth::password_hashing::measure_iterations,
    config::Config,
    db::{
        Database, migrate,
        schema::{PRE_RELEASE, Schema},
        statements,
    },
    redis::{RedisClient, SENTINELS_TIMEOUT},
};

const MIN_POSTGRES_VERSION: i32 = 150_000;

const SERVER_SQL: &str = "
select current_setting('server_version_num')::int as number, version() as version,
       lower('\u{c4}') = '\u{e4}' as folds_non_ascii";

const DISABLED_TRIGGERS_SQL: &str = "
select string_agg(format('%s of %s', tgname, tgrelid::regclass), ', ') as names
  from pg_trigger
  join pg_class on pg_class.oid = tgrelid
 where tgenabled = 'D'
   and not tgisinternal
   and relnamespace = current_schema()::regnamespace";

/// The result of one check.
#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) subject: &'static str,
    /// A description, or the problem.
    pub(crate) outcome: Result<String, String>,
}

/// Checks database, schema, triggers, stored passwords, replica, Redis, export directory and memory.
pub(crate) async fn check(config: &Config) -> Vec<Finding> {
    let mut findings = check_database(config).await;
    if let Some(settings) = &config.replica {
        let outcome = Database::new(settings).dedicated().await.map(|_| "reachable".to_owned()).map_err(message);
        findings.push(Finding { subject: "replica", outcome });
    }
    if let Some(settings) = &config.redis {
        let outcome = match RedisClient::new(settings) {
            Ok(redis) if redis.ping(SENTINELS_TIMEOUT).await => Ok("reachable".to_owned()),
            Ok(_) => Err("unreachable".to_owned()),
            Err(error) => Err(message(error)),
        };
        findings.push(Finding { subject: "redis", outcome });
    }
    let dir = config.files.export_dir.clone().unwrap_or_else(std::env::temp_dir);
    let outcome = match tempfile::tempfile_in(&dir) {
        Ok(_) => Ok(format!("{} is writable", dir.display())),
        Err(error) => Err(format!("{}: {error}", dir.display())),
    };
    findings.push(Finding { subject: "export directory", outcome });
    findings.push(Finding { subject: "memory", outcome: Ok(check_memory(config)) });
    findings
}

async fn check_database(config: &Config) -> Vec<Finding> {
    let mut client = match Database::new(&config.database).dedicated().await {
        Ok(client) => client,
        Err(error) => return vec![Finding { subject: "database", outcome: Err(message(error)) }],
    };
    vec![
        Finding { subject: "database", outcome: check_server(&client).await },
        Finding { subject: "schema", outcome: check_schema(&mut client).await },
        Finding { subject: "triggers", outcome: check_triggers(&client).await },
        Finding { subject: "passwords", outcome: check_passwords(&client, config.accounts.pbkdf2_iterations).await },
    ]
}

/// Describes the memory at all limits. Settings that exceed the memory are invalid, so this check does not fail.
fn check_memory(config: &Config) -> String {
    let limit = config.memory.limit.map(|limit| format!("; {} is {} MiB", limit.source, limit.bytes >> 20));
    format!(
        "at most {}{}; {} connections",
        config.memory.describe(),
        limit.unwrap_or_default(),
        config.memory.max_connections
    )
}

async fn check_server(client: &Client) -> Result<String, String> {
    let row = client.query_one(SERVER_SQL, &[]).await.map_err(message)?;
    let version: &str = row.get("version");
    if row.get::<_, i32>("number") < MIN_POSTGRES_VERSION {
        return Err(format!("older than PostgreSQL 15: {version}"));
    }
    let note = if row.get("folds_non_ascii") {
        ""
    } else {
        "; the locale (C?) knows no letters beyond ASCII, so a search for words of such letters uses no index"
    };
    Ok(format!("{version}{note}"))
}

async fn check_schema(client: &mut Client) -> Result<String, String> {
    match migrate::schema(client).await.map_err(message)? {
        Schema::UpToDate => Ok("up to date".to_owned()),
        Schema::Newer(newer) => Ok(newer.to_string()),
        Schema::Pending(pending) => Err(format!("lacks {}: run testshop migrate", pending.join(", "))),
        Schema::Incompatible(reason) => Err(reason),
        Schema::PreRelease => Err(format!("{PRE_RELEASE}: `testshop migrate` prints how to move its data")),
    }
}

async fn check_triggers(client: &Client) -> Result<String, String> {
    let row = client.query_one(DISABLED_TRIGGERS_SQL, &[]).await.map_err(message)?;
    match row.get::<_, Option<&str>>("names") {
        None => Ok("enabled".to_owned()),
        Some(names) => Err(format!("disabled, so that changes are not detected: {names}")),
    }
}

/// Reports what a login costs. Every login takes as many iterations as the most expensive stored password.
async fn check_passwords(client: &Client, configured: NonZeroU32) -> Result<String, String> {
    let row = client.query_one(statements::USERS_MAX_ITERATIONS.sql, &[]).await.map_err(message)?;
    let stored: i32 = row.get("max_iterations");
    let stored = NonZeroU32::new(stored.unsigned_abs()).unwrap_or(configured);
    let milliseconds = |iterations| measure_iterations(iterations).as_millis();
    if stored <= configured {
        return Ok(format!("a login takes {configured} iterations, about {} ms", milliseconds(configured)));
    }
    Ok(format!(
        "a stored password has {stored} iterations, more than PBKDF2_ITERATIONS ({configured}), so every login takes \
         about {} ms instead of {} ms; set the passwords of such accounts again, or raise PBKDF2_ITERATIONS",
        milliseconds(stored),
        milliseconds(configured)
    ))
}

fn message(error: impl Display) -> String {
    error.to_string()
}
