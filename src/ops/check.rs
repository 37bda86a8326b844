//! `testshop check`: whether everything that the settings name is there and fits.

use crate::{
    config::Config,
    db::{Database, migrate},
    redis::{RedisClient, SENTINELS_TIMEOUT},
};

const OLDEST_POSTGRES: i32 = 150_000;

/// One finding: what was looked at, and what is wrong with it.
#[derive(Debug)]
pub(crate) struct Finding {
    /// What was looked at.
    pub(crate) subject: &'static str,
    /// What was found.
    pub(crate) outcome: Result<String, String>,
}

/// Looks at database, schema, triggers, replica, shared cache and export folder.
pub(crate) async fn check(config: &Config) -> Vec<Finding> {
    let mut findings = database(config).await;
    if let Some(settings) = &config.replica {
        let outcome = match Database::new(settings).dedicated().await {
            Ok(_) => Ok("answers".to_owned()),
            Err(failure) => Err(failure.to_string()),
        };
        findings.push(Finding { subject: "replica", outcome });
    }
    if let Some(settings) = &config.shared {
        let outcome = match RedisClient::new(settings) {
            Ok(shared) if shared.answers(SENTINELS_TIMEOUT).await => Ok("answers".to_owned()),
            Ok(_) => Err("does not answer".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        findings.push(Finding { subject: "shared cache", outcome });
    }
    let folder = config.export_dir.clone().unwrap_or_else(std::env::temp_dir);
    let outcome = match tempfile::tempfile_in(&folder) {
        Ok(_) => Ok(format!("{} can be written", folder.display())),
        Err(error) => Err(format!("{}: {error}", folder.display())),
    };
    findings.push(Finding { subject: "export folder", outcome });
    findings
}

async fn database(config: &Config) -> Vec<Finding> {
    let subject = "database";
    let database = Database::new(&config.database);
    let mut client = match database.dedicated().await {
        Ok(client) => client,
        Err(failure) => return vec![Finding { subject, outcome: Err(failure.to_string()) }],
    };
    let version = "select current_setting('server_version_num')::int, version(), lower('\u{c4}') = '\u{e4}'";
    let outcome = match client.query_one(version, &[]).await {
        Ok(row) if row.get::<_, i32>(0) >= OLDEST_POSTGRES => {
            let folds = if row.get(2) {
                ""
            } else {
                "; its locale (C?) knows no letters outside ASCII: search minds their case"
            };
            Ok(format!("{}{folds}", row.get::<_, &str>(1)))
        }
        Ok(row) => Err(format!("older than PostgreSQL 15: {}", row.get::<_, &str>(1))),
        Err(error) => Err(error.to_string()),
    };
    let schema = match migrate::pending(&mut client).await {
        Ok(pending) if pending.is_empty() => Ok("up to date".to_owned()),
        Ok(pending) => Err(format!("lacks {}: run testshop migrate", pending.join(", "))),
        Err(error) => Err(error.to_string()),
    };
    let disabled = "select string_agg(format('%s of %s', tgname, tgrelid::regclass), ', ') from pg_trigger
                     join pg_class on pg_class.oid = tgrelid
                     where tgenabled = 'D' and not tgisinternal and relnamespace = current_schema()::regnamespace";
    let triggers = match client.query_one(disabled, &[]).await.map(|row| row.get::<_, Option<String>>(0)) {
        Ok(None) => Ok("none is disabled".to_owned()),
        Ok(Some(names)) => Err(format!("disabled, so that what is written goes unnoticed: {names}")),
        Err(error) => Err(error.to_string()),
    };
    vec![
        Finding { subject, outcome },
        Finding { subject: "schema", outcome: schema },
        Finding { subject: "triggers", outcome: triggers },
    ]
}
