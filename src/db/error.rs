//! Errors of statements and their classification.

use std::{fmt, time::Duration};

use tokio_postgres::error::SqlState;

use crate::error::{Error, Result};

/// A failed statement, with the statement's name in the registry.
#[derive(Debug)]
pub struct DbError {
    statement: &'static str,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Postgres(tokio_postgres::Error),
    /// No connection was available.
    Pool(String),
    UnexpectedResponse,
    TimedOut(Duration),
}

impl DbError {
    pub(crate) fn postgres(statement: &'static str, error: tokio_postgres::Error) -> Self {
        Self { statement, kind: Kind::Postgres(error) }
    }

    /// A statement that failed in PostgreSQL or on the connection.
    pub(crate) fn statement(statement: &super::Statement, error: tokio_postgres::Error) -> Self {
        Self::postgres(statement.name, error)
    }

    /// A statement whose connection was closed before the response.
    pub(crate) fn connection_closed(statement: &super::Statement, error: Option<tokio_postgres::Error>) -> Self {
        let kind = error.map_or_else(|| Kind::Pool("connection closed".to_owned()), Kind::Postgres);
        Self { statement: statement.name, kind }
    }

    pub(crate) fn pool(message: String) -> Self {
        Self { statement: "connect", kind: Kind::Pool(message) }
    }

    pub(crate) fn timed_out(statement: &'static str, timeout: Duration) -> Self {
        Self { statement, kind: Kind::TimedOut(timeout) }
    }

    /// A statement that returned other rows than its text says.
    pub(crate) fn unexpected_response(statement: &super::Statement) -> Self {
        Self { statement: statement.name, kind: Kind::UnexpectedResponse }
    }

    fn code(&self) -> Option<&SqlState> {
        match &self.kind {
            Kind::Postgres(error) => error.code(),
            _ => None,
        }
    }

    /// Returns the name of the violated constraint.
    pub(crate) fn constraint(&self) -> Option<&str> {
        match &self.kind {
            Kind::Postgres(error) => error.as_db_error().and_then(tokio_postgres::error::DbError::constraint),
            _ => None,
        }
    }

    /// Returns whether the transaction was rolled back in favour of another one and may be retried unchanged.
    pub(crate) fn is_transient(&self) -> bool {
        self.code()
            .is_some_and(|code| [SqlState::T_R_DEADLOCK_DETECTED, SqlState::T_R_SERIALIZATION_FAILURE].contains(code))
            || self.is_duplicate_id()
    }

    /// Returns whether another transaction has inserted a row with the same id: the sequence generated the id before that
    /// row advanced it.
    fn is_duplicate_id(&self) -> bool {
        let is_primary_key = self.constraint().is_some_and(|name| name.ends_with("_pkey"));
        is_primary_key && self.code() == Some(&SqlState::UNIQUE_VIOLATION)
    }

    /// Returns whether the server rejects the prepared statement, because the schema changed or the server is another
    /// one.
    pub(crate) fn is_stale_plan(&self) -> bool {
        self.code()
            .is_some_and(|code| [SqlState::FEATURE_NOT_SUPPORTED, SqlState::INVALID_SQL_STATEMENT_NAME].contains(code))
    }

    /// Returns whether the database is unreachable or overloaded, so that the error says nothing about the statement.
    pub(crate) fn is_unavailable(&self) -> bool {
        let error = match &self.kind {
            Kind::Postgres(error) => error,
            Kind::Pool(_) | Kind::TimedOut(_) => return true,
            Kind::UnexpectedResponse => return false,
        };
        match error.code() {
            None => {
                error.is_closed()
                    || std::error::Error::source(error)
                        .is_some_and(<dyn std::error::Error + 'static>::is::<std::io::Error>)
            }
            Some(code) => {
                // class 08: connection exception; 53: insufficient resources; 57: operator intervention, which includes
                // shutdowns, crashes and statement timeouts; 25006: a standby in place of the primary
                ["08", "53", "57"].contains(&&code.code()[..2])
                    || [SqlState::LOCK_NOT_AVAILABLE, SqlState::READ_ONLY_SQL_TRANSACTION].contains(code)
            }
        }
    }
}

impl fmt::Display for DbError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.statement)?;
        match &self.kind {
            Kind::Postgres(error) => match error.as_db_error() {
                // without the detail, because it quotes the row
                Some(error) => write!(f, "{} ({})", error.message(), error.code().code()),
                None => match std::error::Error::source(error) {
                    Some(cause) => write!(f, "{error}: {cause}"),
                    None => write!(f, "{error}"),
                },
            },
            Kind::Pool(message) => f.write_str(message),
            Kind::UnexpectedResponse => f.write_str("unexpected response"),
            Kind::TimedOut(timeout) => write!(f, "no response within {timeout:?}"),
        }
    }
}

impl std::error::Error for DbError {}

impl From<DbError> for Error {
    fn from(error: DbError) -> Self {
        if error.is_unavailable() { Self::unavailable(error) } else { Self::internal(error) }
    }
}

/// Maps a constraint violation to the error that it means to the caller, by the constraint's name.
pub(crate) trait OnConstraint<T> {
    /// Returns `meaning()` if the statement violated the constraint `name`, and any other error as it is.
    fn on_constraint(self, name: &str, meaning: impl FnOnce() -> Error) -> Result<T>;
}

impl<T> OnConstraint<T> for Result<T, DbError> {
    fn on_constraint(self, name: &str, meaning: impl FnOnce() -> Error) -> Result<T> {
        self.map_err(|error| if error.constraint() == Some(name) { meaning() } else { error.into() })
    }
}
