//! PostgreSQL: connections, the registry of statements and its verbs, failures, migrations.
//!
//! It has never heard of HTTP. SQL lives in `sql/`, one statement a file.

pub mod failure;
pub mod migrate;
pub mod pool;
pub mod statements;
pub mod transaction;

pub use failure::{Failure, OnConstraint};
pub use pool::{Connection, Database, DatabaseSettings};
pub use statements::Statement;
pub use transaction::Transaction;
