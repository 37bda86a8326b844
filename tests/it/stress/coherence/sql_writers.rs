//! Programs that write to the database directly, in transactions of every kind.

use std::time::Duration;

use tokio_postgres::{Client, NoTls};

use super::{
    model::{Register, price},
    writers::WriterPool,
};
use crate::stress::Rng;

/// The transaction in which a writer in SQL writes a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Its snapshot is older than the leases that it has to wait for.
    RepeatableRead,
    /// The same, at serializable.
    Serializable,
    /// The triggers of the commit run at each statement, and the transaction goes on.
    ImmediateConstraints,
    /// Prepared, and then committed or rolled back, at once or after a while.
    TwoPhase,
}

/// A prepared transaction is left for this number of lease durations.
const PREPARED_DURATIONS: u32 = 4;
/// Another transaction of this writer, on a connection that has broken, may hold a lock.
const LOCK_TIMEOUT: &str = "set lock_timeout = '2s'";
const RETRY_PAUSE: Duration = Duration::from_millis(20);

impl Style {
    pub const ALL: [Self; 4] = [Self::RepeatableRead, Self::Serializable, Self::ImmediateConstraints, Self::TwoPhase];

    /// Returns the transaction that writes a version of a product; the one of [`Style::TwoPhase`] has no end.
    fn transaction(self, id: usize, version: u64, rng: &mut Rng) -> String {
        let update = product_update(id, version);
        match self {
            Self::RepeatableRead | Self::Serializable => {
                let level = if self == Self::Serializable { "serializable" } else { "repeatable read" };
                let seconds = rng.below(50) as f64 / 1000.0;
                format!(
                    "begin isolation level {level}; select count(*) from products; select pg_sleep({seconds}); {update}; commit"
                )
            }
            Self::ImmediateConstraints => {
                let price = price(version);
                format!(
                    "begin; set constraints all immediate; update products set name = 'P{id} v{version}' where id = {id}; \
                     update products set description = '{version}', price = {price} where id = {id}; commit"
                )
            }
            Self::TwoPhase => format!("begin; {update}"),
        }
    }
}

impl WriterPool {
    /// Writes these products in transactions of one style.
    pub(super) async fn products_in_style(self, style: Style, ids: Vec<usize>, seed: u64) {
        let (mut rng, mut sql) = (Rng(seed), SqlWriter::new(&self.database_url));
        let mut ticks = self.ticks();
        while self.next(&mut ticks, &mut rng).await {
            let id = *rng.pick(&ids);
            let register = &self.model.products[id - 1];
            if style == Style::TwoPhase {
                self.write_in_two_phases(&mut sql, &mut rng, id, register).await;
            } else {
                let version = register.begin();
                sql.execute_until_confirmed(&style.transaction(id, version, &mut rng)).await;
                self.model.acknowledge(register, version);
            }
        }
    }

    /// Prepares a transaction, and ends it: two of three are committed.
    async fn write_in_two_phases(&self, sql: &mut SqlWriter, rng: &mut Rng, id: usize, register: &Register) {
        let is_committed = rng.below(3) > 0;
        let version = if is_committed { register.begin() } else { register.begin_rolled_back() };
        let name = sql.prepare(&Style::TwoPhase.transaction(id, version, rng)).await;
        if rng.below(2) == 0 {
            tokio::time::sleep(self.lease * PREPARED_DURATIONS).await;
        }
        let end = if is_committed { "commit" } else { "rollback" };
        sql.end_prepared(&name, end).await;
        if is_committed {
            self.model.acknowledge(register, version);
        }
    }
}

pub fn product_update(id: usize, version: u64) -> String {
    let price = price(version);
    format!("update products set name = 'P{id} v{version}', description = '{version}', price = {price} where id = {id}")
}

/// A program that writes to the database directly.
pub struct SqlWriter {
    url: String,
    client: Option<Client>,
    /// Number of transactions that it has tried to prepare.
    prepared: u64,
}

impl SqlWriter {
    pub fn new(url: &str) -> Self {
        Self { url: url.to_owned(), client: None, prepared: 0 }
    }

    /// Repeats the statements until they succeed. Each of them may be executed twice.
    pub async fn execute_until_confirmed(&mut self, statements: &str) {
        while !self.execute(statements).await {}
    }

    /// Returns whether the statements have succeeded; if not, some of them may have been executed.
    async fn execute(&mut self, statements: &str) -> bool {
        let Some(client) = self.connected().await else { return false };
        let is_done = client.batch_execute(statements).await.is_ok();
        if !is_done {
            // the connection may still be open, in a failed transaction
            self.client = None;
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        is_done
    }

    async fn connected(&mut self) -> Option<&Client> {
        if self.client.is_none() {
            match tokio_postgres::connect(&self.url, NoTls).await {
                Ok((client, connection)) => {
                    tokio::spawn(connection);
                    // what a lost connection has prepared is found after the timeout
                    client.batch_execute(LOCK_TIMEOUT).await.ok()?;
                    self.client = Some(client);
                }
                Err(_) => tokio::time::sleep(RETRY_PAUSE).await,
            }
        }
        self.client.as_ref()
    }

    /// Prepares the transaction, and returns its name. If the response to an attempt is lost, rolls back what the attempt
    /// may have prepared. Only one writer prepares transactions.
    async fn prepare(&mut self, transaction: &str) -> String {
        loop {
            for name in self.prepared().await {
                self.end_prepared(&name, "rollback").await;
            }
            self.prepared += 1;
            let name = format!("writer {}", self.prepared);
            if self.execute(&format!("{transaction}; prepare transaction '{name}'")).await {
                return name;
            }
        }
    }

    /// Ends a prepared transaction: `commit` or `rollback`.
    async fn end_prepared(&mut self, name: &str, end: &str) {
        while !self.execute(&format!("{end} prepared '{name}'")).await {
            // it was ended, and the response was lost
            if !self.prepared().await.iter().any(|prepared| prepared == name) {
                return;
            }
        }
    }

    /// Returns the names of the prepared transactions.
    async fn prepared(&mut self) -> Vec<String> {
        loop {
            let Some(client) = self.connected().await else { continue };
            let names = "select gid from pg_prepared_xacts where database = current_database()";
            match client.query(names, &[]).await {
                Ok(rows) => return rows.iter().map(|row| row.get(0)).collect(),
                Err(_) => self.client = None,
            }
        }
    }
}
