//! Account management from the command line.

use std::num::NonZeroU32;

use anyhow::{Context, bail};
use serde_json::{Map, json};

use super::{input, register};
use crate::{
    auth::PasswordHasherPool,
    db::{
        Database,
        pool::{Params, Queryable},
        statements,
    },
    validation::Fields,
};

/// Creates an account with the checks of a registration. Returns its id.
pub(crate) async fn create(
    database: &Database,
    iterations: NonZeroU32,
    (username, email, password): (&str, &str, String),
    is_staff: bool,
) -> anyhow::Result<i64> {
    let fields = [("username", json!(username)), ("email", json!(email)), ("password", json!(password))];
    let fields: Map<_, _> = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let mut fields = Fields::new(fields);
    let account = input::validate_new_account(&mut fields);
    register::check_uniqueness(database, &account, &mut fields).await?;
    fields.finish()?;
    let password = account.password.clone().unwrap_or_default();
    let hash = PasswordHasherPool::start(1, iterations).hash(password.into()).await?;
    Ok(register::create(database, &account, &hash, is_staff).await?)
}

/// Returns whether an account is active and staff, or `None` if it does not exist.
pub(crate) async fn is_active_staff(database: &Database, username: &str) -> anyhow::Result<Option<bool>> {
    let params: Params<'_> = &[&username, &Vec::<Vec<u8>>::new(), &0.0];
    let Some(credentials) = database.row(&statements::USERS_CREDENTIALS, params).await? else { return Ok(None) };
    let Some(id) = credentials.get::<_, Option<i64>>("id") else { return Ok(None) };
    let profile = database.row(&statements::USERS_PROFILE, &[&id]).await?;
    Ok(profile.map(|profile| credentials.get("is_active") && profile.get("is_staff")))
}

/// Sets the password of an account, and revokes its tokens and sessions.
pub(crate) async fn set_password(
    database: &Database,
    iterations: NonZeroU32,
    username: &str,
    password: String,
) -> anyhow::Result<()> {
    if let Err(errors) = input::validate_new_password(&password, username) {
        bail!("{}", errors.join("\n"));
    }
    let hash = PasswordHasherPool::start(1, iterations).hash(password.into()).await?;
    let changed = database.row(&statements::USERS_SET_PASSWORD, &[&username, &hash]).await?;
    changed.map(drop).with_context(|| format!("there is no user {username:?}"))
}

/// Deactivates an account: its tokens are rejected from the next request on.
pub(crate) async fn deactivate(database: &Database, username: &str) -> anyhow::Result<()> {
    let changed = database.row(&statements::USERS_DEACTIVATE, &[&username]).await?;
    changed.map(drop).with_context(|| format!("there is no user {username:?}"))
}

/// Revokes every token and ends every session of all accounts. Returns the number of accounts.
pub(crate) async fn end_all_sessions(database: &Database) -> anyhow::Result<i64> {
    let client = database.dedicated().await?;
    // takes time in proportion to the number of accounts
    client.batch_execute("set statement_timeout = 0; set lock_timeout = 0").await?;
    let rows = client.rows(&statements::USERS_END_ALL_SESSIONS, &[]).await?;
    rows.first().map(|row| row.get("accounts")).context("the statement returned no row")
}
