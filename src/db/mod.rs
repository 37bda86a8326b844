//! PostgreSQL: connection info, pool, the registry of statements, transactions, errors, migrations, roles.
//!
//! Has no HTTP terms. SQL is in `sql/`, one statement per file.

pub(crate) mod conninfo;
pub(crate) mod error;
pub mod migrate;
pub(crate) mod pool;
pub(crate) mod replica;
pub mod roles;
pub(crate) mod schema;
pub(crate) mod schema_monitor;
pub mod statements;
mod tls;
pub(crate) mod transaction;

pub use conninfo::ConnInfo;
pub(crate) use error::{DbError, OnConstraint};
pub use pool::{Connection, Database, DatabaseSettings};
pub(crate) use statements::Statement;
pub(crate) use transaction::{Transaction, TxError};
