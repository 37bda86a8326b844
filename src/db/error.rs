//! What can go wrong with a statement, and what it means.

use std::{fmt, time::Duration};

use tokio_postgres::error::SqlState;

use crate::error::{Error, Result};

/// A statement that did not give its result, by the statement's name in the registry.
#[derive(Debug)]
pub struct DbError {
    statement: &'static str,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Postgres(tokio_postgres::Error),
    /// No connection could be had.
    Pool(String),
    TimedOut(Duration),
}

impl DbError {
    pub(crate) fn postgres(statement: &'static str, error: tokio_postgres::Error) -> Self {
        Self { statement, kind: Kind::Postgres(error) }
    }

    /// A statement that PostgreSQL, or the way to it, refused.
    pub(crate) fn of(statement: &super::Statement, error: tokio_postgres::Error) -> Self {
        Self::postgres(statement.name, error)
    }

    /// The connection of a statement ended before its answer.
    pub(crate) fn ended(statement: &super::Statement, error: Option<tokio_postgres::Error>) -> Self {
        let kind = error.map_or_else(|| Kind::Pool("the connection ended".to_owned()), Kind::Postgres);
        Self { statement: statement.name, kind }
    }

    pub(crate) fn pool(words: String) -> Self {
        Self { statement: "connect", kind: Kind::Pool(words) }
    }

    pub(crate) fn timed_out(statement: &'static str, after: Duration) -> Self {
        Self { statement, kind: Kind::TimedOut(after) }
    }

    fn code(&self) -> Option<&SqlState> {
        match &self.kind {
            Kind::Postgres(error) => error.code(),
            _ => None,
        }
    }

    /// The name of the constraint that refused a row.
    pub(crate) fn constraint(&self) -> Option<&str> {
        match &self.kind {
            Kind::Postgres(error) => error.as_db_error().and_then(tokio_postgres::error::DbError::constraint),
            _ => None,
        }
    }

    /// The whole statement was undone for the sake of another one and may be tried again as it is.
    pub(crate) fn is_passing(&self) -> bool {
        self.code()
            .is_some_and(|code| [SqlState::T_R_DEADLOCK_DETECTED, SqlState::T_R_SERIALIZATION_FAILURE].contains(code))
    }

    /// The server no longer takes a statement as it was prepared: the schema changed, or another server answers.
    pub(crate) fn is_stale_plan(&self) -> bool {
        self.code()
            .is_some_and(|code| [SqlState::FEATURE_NOT_SUPPORTED, SqlState::INVALID_SQL_STATEMENT_NAME].contains(code))
    }

    /// The database is not there, or not now: nothing is known to be wrong with the statement.
    pub(crate) fn is_away(&self) -> bool {
        let Kind::Postgres(error) = &self.kind else { return true };
        match error.code() {
            None => {
                error.is_closed()
                    || std::error::Error::source(error)
                        .is_some_and(<dyn std::error::Error + 'static>::is::<std::io::Error>)
            }
            Some(code) => {
                // class 08: connection exception; 53: insufficient resources; 57: operator intervention, which
                // holds shutdowns, crashes and statement timeouts; 25006: a standby where a primary was expected
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
                // never the detail: it quotes the row
                Some(refusal) => write!(f, "{} ({})", refusal.message(), refusal.code().code()),
                None => match std::error::Error::source(error) {
                    Some(cause) => write!(f, "{error}: {cause}"),
                    None => write!(f, "{error}"),
                },
            },
            Kind::Pool(words) => f.write_str(words),
            Kind::TimedOut(after) => write!(f, "no answer within {after:?}"),
        }
    }
}

impl std::error::Error for DbError {}

impl From<DbError> for Error {
    fn from(failure: DbError) -> Self {
        if failure.is_away() { Self::unavailable(failure) } else { Self::internal(failure) }
    }
}

/// Gives a constraint its meaning at the call that may break it: by its name, never by the words of a message.
pub(crate) trait OnConstraint<T> {
    /// The error that this constraint stands for here.
    fn on_constraint(self, name: &str, meaning: impl FnOnce() -> Error) -> Result<T>;
}

impl<T> OnConstraint<T> for Result<T, DbError> {
    fn on_constraint(self, name: &str, meaning: impl FnOnce() -> Error) -> Result<T> {
        self.map_err(|failure| if failure.constraint() == Some(name) { meaning() } else { failure.into() })
    }
}
