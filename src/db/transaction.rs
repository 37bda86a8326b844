//! A transaction on a pooled connection that can never go back to the pool half done.

use super::{
    error::DbError,
    pool::{Connection, Database, Params, Queryable, TRIES},
    statements::Statement,
};
use crate::error::{Error, Result};

/// A connection with an open transaction. Dropped before its end, by an error, a panic or a client that left, the
/// connection is closed and the database rolls back.
pub(crate) struct Transaction {
    connection: Option<Connection>,
}

impl Transaction {
    /// A connection on which a transaction is about to begin, with the statements that it will run prepared. `begin`
    /// itself is sent by the caller, together with the first of them: polled together, they travel together, in order,
    /// which a statement that must be prepared first would upset.
    pub(crate) async fn on(database: &Database, statements: &[&Statement]) -> Result<Self, DbError> {
        let connection = database.connection().await?;
        for statement in statements {
            let prepared = connection.prepare_cached(statement.sql).await;
            prepared.map_err(|error| DbError::of(statement, error))?;
        }
        Ok(Self { connection: Some(connection) })
    }

    /// The connection.
    pub(crate) fn connection(&self) -> &Connection {
        self.connection.as_ref().unwrap_or_else(|| unreachable!("taken by drop and finish only"))
    }

    /// All rows of a statement.
    pub(crate) async fn rows(
        &self,
        statement: &Statement,
        params: Params<'_>,
    ) -> Result<Vec<tokio_postgres::Row>, DbError> {
        self.connection().rows(statement, params).await
    }

    /// `begin`, `commit`, `rollback`.
    pub(crate) async fn command(&self, sql: &'static str) -> Result<(), DbError> {
        self.connection().command(sql).await
    }

    /// Ends the `tries`-th attempt at a transaction that committed, or did not: its value, or nothing when it is to be
    /// tried again, because the database undid it for the sake of another one. Refused, it is rolled back.
    pub(crate) async fn end<T>(
        self,
        database: &Database,
        outcome: Result<T, TxError>,
        tries: usize,
    ) -> Result<Option<T>> {
        match outcome {
            Ok(value) => {
                self.finish();
                Ok(Some(value))
            }
            Err(TxError::DbError(failure)) if tries < TRIES && database.may_pass(&failure) => Ok(None),
            Err(TxError::DbError(failure)) => Err(failure.into()),
            Err(TxError::Refused(error)) => {
                if self.command("rollback").await.is_ok() {
                    self.finish();
                }
                Err(error)
            }
        }
    }

    /// The transaction has ended well: the connection may be used again.
    pub(crate) fn finish(mut self) {
        drop(self.connection.take());
    }
}

/// Why what a transaction was to do did not come to its end: for want of the database, or of something else.
#[derive(Debug)]
pub(crate) enum TxError {
    /// A statement failed.
    DbError(DbError),
    /// All else: nothing is wrong with the database.
    Refused(Error),
}

impl From<DbError> for TxError {
    fn from(failure: DbError) -> Self {
        Self::DbError(failure)
    }
}

impl From<Error> for TxError {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl From<TxError> for Error {
    fn from(undone: TxError) -> Self {
        match undone {
            TxError::DbError(failure) => failure.into(),
            TxError::Refused(error) => error,
        }
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            drop(Connection::take(connection));
        }
    }
}
