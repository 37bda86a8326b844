//! A transaction on a pooled connection that can never go back to the pool half done.

use super::{
    Connection, Database, Failure, Statement,
    pool::{Params, Verbs},
};

/// A connection with an open transaction. Dropped before its end, by an error, a panic or a client that left, the
/// connection is closed and the database rolls back.
pub struct Transaction {
    connection: Option<Connection>,
}

impl Transaction {
    /// A connection on which a transaction is about to begin, with the statements that it will run prepared. `begin`
    /// itself is sent by the caller, together with the first of them: polled together, they travel together, in order,
    /// which a statement that must be prepared first would upset.
    pub async fn on(database: &Database, statements: &[&Statement]) -> Result<Self, Failure> {
        let connection = database.connection().await?;
        for statement in statements {
            let prepared = connection.prepare_cached(statement.sql).await;
            prepared.map_err(|error| Failure::of(statement, error))?;
        }
        Ok(Self { connection: Some(connection) })
    }

    /// The connection.
    pub fn connection(&self) -> &Connection {
        self.connection.as_ref().unwrap_or_else(|| unreachable!("taken by drop and finish only"))
    }

    /// All rows of a statement.
    pub async fn rows(&self, statement: &Statement, params: Params<'_>) -> Result<Vec<tokio_postgres::Row>, Failure> {
        self.connection().rows(statement, params).await
    }

    /// `begin`, `commit`, `rollback`.
    pub async fn command(&self, sql: &'static str) -> Result<(), Failure> {
        self.connection().command(sql).await
    }

    /// The transaction has ended well: the connection may be used again.
    pub fn finish(mut self) {
        drop(self.connection.take());
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            drop(Connection::take(connection));
        }
    }
}
