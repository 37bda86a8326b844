//! Writers, through the API of any instance and in SQL like another program. Each register has one writer. When the
//! outcome of a write through the API is unknown, the writer repeats a later version in SQL until it is confirmed.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use hyper::Method;
use serde_json::{Value, json};
use tokio::{
    task::JoinHandle,
    time::{Interval, MissedTickBehavior, interval},
};

use super::{
    model::{CATEGORIES, Model, PRODUCTS, Phase, Register, SLOTS, price},
    sql_writers::{SqlWriter, Style, product_update},
};
use crate::{
    harness::{KeepAliveClient, TestClient},
    stress::Rng,
};

/// The state that all writers share.
#[derive(Clone)]
pub struct WriterPool {
    pub model: Arc<Model>,
    pub staff: TestClient,
    pub instances: Vec<SocketAddr>,
    pub database_url: String,
    pub write_interval: Duration,
    /// The duration of leases. If it is not zero, there are writers of each [`Style`].
    pub lease: Duration,
    pub stop: Arc<AtomicBool>,
    /// No write begins while this is set.
    pub is_paused: Arc<AtomicBool>,
}

/// Number of writers that share the products, without those of a [`Style`].
const PRODUCT_WRITERS: usize = 4;
/// A write is delayed by up to this share of the interval at random, if there are leases: the first of a series waits
/// for them, and it should be any of the writers.
const MAX_JITTER_PER_MILLE: u64 = 150;

impl WriterPool {
    /// Starts the writers; they end when `stop` is set.
    pub fn spawn(&self) -> Vec<JoinHandle<()>> {
        let styles: &[Style] = if self.lease.is_zero() { &[] } else { &Style::ALL };
        let shares = PRODUCT_WRITERS + styles.len();
        let ids = |share| (1 + share..=PRODUCTS).step_by(shares).collect::<Vec<_>>();
        let mut tasks = Vec::new();
        for share in 0..PRODUCT_WRITERS {
            tasks.push(tokio::spawn(self.clone().products(ids(share), 7 + share as u64)));
        }
        for (share, style) in (PRODUCT_WRITERS..).zip(styles) {
            tasks.push(tokio::spawn(self.clone().products_in_style(*style, ids(share), 7 + share as u64)));
        }
        tasks.push(tokio::spawn(self.clone().categories(3)));
        tasks.push(tokio::spawn(self.clone().twins(2)));
        tasks.push(tokio::spawn(self.clone().slots(5)));
        if !self.lease.is_zero() {
            tasks.push(tokio::spawn(self.clone().logouts(11)));
        }
        tasks
    }

    pub(super) fn random_instance(&self, rng: &mut Rng) -> TestClient {
        self.staff.on_instance(*rng.pick(&self.instances))
    }

    /// Waits for the next write; returns false when `stop` is set. Delayed ticks are not skipped.
    pub(super) async fn next(&self, ticks: &mut Interval, rng: &mut Rng) -> bool {
        ticks.tick().await;
        if !self.lease.is_zero() {
            tokio::time::sleep(self.write_interval / 1000 * u32::try_from(rng.below(MAX_JITTER_PER_MILLE)).unwrap())
                .await;
        }
        while self.is_paused.load(Relaxed) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        !self.stop.load(Relaxed)
    }

    pub(super) fn ticks(&self) -> Interval {
        let mut ticks = interval(self.write_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        ticks
    }

    /// Writes these products.
    async fn products(self, ids: Vec<usize>, seed: u64) {
        let (mut rng, mut keep_alive, mut sql) =
            (Rng(seed), KeepAliveClient::default(), SqlWriter::new(&self.database_url));
        let mut ticks = self.ticks();
        while self.next(&mut ticks, &mut rng).await {
            let id = *rng.pick(&ids);
            let register = &self.model.products[id - 1];
            let client = self.random_instance(&mut rng);
            if rng.below(2) == 0 || !self.write_via_api(&mut keep_alive, &client, id, register).await {
                let version = register.begin();
                sql.execute_until_confirmed(&product_update(id, version)).await;
                self.model.acknowledge(register, version);
            }
        }
    }

    /// Changes a product with `If-Match`. Returns false when the outcome is unknown.
    async fn write_via_api(
        &self,
        keep_alive: &mut KeepAliveClient,
        client: &TestClient,
        id: usize,
        register: &Register,
    ) -> bool {
        let path = format!("/api/products/{id}/");
        let product = keep_alive.send(client, Method::GET, &path, None).await;
        let Some(product) = product.filter(|product| product.status == 200) else { return false };
        let version = register.begin();
        let body =
            json!({"name": format!("P{id} v{version}"), "description": version.to_string(), "price": price(version)});
        let client = client.with_header("if-match", product.header("etag"));
        match keep_alive.send(&client, Method::PATCH, &path, Some(body)).await {
            Some(response) if response.status == 200 => {
                self.model.acknowledge(register, version);
                return true;
            }
            // the name of its category, which the entity tag covers, has changed: the write was not done
            Some(response) if response.status == 412 => return true,
            Some(response) if response.status != 503 => {
                self.model.report_violation(format!(
                    "a change of product {id} got {} {}",
                    response.status,
                    response.text()
                ));
            }
            _ => {}
        }
        self.model.counters.unknown_outcomes.fetch_add(1, Relaxed);
        false
    }

    /// Writes the categories, one or all in a transaction at repeatable read. In SQL only: a change through the API whose outcome is
    /// unknown could be applied later, and categories have no conditional requests to exclude that.
    async fn categories(self, seed: u64) {
        let (mut rng, mut sql) = (Rng(seed), SqlWriter::new(&self.database_url));
        let mut ticks = self.ticks();
        while self.next(&mut ticks, &mut rng).await {
            let index = rng.index(CATEGORIES + 1);
            let chosen = if index == CATEGORIES { 0..CATEGORIES } else { index..index + 1 };
            let begun: Vec<_> = chosen.map(|index| (index, self.model.categories[index].begin())).collect();
            let changes = begun.iter().map(|(index, version)| {
                let id = index + 1;
                format!("update categories set name = 'C{id} v{version}' where id = {id};")
            });
            sql.execute_until_confirmed(&format!(
                "begin isolation level repeatable read; {} commit",
                changes.collect::<String>()
            ))
            .await;
            for (index, version) in begun {
                self.model.acknowledge(&self.model.categories[index], version);
            }
        }
    }

    /// Writes the twins in one statement.
    async fn twins(self, seed: u64) {
        let (mut rng, mut sql) = (Rng(seed), SqlWriter::new(&self.database_url));
        let mut ticks = self.ticks();
        while self.next(&mut ticks, &mut rng).await {
            let version = self.model.twins.begin();
            let price = price(version);
            sql.execute_until_confirmed(&format!(
                "update products set name = 'P' || id || ' v{version}', description = '{version}', price = {price} \
                 where id in (25, 26)"
            ))
            .await;
            self.model.acknowledge(&self.model.twins, version);
        }
    }

    /// Creates products, with an idempotency key, and deletes them.
    async fn slots(self, seed: u64) {
        let (mut rng, mut keep_alive) = (Rng(seed), KeepAliveClient::default());
        let mut ids: [Option<i64>; SLOTS] = Default::default();
        let mut generations = [0; SLOTS];
        let mut ticks = self.ticks();
        while self.next(&mut ticks, &mut rng).await {
            let slot = rng.index(SLOTS);
            if let Some(id) = ids[slot].take() {
                self.model.set_slot(slot, generations[slot], Phase::Changing);
                let deletion = Write {
                    method: Method::DELETE,
                    path: format!("/api/products/{id}/"),
                    body: None,
                    idempotency_key: None,
                    // 404 when the response to an earlier attempt was lost
                    expected: &[204, 404],
                };
                self.repeat_until_known(&mut keep_alive, &mut rng, &deletion).await;
                self.model.set_slot(slot, generations[slot], Phase::Absent);
            } else {
                generations[slot] += 1;
                let generation = generations[slot];
                self.model.set_slot(slot, generation, Phase::Changing);
                let name = format!("slot {slot} {generation}");
                let creation = Write {
                    method: Method::POST,
                    path: "/api/products/".to_owned(),
                    body: Some(json!({"name": name, "price": 1, "category_id": 1 + slot % 3, "tags": ["new"]})),
                    idempotency_key: Some(format!("{slot} {generation}")),
                    expected: &[201],
                };
                let product = self.repeat_until_known(&mut keep_alive, &mut rng, &creation).await;
                ids[slot] = Some(product["id"].as_i64().unwrap());
                self.model.set_slot(slot, generation, Phase::Present);
            }
        }
    }

    /// Repeats a write on any instance until its outcome is known, and returns the body of the response.
    async fn repeat_until_known(&self, keep_alive: &mut KeepAliveClient, rng: &mut Rng, write: &Write) -> Value {
        let Write { method, path, body, idempotency_key, expected } = write;
        loop {
            let mut client = self.random_instance(rng);
            if let Some(key) = idempotency_key {
                client = client.with_header("idempotency-key", key);
            }
            match keep_alive.send(&client, method.clone(), path, body.clone()).await {
                Some(response) if expected.contains(&response.status.as_u16()) => {
                    return serde_json::from_slice(&response.body).unwrap_or_default();
                }
                Some(response) if response.status != 503 => {
                    let message = format!("{method} {path} got {} {}", response.status, response.text());
                    self.model.report_violation(message);
                }
                _ => {}
            }
            self.model.counters.unknown_outcomes.fetch_add(1, Relaxed);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A request that may be sent several times.
struct Write {
    method: Method,
    path: String,
    body: Option<Value>,
    idempotency_key: Option<String>,
    /// Statuses of a write that is done.
    expected: &'static [u16],
}
