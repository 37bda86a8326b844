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
    hard::Dice,
    harness::{Caller, Kept},
};

/// What writers have in common.
#[derive(Clone)]
pub struct Desk {
    pub model: Arc<Model>,
    pub staff: Caller,
    pub instances: Vec<SocketAddr>,
    pub database_url: String,
    pub pace: Duration,
    pub stop: Arc<AtomicBool>,
}

/// How many writers share the products.
pub const SHARES: usize = 4;

impl Desk {
    fn anywhere(&self, dice: &mut Dice) -> Caller {
        let place = usize::try_from(dice.below(self.instances.len() as u64)).unwrap();
        self.staff.at(self.instances[place])
    }

    /// True once each `pace`, what was missed included, until they are told to stop.
    async fn next(&self, pace: &mut Interval) -> bool {
        pace.tick().await;
        !self.stop.load(Relaxed)
    }

    fn pace(&self) -> Interval {
        let mut pace = interval(self.pace);
        pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
        pace
    }

    /// The products `share`, `share + SHARES`, ...
    pub async fn products(self, share: usize, seed: u64) {
        let (mut dice, mut kept, mut sql) = (Dice(seed), Kept::default(), Sql::new(&self.database_url));
        let mine: Vec<usize> = (0..PRODUCTS).filter(|number| number % SHARES == share).collect();
        let mut pace = self.pace();
        while self.next(&mut pace).await {
            let number = mine[usize::try_from(dice.below(mine.len() as u64)).unwrap()];
            let register = &self.model.products[number];
            let caller = self.anywhere(&mut dice);
            if dice.below(2) == 0 || !self.through_the_api(&mut kept, &caller, number + 1, register).await {
                let version = register.begin();
                sql.sure(&product_is(number as u64 + 1, version)).await;
                register.acknowledge(version);
            }
        }
    }

    /// A change under the condition that nobody else was there; false when its outcome is not known.
    async fn through_the_api(&self, kept: &mut Kept, caller: &Caller, id: usize, register: &Register) -> bool {
        let path = format!("/api/products/{id}/");
        let Some(shown) = kept.send(caller, Method::GET, &path, None).await.filter(|shown| shown.status == 200) else {
            return false;
        };
        let version = register.begin();
        let body =
            json!({"name": format!("P{id} v{version}"), "description": version.to_string(), "price": price(version)});
        let caller = caller.with("if-match", shown.header("etag"));
        match kept.send(&caller, Method::PATCH, &path, Some(body)).await {
            Some(answer) if answer.status == 200 => {
                register.acknowledge(version);
                return true;
            }
            // its category has another name now, which is a part of it: certainly not done
            Some(answer) if answer.status == 412 => return true,
            Some(answer) if answer.status != 503 => {
                self.model.violated(format!("a change of {id} was answered {} {}", answer.status, answer.text()));
            }
            _ => {}
        }
        self.model.seen.unknown_outcomes.fetch_add(1, Relaxed);
        false
    }

    /// The categories, one at a time or all in one transaction. In SQL alone: where the outcome of a change through the API
    /// is unknown, only a condition could settle it, and categories know none.
    pub async fn categories(self, seed: u64) {
        let (mut dice, mut sql) = (Dice(seed), Sql::new(&self.database_url));
        let mut pace = self.pace();
        while self.next(&mut pace).await {
            let number = usize::try_from(dice.below(CATEGORIES as u64 + 1)).unwrap();
            let chosen = if number == CATEGORIES { 0..CATEGORIES } else { number..number + 1 };
            let begun: Vec<_> = chosen.map(|number| (number, self.model.categories[number].begin())).collect();
            let changes = begun.iter().map(|(number, version)| {
                let id = number + 1;
                format!("update categories set name = 'C{id} v{version}' where id = {id};")
            });
            sql.sure(&format!("begin; {} commit", changes.collect::<String>())).await;
            for (number, version) in begun {
                self.model.categories[number].acknowledge(version);
            }
        }
    }

    /// Two products in one statement.
    pub async fn twins(self) {
        let mut sql = Sql::new(&self.database_url);
        let mut pace = self.pace();
        while self.next(&mut pace).await {
            let version = self.model.twins.begin();
            let price = price(version);
            sql.sure(&format!(
                "update products set name = 'P' || id || ' v{version}', description = '{version}', price = {price} where id in (25, 26)"
            ))
            .await;
            self.model.twins.acknowledge(version);
        }
    }

    /// Products that come, under an idempotency key, and go.
    pub async fn slots(self, seed: u64) {
        let (mut dice, mut kept) = (Dice(seed), Kept::default());
        let mut there: [Option<i64>; SLOTS] = Default::default();
        let mut comings = [0; SLOTS];
        let mut pace = self.pace();
        while self.next(&mut pace).await {
            let number = usize::try_from(dice.below(SLOTS as u64)).unwrap();
            if let Some(id) = there[number].take() {
                self.model.set_slot(number, comings[number], Phase::Between);
                // gone already, where the answer to an earlier attempt was lost
                self.until_told(
                    &mut kept,
                    &mut dice,
                    Method::DELETE,
                    &format!("/api/products/{id}/"),
                    None,
                    None,
                    &[204, 404],
                )
                .await;
                self.model.set_slot(number, comings[number], Phase::Absent);
            } else {
                comings[number] += 1;
                let coming = comings[number];
                self.model.set_slot(number, coming, Phase::Between);
                let body = json!({"name": format!("slot {number} {coming}"), "price": 1, "category_id": 1 + number % 3, "tags": ["new"]});
                let key = format!("{number} {coming}");
                let made = self
                    .until_told(&mut kept, &mut dice, Method::POST, "/api/products/", Some(body), Some(&key), &[201])
                    .await;
                there[number] = Some(made["id"].as_i64().unwrap());
                self.model.set_slot(number, coming, Phase::Present);
            }
        }
    }

    /// Again and again, anywhere, until somebody tells how it went.
    #[allow(clippy::too_many_arguments, reason = "a request has so many parts")]
    async fn until_told(
        &self,
        kept: &mut Kept,
        dice: &mut Dice,
        method: Method,
        path: &str,
        body: Option<serde_json::Value>,
        key: Option<&str>,
        good: &[u16],
    ) -> serde_json::Value {
        loop {
            let mut caller = self.anywhere(dice);
            if let Some(key) = key {
                caller = caller.with("idempotency-key", key);
            }
            match kept.send(&caller, method.clone(), path, body.clone()).await {
                Some(answer) if good.contains(&answer.status.as_u16()) => {
                    return serde_json::from_slice(&answer.body).unwrap_or_default();
                }
                Some(answer) if answer.status != 503 => {
                    self.model.violated(format!("{method} {path} was answered {} {}", answer.status, answer.text()));
                }
                _ => {}
            }
            self.model.seen.unknown_outcomes.fetch_add(1, Relaxed);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn product_is(id: u64, version: u64) -> String {
    let price = price(version);
    format!("update products set name = 'P{id} v{version}', description = '{version}', price = {price} where id = {id}")
}

/// Another program at the database itself.
struct Sql {
    url: String,
    client: Option<tokio_postgres::Client>,
}

impl Sql {
    fn new(url: &str) -> Self {
        Self { url: url.to_owned(), client: None }
    }

    /// Until it is certain that it was done. Each of these statements may be done twice.
    async fn sure(&mut self, statements: &str) {
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
