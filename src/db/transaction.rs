//! A transaction on a pooled connection. A connection with an unfinished transaction never returns to the pool.

use futures_util::future::join;

use super::{
    error::DbError,
    pool::{Connection, Database, MAX_ATTEMPTS, Params, Queryable},
    statements::Statement,
};
use crate::error::{Error, Result};

/// A pooled connection with an open transaction.
///
/// When it is dropped before [`Transaction::release`], by an error, a panic or a client that disconnects, the
/// connection is closed and the database rolls back.
pub(crate) struct Transaction {
    connection: Option<Connection>,
}

impl Transaction {
    /// Acquires a connection and prepares the statements of the transaction.
    ///
    /// The caller sends `begin` together with the first statement: futures that are polled together are pipelined in
    /// order, which a statement that must first be prepared would break.
    pub(crate) async fn acquire(database: &Database, statements: &[&Statement]) -> Result<Self, DbError> {
        let connection = database.connection().await?;
        for statement in statements {
            let prepared = connection.prepare_cached(statement.sql).await;
            prepared.map_err(|error| DbError::statement(statement, error))?;
        }
        Ok(Self { connection: Some(connection) })
    }

    pub(crate) fn connection(&self) -> &Connection {
        self.connection.as_ref().unwrap_or_else(|| unreachable!("only drop and release take the connection"))
    }

    /// Returns all rows of a statement.
    pub(crate) async fn rows(
        &self,
        statement: &Statement,
        params: Params<'_>,
    ) -> Result<Vec<tokio_postgres::Row>, DbError> {
        self.connection().rows(statement, params).await
    }

    /// Runs `begin`, `commit` or `rollback`.
    pub(crate) async fn run_command(&self, sql: &'static str) -> Result<(), DbError> {
        self.connection().run_command(sql).await
    }

    /// Runs the last statement and `commit` in one round trip, and returns all rows of the statement.
    ///
    /// `commit` after a failed statement succeeds and rolls back, so the statement's error is the one that is returned.
    pub(crate) async fn rows_and_commit(
        &self,
        statement: &Statement,
        params: Params<'_>,
    ) -> Result<Vec<tokio_postgres::Row>, DbError> {
        let (rows, committed) = join(self.rows(statement, params), self.run_command("commit")).await;
        let rows = rows?;
        committed?;
        Ok(rows)
    }

    /// Ends a transaction that has only read, without waiting for the database. The connection returns to the pool when
    /// `commit` has completed.
    pub(crate) fn end_read(self) {
        tokio::spawn(async move {
            if self.run_command("commit").await.is_ok() {
                self.release();
            }
        });
    }

    /// Runs a transaction and returns its value after the commit.
    ///
    /// `attempt` begins and commits it, uses only `statements`, and returns the transaction. It runs again, at most
    /// [`MAX_ATTEMPTS`] times in all, when the database has rolled the transaction back for a transient reason such as
    /// a conflict with another one. After an application error the transaction is rolled back.
    pub(crate) async fn run<T, F>(
        database: &Database,
        statements: &[&Statement],
        attempt: impl Fn(Self) -> F,
    ) -> Result<T>
    where
        F: Future<Output = (Self, Result<T, TxError>)>,
    {
        let mut attempts = 1;
        loop {
            let (transaction, outcome) = attempt(Self::acquire(database, statements).await?).await;
            match outcome {
                Ok(value) => {
                    transaction.release();
                    return Ok(value);
                }
                Err(TxError::Db(error)) if attempts < MAX_ATTEMPTS && database.should_retry(&error) => attempts += 1,
                Err(TxError::Db(error)) => return Err(error.into()),
                Err(TxError::App(error)) => {
                    if transaction.run_command("rollback").await.is_ok() {
                        transaction.release();
                    }
                    return Err(error);
                }
            }
        }
    }

    /// Returns the connection to the pool. The transaction must have ended.
    pub(crate) fn release(mut self) {
        drop(self.connection.take());
    }
}

/// The error that ended a transaction.
#[derive(Debug)]
pub(crate) enum TxError {
    /// A statement failed.
    Db(DbError),
    /// The application gave up; the connection is usable.
    App(Error),
}

impl From<DbError> for TxError {
    fn from(error: DbError) -> Self {
        Self::Db(error)
    }
}

impl From<Error> for TxError {
    fn from(error: Error) -> Self {
        Self::App(error)
    }
}

impl From<TxError> for Error {
    fn from(error: TxError) -> Self {
        match error {
            TxError::Db(error) => error.into(),
            TxError::App(error) => error,
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
