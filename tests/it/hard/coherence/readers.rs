//! Readers: each asks one instance for anything, and holds the answer against what had been acknowledged before.

use std::{
    collections::HashMap,
    io::Read,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed, Ordering::SeqCst},
    },
};

use flate2::read::GzDecoder;
use hyper::Method;

use super::model::{Model, PRODUCTS, Row, Shown};
use crate::{
    hard::Dice,
    harness::{Answer, Caller, Kept},
};

/// Reads until it is stopped.
pub async fn read(model: Arc<Model>, caller: Caller, seed: u64, stop: Arc<AtomicBool>) {
    let (mut dice, mut kept, mut had) = (Dice(seed), Kept::default(), HashMap::new());
    while !stop.load(Relaxed) {
        match dice.below(100) {
            0..25 => list(&model, &mut kept, &caller, "identity", &mut had, false).await,
            25..35 => list(&model, &mut kept, &caller, "gzip", &mut had, false).await,
            35..85 => list(&model, &mut kept, &caller, "identity", &mut had, true).await,
            85..94 => {
                let path = format!("/api/products/{}/", 1 + dice.below(PRODUCTS as u64));
                part(&model, &mut kept, &caller, &path).await;
            }
            94..97 => part(&model, &mut kept, &caller, "/api/products/?page_size=10").await,
            97..99 => part(&model, &mut kept, &caller, "/api/products/?tag=eco&ordering=-price&page=1").await,
            _ => export(&model, &mut kept, &caller).await,
        }
    }
}

/// What is to be judged: an answer that says nothing about its own age.
fn fresh(model: &Model, answer: Option<Answer>) -> Option<Answer> {
    let Some(answer) = answer else {
        model.seen.broken_off.fetch_add(1, Relaxed);
        return None;
    };
    model.seen.reads.fetch_add(1, Relaxed);
    match answer.status.as_u16() {
        200 | 304 if answer.header("cache-status").ends_with("detail=stale") => {
            model.seen.labelled_stale.fetch_add(1, Relaxed);
            None
        }
        200 | 304 => Some(answer),
        503 if !answer.header("retry-after").is_empty() => {
            model.seen.turned_away.fetch_add(1, Relaxed);
            None
        }
        _ => {
            model.violated(format!("{} {}", answer.status, answer.text()));
            None
        }
    }
}

/// The last list of each encoding: its entity tag, and what it says.
type Had = HashMap<&'static str, (String, Arc<Shown>)>;

async fn list(
    model: &Model,
    kept: &mut Kept,
    caller: &Caller,
    encoding: &'static str,
    had: &mut Had,
    conditionally: bool,
) {
    let mut caller = caller.with("accept-encoding", encoding);
    if let Some((etag, _)) = had.get(encoding).filter(|_| conditionally) {
        caller = caller.with("if-none-match", etag);
    }
    let floor = model.floor();
    let Some(answer) = fresh(model, kept.send(&caller, Method::GET, "/api/products/", None).await) else { return };
    let etag = answer.header("etag").to_owned();
    if answer.status == 304 {
        model.seen.not_modified.fetch_add(1, SeqCst);
        match had.get(encoding) {
            Some((known, shown)) if *known == etag => model.check(shown, &floor, true),
            _ => model.violated(format!("304 for {etag}, which was not asked about")),
        }
        return;
    }
    let json = |body: &[u8]| {
        let mut json = Vec::new();
        let mut body = body;
        match encoding {
            "gzip" => GzDecoder::new(body).read_to_end(&mut json),
            _ => body.read_to_end(&mut json),
        }
        .map_err(|error| format!("no gzip: {error}"))?;
        Ok(json)
    };
    let Some(shown) = model.list(&etag, &answer.body, json) else { return };
    model.check(&shown, &floor, true);
    had.insert(encoding, (etag, shown));
}

/// One product, or some of them.
async fn part(model: &Model, kept: &mut Kept, caller: &Caller, path: &str) {
    let floor = model.floor();
    let Some(answer) = fresh(model, kept.send(caller, Method::GET, path, None).await) else { return };
    let json = if answer.body.starts_with(b"{") { [b"[", &*answer.body, b"]"].concat() } else { answer.body.to_vec() };
    if let Some(shown) = model.shown(&json) {
        model.check(&shown, &floor, false);
    }
}

/// All of it as CSV: each product that is a register, not older than it may be.
async fn export(model: &Model, kept: &mut Kept, caller: &Caller) {
    let floor = model.floor();
    let path = "/api/products/export/?format=csv";
    let Some(answer) = fresh(model, kept.send(caller, Method::GET, path, None).await) else { return };
    let mut reader = csv::Reader::from_reader(&*answer.body);
    let mut rows = Vec::new();
    for row in reader.records() {
        let Ok(row) = row else { return model.violated(format!("no CSV: {row:?}")) };
        rows.push(Row {
            id: row[0].parse().unwrap(),
            name: row[1].to_owned(),
            description: row[2].to_owned(),
            category_name: row[3].to_owned(),
            price: serde_json::from_str(&row[4]).unwrap(),
            tags: row[6].split(", ").map(str::to_owned).collect(),
        });
    }
    match Shown::by(&rows) {
        Ok(shown) => model.check(&shown, &floor, true),
        Err(words) => model.violated(words),
    }
}
