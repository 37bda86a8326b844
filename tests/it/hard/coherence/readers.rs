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

use super::model::{Floor, Model, PRODUCTS, Row, Shown};
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

/// An answer to be judged, and what it is held against: what had been acknowledged before, unless it says that it may be old.
fn judged(model: &Model, floor: Floor, answer: Option<Answer>) -> Option<(Answer, Floor)> {
    let Some(answer) = answer else {
        model.seen.broken_off.fetch_add(1, Relaxed);
        return None;
    };
    model.seen.reads.fetch_add(1, Relaxed);
    match answer.status.as_u16() {
        200 | 304 if answer.header("cache-status").ends_with("detail=stale") => {
            model.seen.labelled_stale.fetch_add(1, Relaxed);
            Some((answer, Floor::none()))
        }
        200 | 304 => Some((answer, floor)),
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
    let answer = kept.send(&caller, Method::GET, "/api/products/", None).await;
    let Some((answer, floor)) = judged(model, floor, answer) else { return };
    let etag = answer.header("etag").to_owned();
    if answer.status == 304 {
        model.seen.not_modified.fetch_add(1, SeqCst);
        match had.get(encoding) {
            Some((known, shown)) if *known == etag => model.check(shown, &floor, true),
            _ => model.violated(format!("304 for {etag}, which was not asked about")),
        }
        return;
    }
    let read = |mut body: &[u8]| {
        let mut json = Vec::new();
        match encoding {
            "gzip" => GzDecoder::new(body).read_to_end(&mut json),
            _ => body.read_to_end(&mut json),
        }
        .map_err(|error| format!("no gzip: {error}"))?;
        Shown::list(&json)
    };
    let Some(shown) = model.told(&etag, &answer.body, read) else { return };
    model.check(&shown, &floor, true);
    had.insert(encoding, (etag, shown));
}

/// One product, or some of them.
async fn part(model: &Model, kept: &mut Kept, caller: &Caller, path: &str) {
    let floor = model.floor();
    let answer = kept.send(caller, Method::GET, path, None).await;
    let Some((answer, floor)) = judged(model, floor, answer) else { return };
    let read = |body: &[u8]| match body.first() {
        Some(b'{') => Shown::list(&[b"[", body, b"]"].concat()),
        _ => Shown::list(body),
    };
    if let Some(shown) = model.told(answer.header("etag"), &answer.body, read) {
        model.check(&shown, &floor, false);
    }
}

/// All of it as CSV: each product that is a register, not older than it may be.
async fn export(model: &Model, kept: &mut Kept, caller: &Caller) {
    let floor = model.floor();
    let path = "/api/products/export/?format=csv";
    let answer = kept.send(caller, Method::GET, path, None).await;
    let Some((answer, floor)) = judged(model, floor, answer) else { return };
    if let Some(shown) = model.told(answer.header("etag"), &answer.body, table) {
        model.check(&shown, &floor, true);
    }
}

/// What a table says.
fn table(csv: &[u8]) -> Result<Shown, String> {
    let mut rows = Vec::new();
    for row in csv::Reader::from_reader(csv).records() {
        let row = row.map_err(|error| format!("no CSV: {error}"))?;
        rows.push(Row {
            id: row[0].parse().unwrap(),
            name: row[1].to_owned(),
            description: row[2].to_owned(),
            category_name: row[3].to_owned(),
            price: serde_json::from_str(&row[4]).unwrap(),
            tags: row[6].split(", ").map(str::to_owned).collect(),
        });
    }
    Shown::by(&rows)
}
