//! Readers: each sends various requests to one instance, and checks the responses against the writes that were
//! acknowledged before.

use std::{
    collections::HashMap,
    io::Read,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use flate2::read::GzDecoder;
use hyper::Method;

use super::{
    model::{LowerBound, Model, PRODUCTS},
    observation::{Observation, ProductRow},
};
use crate::{
    harness::{KeepAliveClient, TestClient, TestResponse},
    stress::Rng,
};

/// Sends requests until `stop` is set.
pub async fn run_reader(model: Arc<Model>, client: TestClient, seed: u64, stop: Arc<AtomicBool>) {
    let (mut rng, mut keep_alive, mut last_seen) = (Rng(seed), KeepAliveClient::default(), HashMap::new());
    while !stop.load(Relaxed) {
        match rng.below(100) {
            0..25 => read_list(&model, &mut keep_alive, &client, "identity", &mut last_seen, false).await,
            25..35 => read_list(&model, &mut keep_alive, &client, "gzip", &mut last_seen, false).await,
            35..85 => read_list(&model, &mut keep_alive, &client, "identity", &mut last_seen, true).await,
            85..94 => {
                let path = format!("/api/products/{}/", 1 + rng.below(PRODUCTS as u64));
                read_partial(&model, &mut keep_alive, &client, &path).await;
            }
            94..97 => read_partial(&model, &mut keep_alive, &client, "/api/products/?page_size=10").await,
            97..99 => {
                read_partial(&model, &mut keep_alive, &client, "/api/products/?tag=eco&ordering=-price&page=1").await;
            }
            _ => read_export(&model, &mut keep_alive, &client).await,
        }
    }
}

/// Counts a response. Returns it with the lower bound to check it against, or `None` when it contains nothing to check.
pub(super) fn classify(
    model: &Model,
    lower_bound: LowerBound,
    response: Option<TestResponse>,
) -> Option<(TestResponse, LowerBound)> {
    let Some(response) = response else {
        model.counters.disconnected.fetch_add(1, Relaxed);
        return None;
    };
    model.counters.reads.fetch_add(1, Relaxed);
    match response.status.as_u16() {
        200 | 304 if response.header("cache-status").ends_with("detail=stale") => {
            model.counters.labelled_stale.fetch_add(1, Relaxed);
            Some((response, LowerBound::none()))
        }
        200 | 304 => Some((response, lower_bound)),
        503 if !response.header("retry-after").is_empty() => {
            model.counters.unavailable.fetch_add(1, Relaxed);
            None
        }
        _ => {
            model.report_violation(format!("{} {}", response.status, response.text()));
            None
        }
    }
}

/// The last list of each encoding, with its entity tag.
type LastSeen = HashMap<&'static str, (String, Arc<Observation>)>;

async fn read_list(
    model: &Model,
    keep_alive: &mut KeepAliveClient,
    client: &TestClient,
    encoding: &'static str,
    last_seen: &mut LastSeen,
    is_conditional: bool,
) {
    let mut client = client.with_header("accept-encoding", encoding);
    if let Some((etag, _)) = last_seen.get(encoding).filter(|_| is_conditional) {
        client = client.with_header("if-none-match", etag);
    }
    let lower_bound = model.lower_bound();
    let response = keep_alive.send(&client, Method::GET, "/api/products/", None).await;
    let Some((response, lower_bound)) = classify(model, lower_bound, response) else { return };
    let etag = response.header("etag").to_owned();
    if response.status == 304 {
        model.counters.not_modified.fetch_add(1, Relaxed);
        match last_seen.get(encoding) {
            Some((known, observation)) if *known == etag => model.check(observation, &lower_bound, true),
            _ => model.report_violation(format!("304 for {etag}, which was not in the request")),
        }
        return;
    }
    let parse = |mut body: &[u8]| {
        let mut json = Vec::new();
        match encoding {
            "gzip" => GzDecoder::new(body).read_to_end(&mut json),
            _ => body.read_to_end(&mut json),
        }
        .map_err(|error| format!("not gzip: {error}"))?;
        Observation::from_json(&json)
    };
    let Some(observation) = model.check_etag(&etag, &response.body, parse) else { return };
    model.check(&observation, &lower_bound, true);
    last_seen.insert(encoding, (etag, observation));
}

/// Reads one product or a page of the list.
async fn read_partial(model: &Model, keep_alive: &mut KeepAliveClient, client: &TestClient, path: &str) {
    let lower_bound = model.lower_bound();
    let response = keep_alive.send(client, Method::GET, path, None).await;
    let Some((response, lower_bound)) = classify(model, lower_bound, response) else { return };
    let parse = |body: &[u8]| match body.first() {
        Some(b'{') => Observation::from_json(&[b"[", body, b"]"].concat()),
        _ => Observation::from_json(body),
    };
    if let Some(observation) = model.check_etag(response.header("etag"), &response.body, parse) {
        model.check(&observation, &lower_bound, false);
    }
}

/// Reads the full catalogue as CSV.
async fn read_export(model: &Model, keep_alive: &mut KeepAliveClient, client: &TestClient) {
    let lower_bound = model.lower_bound();
    let path = "/api/products/export/?format=csv";
    let response = keep_alive.send(client, Method::GET, path, None).await;
    let Some((response, lower_bound)) = classify(model, lower_bound, response) else { return };
    if let Some(observation) = model.check_etag(response.header("etag"), &response.body, parse_csv) {
        model.check(&observation, &lower_bound, true);
    }
}

fn parse_csv(csv: &[u8]) -> Result<Observation, String> {
    let mut rows = Vec::new();
    for row in csv::Reader::from_reader(csv).records() {
        let row = row.map_err(|error| format!("not CSV: {error}"))?;
        rows.push(ProductRow {
            id: row[0].parse().unwrap(),
            name: row[1].to_owned(),
            description: row[2].to_owned(),
            category_name: row[3].to_owned(),
            price: serde_json::from_str(&row[4]).unwrap(),
            tags: row[6].split(", ").map(str::to_owned).collect(),
        });
    }
    Observation::from_rows(&rows)
}
