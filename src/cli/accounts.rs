//! `create-admin`, `set-password`, `deactivate` and `end-sessions`.

use std::{
    io::{self, IsTerminal, Read},
    path::PathBuf,
};

use anyhow::Context;

use super::output::print_line;
use crate::{
    accounts::admin,
    config::{DatabaseArgs, PasswordArgs, zip_errors},
    db::Database,
};

#[derive(Debug, clap::Args)]
pub(crate) struct PasswordSource {
    /// File that contains the password [default: a prompt on a terminal, otherwise standard input]
    #[arg(long)]
    password_file: Option<PathBuf>,
}

const MAX_PASSWORD_FILE_BYTES: u64 = 64 * 1024;

impl PasswordSource {
    /// Returns the first line of the file or of standard input, or on a terminal the answer to two prompts.
    pub(crate) fn read(&self) -> anyhow::Result<String> {
        let mut text = String::new();
        match &self.password_file {
            Some(path) => {
                let file = std::fs::File::open(path).with_context(|| path.display().to_string())?;
                let read = file.take(MAX_PASSWORD_FILE_BYTES).read_to_string(&mut text);
                read.with_context(|| path.display().to_string())?;
            }
            None if io::stdin().is_terminal() => {
                text = rpassword::prompt_password("Password: ")?;
                let repeated = rpassword::prompt_password("Repeat password: ")?;
                anyhow::ensure!(text == repeated, "the passwords differ");
                return Ok(text);
            }
            None => {
                let read = io::stdin().take(MAX_PASSWORD_FILE_BYTES).read_to_string(&mut text);
                read.context("reading the password from standard input")?;
            }
        }
        let end = text.find(['\r', '\n']).unwrap_or(text.len());
        text.truncate(end);
        let source = if self.password_file.is_some() { "the password file" } else { "standard input" };
        anyhow::ensure!(!text.is_empty(), "{source} contains no password");
        Ok(text)
    }
}

/// Creates a staff account. An existing account is an error, unless `if_missing` is set and it is active and staff.
pub(crate) async fn create_admin(
    database: &DatabaseArgs,
    passwords: &PasswordArgs,
    (username, email): (&str, &str),
    password: &PasswordSource,
    if_missing: bool,
) -> anyhow::Result<()> {
    let (database, iterations) = zip_errors(database.settings(), passwords.iterations())?;
    let database = Database::new(&database);
    if if_missing && let Some(is_staff) = admin::is_active_staff(&database, username).await? {
        anyhow::ensure!(is_staff, "{username} already exists, but is not staff or not active");
        print_line(format!("{username} already exists"))?;
        return Ok(());
    }
    let id = admin::create(&database, iterations, (username, email, password.read()?), true).await?;
    print_line(format!("created staff account {username} with id {id}"))?;
    Ok(())
}

pub(crate) async fn set_password(
    database: &DatabaseArgs,
    passwords: &PasswordArgs,
    username: &str,
    password: &PasswordSource,
) -> anyhow::Result<()> {
    let (database, iterations) = zip_errors(database.settings(), passwords.iterations())?;
    admin::set_password(&Database::new(&database), iterations, username, password.read()?).await?;
    print_line(format!("changed the password of {username} and revoked all tokens and sessions"))?;
    Ok(())
}

pub(crate) async fn deactivate(database: &DatabaseArgs, username: &str) -> anyhow::Result<()> {
    admin::deactivate(&Database::new(&database.settings()?), username).await?;
    print_line(format!("deactivated {username}"))?;
    Ok(())
}

/// Ends the sessions of all accounts.
pub(crate) async fn end_sessions(database: &DatabaseArgs) -> anyhow::Result<()> {
    let accounts = admin::end_all_sessions(&Database::new(&database.settings()?)).await?;
    print_line(format!("ended all sessions of {accounts} accounts; every token issued before is revoked"))?;
    Ok(())
}
