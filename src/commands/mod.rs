//! What the subcommands do, a file a subject. They know the shop from outside, as the library's only user but the tests.

pub mod accounts;
pub mod catalogue;
pub mod help;
pub mod inspect;
pub mod secrets;
pub mod serve;

use std::io::{self, Write};

use testshop::{config::DatabaseArgs, db::Database};

/// Prints to standard output. A reader that has seen enough and left is no failure.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome,
    }
}

/// The same with the end of a line.
pub fn say(words: impl std::fmt::Display) -> io::Result<()> {
    print(&format!("{words}\n"))
}

fn open(database: &DatabaseArgs) -> anyhow::Result<Database> {
    Ok(Database::new(&database.settings()?))
}
