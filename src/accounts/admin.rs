//! What an operator does about accounts from the command line.

use std::num::NonZeroU32;

use anyhow::{Context, bail};
use serde_json::{Map, json};

use super::{input, register};
use crate::{
    auth::PasswordHasherPool,
    db::{Database, statements},
    validation::Fields,
};

/// Stores a new account, checked as a registration is. Gives its id.
pub(crate) async fn create(
    database: &Database,
    iterations: NonZeroU32,
    (username, email, password): (&str, &str, String),
    is_staff: bool,
) -> anyhow::Result<i64> {
    let fields = [("username", json!(username)), ("email", json!(email)), ("password", json!(password))];
    let fields: Map<_, _> = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let mut fields = Fields::new(fields);
    let account = input::new_account(&mut fields);
    register::note_taken(database, &account, &mut fields).await?;
    fields.finish()?;
    let text =
        PasswordHasherPool::start(1, iterations).hash(account.password.clone().unwrap_or_default().into()).await?;
    Ok(register::create(database, &account, &text, is_staff).await?)
}

/// Whether the account of this name is staff and active, if there is one.
pub(crate) async fn is_staff(database: &Database, username: &str) -> anyhow::Result<Option<bool>> {
    let row = database.row(&statements::USERS_CREDENTIALS, &[&username]).await?;
    let Some((row, id)) = row.and_then(|row| row.get::<_, Option<i64>>(0).map(|id| (row, id))) else { return Ok(None) };
    let me = database.row(&statements::USERS_PROFILE, &[&id]).await?;
    Ok(me.map(|me| row.get(2) && me.get(3)))
}

/// Another password for an account; its tokens and sessions end.
pub(crate) async fn set_password(
    database: &Database,
    iterations: NonZeroU32,
    username: &str,
    password: String,
) -> anyhow::Result<()> {
    if let Err(faults) = input::new_password(&password, username) {
        bail!("{}", faults.join("\n"));
    }
    let text = PasswordHasherPool::start(1, iterations).hash(password.into()).await?;
    let changed = database.row(&statements::USERS_SET_PASSWORD, &[&username, &text]).await?;
    changed.map(drop).with_context(|| format!("there is no user {username:?}"))
}

/// Refuses an account from the next request on.
pub(crate) async fn deactivate(database: &Database, username: &str) -> anyhow::Result<()> {
    let changed = database.row(&statements::USERS_DEACTIVATE, &[&username]).await?;
    changed.map(drop).with_context(|| format!("there is no user {username:?}"))
}
