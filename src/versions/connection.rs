//! The connection of a version reader, and what is read on it.

use std::{future::Future, pin::Pin, time::Duration};

use futures_util::future::{Either, join, select};
use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};

use super::{
    lease::Granted,
    tickets::Ticket,
    version::{Version, Versions},
};
use crate::db::{Database, DbError, statements};

/// Processes a new version of the accounts before any request that waits for the read continues.
pub(crate) trait AccountObserver: Send + Sync + 'static {
    /// Synchronizes with the database on the connection of the version read. `reconnected` is true on a new connection:
    /// what was read before may belong to another history.
    fn sync<'a>(
        &'a self,
        client: &'a Client,
        accounts: Version,
        reconnected: bool,
    ) -> Pin<Box<dyn Future<Output = Result<(), DbError>> + Send + 'a>>;
}

/// The plan of the statement is kept while the logs grow. A plan that was made while they had few rows would read all of
/// them.
const USE_INDEXES_SQL: &str = "set enable_seqscan = off";

/// A connection for version reads only. The task that reads drives it: a connection in its own task would cost two more
/// wake-ups per read.
pub(super) struct VersionConnection {
    client: Client,
    connection: Pin<Box<dyn Future<Output = Result<(), tokio_postgres::Error>> + Send>>,
    statement: tokio_postgres::Statement,
    /// No read has succeeded on this connection.
    reconnected: bool,
}

impl VersionConnection {
    pub(super) async fn open(database: &Database) -> Result<Self, DbError> {
        let (client, connection) = database.connect().await?;
        let mut connection: Pin<Box<dyn Future<Output = _> + Send>> = Box::pin(connection);
        let sql = statements::VERSIONS_READ.sql;
        let prepare = async {
            let (set, statement) = join(client.batch_execute(USE_INDEXES_SQL), client.prepare(sql)).await;
            set.and(statement).map_err(read_error)
        };
        let statement = poll_with_connection(prepare, &mut connection).await?;
        Ok(Self { client, connection, statement, reconnected: true })
    }

    /// Reads the versions, and then the revocations up to them.
    pub(super) async fn read(&mut self, observer: &dyn AccountObserver) -> Result<Versions, DbError> {
        let Self { client, connection, statement, reconnected } = self;
        let read = async {
            let versions = read_versions(client, statement).await?;
            observer.sync(client, versions.accounts, *reconnected).await?;
            Ok(versions)
        };
        let versions = poll_with_connection(read, connection).await?;
        *reconnected = false;
        Ok(versions)
    }

    /// Reads the versions with a lease, if they are older than `min_age`, and then the revocations up to them.
    pub(super) async fn read_leased(
        &mut self,
        observer: &dyn AccountObserver,
        min_age: Duration,
    ) -> Result<(Versions, Granted), DbError> {
        let Self { client, connection, reconnected, .. } = self;
        let read = async {
            let (versions, lease) = read_versions_leased(client, min_age).await?;
            observer.sync(client, versions.accounts, *reconnected).await?;
            Ok((versions, lease))
        };
        let read = poll_with_connection(read, connection).await?;
        *reconnected = false;
        Ok(read)
    }
}

fn read_error(error: tokio_postgres::Error) -> DbError {
    DbError::statement(&statements::VERSIONS_READ, error)
}

async fn read_versions(client: &Client, statement: &tokio_postgres::Statement) -> Result<Versions, DbError> {
    let row = client.query_one(statement, &[]).await.map_err(read_error)?;
    Ok(Versions {
        catalogue: Version { number: row.get(0), token: row.get(1) },
        accounts: Version { number: row.get(2), token: row.get(3) },
    })
}

/// A simple query: it is one message, so a connection that breaks cannot leave PostgreSQL waiting for the message that
/// ends the transaction, which holds a lock that writers wait for.
async fn read_versions_leased(client: &Client, min_age: Duration) -> Result<(Versions, Granted), DbError> {
    let statement = &statements::VERSIONS_READ_LEASED;
    let sql = statement.sql.replace("($1)", &format!("({})", min_age.as_millis()));
    let messages = client.simple_query(&sql).await.map_err(|error| DbError::statement(statement, error))?;
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => parse_leased(row),
        _ => None,
    });
    row.ok_or_else(|| DbError::unexpected_response(statement))
}

fn parse_leased(row: &SimpleQueryRow) -> Option<(Versions, Granted)> {
    let version =
        |number, token| Some(Version { number: row.get(number)?.parse().ok()?, token: row.get(token)?.parse().ok()? });
    let versions = Versions { catalogue: version(0, 1)?, accounts: version(2, 3)? };
    let granted = match row.get(4).map(str::parse) {
        None => Granted::Locked,
        Some(Ok(0)) => Granted::Unleased,
        Some(millis) => {
            let ticket = Ticket { number: row.get(5)?.parse().ok()?, epoch: row.get(6)?.parse().ok()? };
            Granted::For(Duration::from_millis(millis.ok()?), ticket)
        }
    };
    Some((versions, granted))
}

/// Polls `work` together with the connection that it uses, until the work is done.
async fn poll_with_connection<T>(
    work: impl Future<Output = Result<T, DbError>>,
    connection: &mut (impl Future<Output = Result<(), tokio_postgres::Error>> + Unpin),
) -> Result<T, DbError> {
    let work = std::pin::pin!(work);
    // the connection is polled first: the work sees a response that has arrived in the same poll
    match select(connection, work).await {
        Either::Right((result, _)) => result,
        Either::Left((closed, _)) => Err(DbError::connection_closed(&statements::VERSIONS_READ, closed.err())),
    }
}
