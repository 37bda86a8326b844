//! Followers: each keeps a copy of the list by the change feed, from any instance, and checks the copy against the
//! writes that were acknowledged before.

use std::{
    collections::{BTreeMap, HashSet},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use hyper::Method;
use serde::Deserialize;

use super::{
    model::{LowerBound, Model},
    observation::{Observation, ProductRow},
    readers::classify,
};
use crate::{
    harness::{KeepAliveClient, TestClient, TestResponse},
    stress::Rng,
};

/// A list, and the token of its state.
struct Copy {
    rows: BTreeMap<i64, ProductRow>,
    token: String,
}

/// A response of the change feed.
#[derive(Deserialize)]
struct Page {
    token: String,
    changed: Vec<ProductRow>,
    deleted: Vec<i64>,
    #[serde(default)]
    more: bool,
}

impl Copy {
    fn from_list(response: &TestResponse) -> Result<Self, String> {
        let rows: Vec<ProductRow> = serde_json::from_slice(&response.body).map_err(|error| error.to_string())?;
        let token = response.header("x-sync-token").to_owned();
        Ok(Self { rows: rows.into_iter().map(|row| (row.id, row)).collect(), token })
    }

    /// Applies a page. Fails when it names a product twice, or products out of order.
    fn apply(&mut self, page: Page) -> Result<(), String> {
        let mut named = HashSet::new();
        let ids = page.changed.iter().map(|row| row.id).chain(page.deleted.iter().copied());
        if let Some(id) = ids.into_iter().find(|id| !named.insert(*id)) {
            return Err(format!("product {id} is twice in one page of changes"));
        }
        if !page.changed.is_sorted_by_key(|row| row.id) || !page.deleted.is_sorted() {
            return Err("a page of changes is not ordered".to_owned());
        }
        if !named.is_empty() && page.token == self.token {
            return Err("changes under the same token".to_owned());
        }
        self.rows.extend(page.changed.into_iter().map(|row| (row.id, row)));
        for id in &page.deleted {
            self.rows.remove(id);
        }
        self.token = page.token;
        Ok(())
    }
}

/// Follows the changes until `stop` is set.
pub async fn run_follower(
    model: Arc<Model>,
    client: TestClient,
    instances: Vec<SocketAddr>,
    seed: u64,
    stop: Arc<AtomicBool>,
) {
    let (mut rng, mut keep_alive, mut copy) = (Rng(seed), KeepAliveClient::default(), None);
    while !stop.load(Relaxed) {
        let client = client.on_instance(*rng.pick(&instances));
        let lower_bound = model.lower_bound();
        let checked = match &mut copy {
            Some(copy) => follow(&model, &mut keep_alive, &client, &mut rng, copy, lower_bound).await,
            None => load(&model, &mut keep_alive, &client, lower_bound).await.map(|loaded| copy = loaded),
        };
        if let Err(message) = checked {
            model.report_violation(message);
            copy = None;
        }
    }
}

/// Loads the list. Returns `None` if the response contains none.
async fn load(
    model: &Model,
    keep_alive: &mut KeepAliveClient,
    client: &TestClient,
    lower_bound: LowerBound,
) -> Result<Option<Copy>, String> {
    let response = keep_alive.send(client, Method::GET, "/api/products/", None).await;
    let Some((response, _)) = classify(model, lower_bound, response) else { return Ok(None) };
    Copy::from_list(&response).map(Some)
}

/// Reads a page of changes. After the last page, the copy is the state of a moment after the request began.
async fn follow(
    model: &Model,
    keep_alive: &mut KeepAliveClient,
    client: &TestClient,
    rng: &mut Rng,
    copy: &mut Copy,
    lower_bound: LowerBound,
) -> Result<(), String> {
    let (limit, wait) = (*rng.pick(&[1, 5, 1000, 1000, 1000]), *rng.pick(&["wait=0", "wait=1"]));
    let path = format!("/api/products/changes/?since={}&limit={limit}", copy.token);
    let response = keep_alive.send(&client.with_header("prefer", wait), Method::GET, &path, None).await;
    let Some((response, lower_bound)) = classify(model, lower_bound, response) else { return Ok(()) };
    let page: Page = serde_json::from_slice(&response.body).map_err(|error| format!("not a page: {error}"))?;
    let has_more = page.more;
    copy.apply(page)?;
    if !has_more {
        model.check(&Observation::from_rows(copy.rows.values())?, &lower_bound, true);
        model.counters.followed.fetch_add(1, Relaxed);
    }
    Ok(())
}
