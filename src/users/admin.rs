//! What an operator does about accounts from the command line.

use std::num::NonZeroU32;

use anyhow::{Context, bail};
use serde_json::{Map, json};

use super::{input, register};
use crate::{
    auth::Passwords,
    db::{Database, statements},
    http::fields::Fields,
};

/// Stores a new account, checked as a registration is. Gives its id.
pub async fn create(
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
    fields.finish().map_err(faults)?;
    let text = Passwords::start(1, iterations).hash(account.password.clone().unwrap_or_default().into()).await?;
    Ok(register::create(database, &account, &text, is_staff).await?)
}

/// Whether there is an account of this name.
pub async fn exists(database: &Database, username: &str) -> anyhow::Result<bool> {
    Ok(database.row(&statements::USERS_CREDENTIALS, &[&username]).await?.is_some())
}

/// Another password for an account; its tokens and sessions end.
pub async fn set_password(
    database: &Database,
    iterations: NonZeroU32,
    username: &str,
    password: String,
) -> anyhow::Result<()> {
    if let Err(faults) = input::new_password(&password, username) {
        bail!("{}", faults.join("\n"));
    }
    let text = Passwords::start(1, iterations).hash(password.into()).await?;
    let changed = database.row(&statements::USERS_SET_PASSWORD, &[&username, &text]).await?;
    changed.map(drop).with_context(|| format!("there is no user {username:?}"))
}

/// Refuses an account from the next request on.
pub async fn deactivate(database: &Database, username: &str) -> anyhow::Result<()> {
    let changed = database.row(&statements::USERS_DEACTIVATE, &[&username]).await?;
    changed.map(drop).with_context(|| format!("there is no user {username:?}"))
}

/// The words that a client would read in the body of a 400.
fn faults(error: crate::error::Error) -> anyhow::Error {
    match &error {
        crate::error::Error::Invalid(_) => anyhow::anyhow!("{}", error.answer().body),
        _ => error.into(),
    }
}
