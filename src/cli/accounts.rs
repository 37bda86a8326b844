//! `create-admin`, `set-password` and `deactivate`: what an operator does about accounts.

use std::{
    io::{self, IsTerminal, Read},
    path::PathBuf,
};

use crate::{
    config::{DatabaseArgs, PasswordArgs, both},
    db::Database,
};
use anyhow::Context;

/// Where a password comes from.
#[derive(Debug, clap::Args)]
pub(crate) struct PasswordSource {
    /// A file that holds the password; without it, it is asked for, or read from standard input
    #[arg(long)]
    password_file: Option<PathBuf>,
}

const PASSWORD_FILE_BYTES: u64 = 64 * 1024;

impl PasswordSource {
    /// The first line of the file or of standard input, or what was typed twice on a terminal.
    pub(crate) fn read(&self) -> anyhow::Result<String> {
        let mut text = String::new();
        match &self.password_file {
            Some(path) => {
                let file = std::fs::File::open(path).with_context(|| path.display().to_string())?;
                file.take(PASSWORD_FILE_BYTES).read_to_string(&mut text).with_context(|| path.display().to_string())?;
            }
            None if io::stdin().is_terminal() => {
                text = rpassword::prompt_password("Password: ")?;
                anyhow::ensure!(text == rpassword::prompt_password("Once more: ")?, "the two are not the same");
                return Ok(text);
            }
            None => {
                let read = io::stdin().take(PASSWORD_FILE_BYTES).read_to_string(&mut text);
                read.context("the password on standard input")?;
            }
        }
        let end = text.find(['\r', '\n']).unwrap_or(text.len());
        text.truncate(end);
        let place = if self.password_file.is_some() { "the password file" } else { "standard input" };
        anyhow::ensure!(!text.is_empty(), "{place} holds no password");
        Ok(text)
    }
}

/// Makes a staff account. One of this name that is there already is left as it is if `if_missing`, else it is an error.
pub(crate) async fn create_admin(
    database: &DatabaseArgs,
    passwords: &PasswordArgs,
    (username, email): (&str, &str),
    password: &PasswordSource,
    if_missing: bool,
) -> anyhow::Result<()> {
    let (database, iterations) = both(database.settings(), passwords.iterations())?;
    let database = Database::new(&database);
    if if_missing && let Some(is_staff) = crate::accounts::admin::is_staff(&database, username).await? {
        anyhow::ensure!(is_staff, "{username} is there already, and is not staff, or not active");
        super::output::print_line(format!("{username} is there already"))?;
        return Ok(());
    }
    let id = crate::accounts::admin::create(&database, iterations, (username, email, password.read()?), true).await?;
    super::output::print_line(format!("{username} is staff, with the id {id}"))?;
    Ok(())
}

/// Gives an account another password.
pub(crate) async fn set_password(
    database: &DatabaseArgs,
    passwords: &PasswordArgs,
    username: &str,
    password: &PasswordSource,
) -> anyhow::Result<()> {
    let (database, iterations) = both(database.settings(), passwords.iterations())?;
    let database = Database::new(&database);
    crate::accounts::admin::set_password(&database, iterations, username, password.read()?).await?;
    super::output::print_line(format!("{username} has another password; what was logged in is logged out"))?;
    Ok(())
}

/// Refuses an account.
pub(crate) async fn deactivate(database: &DatabaseArgs, username: &str) -> anyhow::Result<()> {
    crate::accounts::admin::deactivate(&Database::new(&database.settings()?), username).await?;
    super::output::print_line(format!("{username} is refused from now on"))?;
    Ok(())
}
