//! What the subcommands do, a file a subject. They know the shop from outside, as the library's only user but the tests.

pub mod accounts;
pub mod catalogue;
pub mod help;
pub mod inspect;
pub mod secrets;
pub mod serve;

use testshop::{config::DatabaseArgs, db::Database};

fn open(database: &DatabaseArgs) -> anyhow::Result<Database> {
    Ok(Database::new(&database.settings()?))
}
