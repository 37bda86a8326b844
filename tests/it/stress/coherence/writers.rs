//! Writers: through the API of any instance, and in SQL as another program would. Each owns its registers. Where the
//! outcome of a write stays unknown the writer makes sure of a later one in SQL before it goes on.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use hyper::Method;
use serde_json::json;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::model::{CATEGORIES, Model, PRODUCTS, Phase, Register, SLOTS, price};
use crate::{
    harness::{KeepAliveClient, TestClient},
    stress::Rng,
};

/// What writers have in common.
#[derive(Clone)]
pub struct WriterPool {
    pub model: Arc<Model>,
    pub staff: TestClient,
    pub instances: Vec<SocketAddr>,
    pub database_url: String,
    pub write_interval: Duration,
    pub stop: Arc<AtomicBool>,
}

/// How many writers share the products.
pub const PRODUCT_WRITERS: usize = 4;

impl WriterPool {
    fn random_instance(&self, rng: &mut Rng) -> TestClient {
        let place = usize::try_from(rng.below(self.instances.len() as u64)).unwrap();
        self.staff.on_instance(self.instances[place])
    }

    /// True once each `write_interval`, what was missed included, until they are told to stop.
    async fn next(&self, write_interval: &mut Interval) -> bool {
        write_interval.tick().await;
        !self.stop.load(Relaxed)
    }

    fn write_interval(&self) -> Interval {
        let mut write_interval = interval(self.write_interval);
        write_interval.set_missed_tick_behavior(MissedTickBehavior::Burst);
        write_interval
    }

    /// The products `share`, `share + SHARES`, ...
    pub async fn products(self, share: usize, seed: u64) {
        let (mut rng, mut keep_alive, mut sql) =
            (Rng(seed), KeepAliveClient::default(), SqlWriter::new(&self.database_url));
        let mine: Vec<usize> = (0..PRODUCTS).filter(|number| number % PRODUCT_WRITERS == share).collect();
        let mut write_interval = self.write_interval();
        while self.next(&mut write_interval).await {
            let number = mine[usize::try_from(rng.below(mine.len() as u64)).unwrap()];
            let register = &self.model.products[number];
            let caller = self.random_instance(&mut rng);
            if rng.below(2) == 0 || !self.write_via_api(&mut keep_alive, &caller, number + 1, register).await {
                let version = register.begin();
                sql.execute_until_confirmed(&product_update(number as u64 + 1, version)).await;
                register.acknowledge(version);
            }
        }
    }

    /// A change under the condition that nobody else was there; false when its outcome is not known.
    async fn write_via_api(
        &self,
        keep_alive: &mut KeepAliveClient,
        caller: &TestClient,
        id: usize,
        register: &Register,
    ) -> bool {
        let path = format!("/api/products/{id}/");
        let Some(shown) = keep_alive.send(caller, Method::GET, &path, None).await.filter(|shown| shown.status == 200)
        else {
            return false;
        };
        let version = register.begin();
        let body =
            json!({"name": format!("P{id} v{version}"), "description": version.to_string(), "price": price(version)});
        let caller = caller.with_header("if-match", shown.header("etag"));
        match keep_alive.send(&caller, Method::PATCH, &path, Some(body)).await {
            Some(response) if response.status == 200 => {
                register.acknowledge(version);
                return true;
            }
            // its category has another name now, which is a part of it: certainly not done
            Some(response) if response.status == 412 => return true,
            Some(response) if response.status != 503 => {
                self.model.report_violation(format!(
                    "a change of {id} was answered {} {}",
                    response.status,
                    response.text()
                ));
            }
            _ => {}
        }
        self.model.seen.unknown_outcomes.fetch_add(1, Relaxed);
        false
    }

    /// The categories, one at a time or all in one transaction. In SQL alone: where the outcome of a change through the API
    /// is unknown, only a condition could settle it, and categories know none.
    pub async fn categories(self, seed: u64) {
        let (mut rng, mut sql) = (Rng(seed), SqlWriter::new(&self.database_url));
        let mut write_interval = self.write_interval();
        while self.next(&mut write_interval).await {
            let number = usize::try_from(rng.below(CATEGORIES as u64 + 1)).unwrap();
            let chosen = if number == CATEGORIES { 0..CATEGORIES } else { number..number + 1 };
            let begun: Vec<_> = chosen.map(|number| (number, self.model.categories[number].begin())).collect();
            let changes = begun.iter().map(|(number, version)| {
                let id = number + 1;
                format!("update categories set name = 'C{id} v{version}' where id = {id};")
            });
            sql.execute_until_confirmed(&format!("begin; {} commit", changes.collect::<String>())).await;
            for (number, version) in begun {
                self.model.categories[number].acknowledge(version);
            }
        }
    }

    /// Two products in one statement.
    pub async fn twins(self) {
        let mut sql = SqlWriter::new(&self.database_url);
        let mut write_interval = self.write_interval();
        while self.next(&mut write_interval).await {
            let version = self.model.twins.begin();
            let price = price(version);
            sql.execute_until_confirmed(&format!(
                "update products set name = 'P' || id || ' v{version}', description = '{version}', price = {price} where id in (25, 26)"
            ))
            .await;
            self.model.twins.acknowledge(version);
        }
    }

    /// Products that come, under an idempotency key, and go.
    pub async fn slots(self, seed: u64) {
        let (mut rng, mut keep_alive) = (Rng(seed), KeepAliveClient::default());
        let mut ids: [Option<i64>; SLOTS] = Default::default();
        let mut generations = [0; SLOTS];
        let mut write_interval = self.write_interval();
        while self.next(&mut write_interval).await {
            let number = usize::try_from(rng.below(SLOTS as u64)).unwrap();
            if let Some(id) = ids[number].take() {
                self.model.set_slot(number, generations[number], Phase::Changing);
                // gone already, where the answer to an earlier attempt was lost
                self.retry_until_known(
                    &mut keep_alive,
                    &mut rng,
                    Method::DELETE,
                    &format!("/api/products/{id}/"),
                    None,
                    None,
                    &[204, 404],
                )
                .await;
                self.model.set_slot(number, generations[number], Phase::Absent);
            } else {
                generations[number] += 1;
                let generation = generations[number];
                self.model.set_slot(number, generation, Phase::Changing);
                let body = json!({"name": format!("slot {number} {generation}"), "price": 1, "category_id": 1 + number % 3, "tags": ["new"]});
                let key = format!("{number} {generation}");
                let made = self
                    .retry_until_known(
                        &mut keep_alive,
                        &mut rng,
                        Method::POST,
                        "/api/products/",
                        Some(body),
                        Some(&key),
                        &[201],
                    )
                    .await;
                ids[number] = Some(made["id"].as_i64().unwrap());
                self.model.set_slot(number, generation, Phase::Present);
            }
        }
    }

    /// Again and again, anywhere, until somebody tells how it went.
    #[allow(clippy::too_many_arguments, reason = "a request has so many parts")]
    async fn retry_until_known(
        &self,
        keep_alive: &mut KeepAliveClient,
        rng: &mut Rng,
        method: Method,
        path: &str,
        body: Option<serde_json::Value>,
        key: Option<&str>,
        good: &[u16],
    ) -> serde_json::Value {
        loop {
            let mut caller = self.random_instance(rng);
            if let Some(key) = key {
                caller = caller.with_header("idempotency-key", key);
            }
            match keep_alive.send(&caller, method.clone(), path, body.clone()).await {
                Some(response) if good.contains(&response.status.as_u16()) => {
                    return serde_json::from_slice(&response.body).unwrap_or_default();
                }
                Some(response) if response.status != 503 => {
                    self.model.report_violation(format!(
                        "{method} {path} was answered {} {}",
                        response.status,
                        response.text()
                    ));
                }
                _ => {}
            }
            self.model.seen.unknown_outcomes.fetch_add(1, Relaxed);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn product_update(id: u64, version: u64) -> String {
    let price = price(version);
    format!("update products set name = 'P{id} v{version}', description = '{version}', price = {price} where id = {id}")
}

/// Another program at the database itself.
struct SqlWriter {
    url: String,
    client: Option<tokio_postgres::Client>,
}

impl SqlWriter {
    fn new(url: &str) -> Self {
        Self { url: url.to_owned(), client: None }
    }

    /// Until it is certain that it was done. Each of these statements may be done twice.
    async fn execute_until_confirmed(&mut self, statements: &str) {
        loop {
            if let Some(client) = &self.client {
                match client.batch_execute(statements).await {
                    Ok(()) => return,
                    // where it lives on, it may stand in a transaction that failed
                    Err(_) => self.client = None,
                }
            }
            match tokio_postgres::connect(&self.url, tokio_postgres::NoTls).await {
                Ok((client, connection)) => {
                    tokio::spawn(connection);
                    self.client = Some(client);
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }
}
