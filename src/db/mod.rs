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
pub use transaction::{Transaction, Undone};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A lock; what a panic left behind it is whole, since nothing is changed in more than one step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
