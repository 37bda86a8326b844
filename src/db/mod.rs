//! PostgreSQL: its address, connections, the registry of statements and its verbs, failures, migrations, roles.
//!
//! It has never heard of HTTP. SQL lives in `sql/`, one statement a file.

pub mod address;
pub mod failure;
pub mod migrate;
pub mod pool;
pub mod replica;
pub mod roles;
pub mod statements;
mod tls;
pub mod transaction;

pub use address::Address;
pub use failure::{Failure, OnConstraint};
pub use pool::{Connection, Database, DatabaseSettings};
pub use statements::Statement;
pub use transaction::Transaction;
