//! What was acknowledged is there, and what was refused left nothing, whoever is killed in the middle of it.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use hyper::Method;
use serde_json::{Value, json};

use super::{Rng, record_result};
use crate::harness::{
    KeepAliveClient, Process, ReservedPort, Services, TestAppBuilder, TestClient, TestResponse, process::serve_command,
    wait_until,
};

/// What one writer was told.
#[derive(Default)]
struct WriterLog {
    /// The answers to creations, by name.
    created: HashMap<String, Value>,
    /// Names of creations that were refused.
    refused: Vec<String>,
    /// The last price that was acknowledged, by id.
    prices: HashMap<i64, i64>,
    unknown: usize,
    replayed: usize,
}

fn start_server(database_url: &str, redis_url: &str, address: &str) -> Process {
    Process::start(serve_command(database_url).env("REDIS_URL", redis_url).env("LISTEN_ADDR", address))
}

/// Until somebody answers with other than 503; whether an attempt before had an unknown outcome.
async fn told(
    keep_alive: &mut KeepAliveClient,
    caller: &TestClient,
    method: Method,
    path: &str,
    body: &Value,
) -> (TestResponse, bool) {
    let mut unknown = false;
    loop {
        match keep_alive.send(caller, method.clone(), path, Some(body.clone())).await {
            Some(response) if response.status != 503 => return (response, unknown),
            _ => unknown = true,
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What creation `count` of a writer asks for; its name is its idempotency key.
fn creation_request(writer: &str, count: u64) -> (String, Value) {
    let name = format!("{writer} n{count}");
    let body = json!({"name": name, "price": count, "category_id": 1, "tags": [format!("of {writer}"), "both"]});
    (name, body)
}

/// Creates, repeats, changes and asks for what must be refused, until it is told to stop.
async fn run_writer(
    number: usize,
    staff: TestClient,
    acknowledged: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
) -> WriterLog {
    let (mut keep_alive, mut rng, mut log) = (KeepAliveClient::default(), Rng(number as u64 + 1), WriterLog::default());
    let (writer, mut count) = (format!("w{number}"), 0);
    while !stop.load(SeqCst) {
        count += 1;
        let (name, body) = creation_request(&writer, count);
        let caller = staff.with_header("idempotency-key", &name);
        let (response, unknown) = told(&mut keep_alive, &caller, Method::POST, "/api/products/", &body).await;
        assert_eq!(response.status, 201, "{}", response.text());
        let product = response.json();
        log.unknown += usize::from(unknown);
        if rng.below(4) == 0 {
            let (again, _) = told(&mut keep_alive, &caller, Method::POST, "/api/products/", &body).await;
            assert_eq!((again.status.as_u16(), again.text()), (201, response.text()), "a repeat is answered alike");
            assert_eq!(again.header("idempotent-replayed"), "true");
            log.replayed += 1;
        }
        let id = product["id"].as_i64().unwrap();
        log.created.insert(name.clone(), product);
        acknowledged.fetch_add(1, SeqCst);
        match rng.below(3) {
            0 => {
                let price = i64::try_from(rng.below(1000)).unwrap();
                let path = format!("/api/products/{id}/");
                let change = json!({"price": price, "description": price.to_string()});
                let (response, _) = told(&mut keep_alive, &staff, Method::PATCH, &path, &change).await;
                assert_eq!(response.status, 200, "{}", response.text());
                log.prices.insert(id, price);
                acknowledged.fetch_add(1, SeqCst);
            }
            1 => {
                let refused = format!("refused {name}");
                // the tag would be made, if anything were
                let body = json!({"name": refused, "price": 1, "category_id": 999, "tags": [refused]});
                let (response, _) = told(&mut keep_alive, &staff, Method::POST, "/api/products/", &body).await;
                assert_eq!(response.status, 400, "{}", response.text());
                log.refused.push(refused);
            }
            _ => {}
        }
    }
    log
}

/// So many kills of the server, each fifth time of the database instead, by SIGKILL and as in a crash in turn; gives the line
/// for the table.
async fn run_kills(purpose: &str, cycles: usize) -> String {
    let services = Services::up(purpose);
    let app = TestAppBuilder::default().on_server(&services.database_url).with("redis-url", "").spawn().await;
    app.seed_products(0).await;
    let staff = app.create_staff("sam").await;
    let serving_url = app.setting("database-url").to_owned();
    let port = ReservedPort::new();
    let address: SocketAddr = port.address();
    let mut process = start_server(&serving_url, &services.redis_url, &address.to_string());
    let (acknowledged, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (began, mut rng, mut databases) = (Instant::now(), Rng(9), 0);
    let writers: Vec<_> = (0..6)
        .map(|number| {
            tokio::spawn(run_writer(number, staff.on_instance(address), Arc::clone(&acknowledged), Arc::clone(&stop)))
        })
        .collect();
    for cycle in 1..=cycles {
        let before = acknowledged.load(SeqCst);
        wait_until("something is written", async || {
            acknowledged.load(SeqCst) > before + 5 || writers.iter().any(tokio::task::JoinHandle::is_finished)
        })
        .await;
        // anywhere in a write
        tokio::time::sleep(Duration::from_micros(rng.below(20_000))).await;
        if cycle % 5 == 0 {
            databases += 1;
            match cycle % 10 {
                0 => services.crash_database(),
                _ => services.kill_database(),
            }
            services.start();
        } else {
            process.kill();
            process = start_server(&serving_url, &services.redis_url, &address.to_string());
        }
    }
    stop.store(true, SeqCst);
    let mut all = WriterLog::default();
    for writer in writers {
        let told = writer.await.expect("nobody was told anything wrong");
        all.created.extend(told.created);
        all.refused.extend(told.refused);
        all.prices.extend(told.prices);
        all.unknown += told.unknown;
        all.replayed += told.replayed;
    }

    // long afterwards each is still answered as it was
    let (mut keep_alive, caller) = (KeepAliveClient::default(), staff.on_instance(address));
    let old = all.created.iter().step_by((all.created.len() / 300).max(1));
    let mut late_repeats = 0;
    for (name, product) in old {
        let (writer, count) = name.split_once(" n").unwrap();
        let (_, body) = creation_request(writer, count.parse().unwrap());
        let caller = caller.with_header("idempotency-key", name);
        let (again, _) = told(&mut keep_alive, &caller, Method::POST, "/api/products/", &body).await;
        assert_eq!((again.status.as_u16(), &again.json()), (201, product), "a late repeat is answered alike");
        assert_eq!(again.header("idempotent-replayed"), "true");
        late_repeats += 1;
    }

    let owner = crate::harness::connect(app.database_url()).await;
    let rows = "select p.id, p.name, p.price::text, p.description, array_agg(t.name order by t.name)::text[]
                  from products p left join product_tags l on l.product_id = p.id left join tags t on t.id = l.tag_id
                 group by p.id";
    let mut there = HashMap::new();
    for row in owner.query(rows, &[]).await.unwrap() {
        let (id, name): (i64, String) = (row.get(0), row.get(1));
        let (price, description): (String, String) = (row.get(2), row.get(3));
        let tags: Vec<Option<String>> = row.get(4);
        let (writer, count) = name.split_once(" n").expect("a name that a writer gave");
        assert_eq!(tags, [Some("both".to_owned()), Some(format!("of {writer}"))], "{name} is whole");
        let changed = all.prices.get(&id).map(|price| (format!("{price}.00"), price.to_string()));
        assert_eq!((price, description), changed.unwrap_or_else(|| (format!("{count}.00"), String::new())), "{name}");
        assert!(there.insert(name.clone(), id).is_none(), "{name} is there twice");
    }
    for (name, product) in &all.created {
        assert_eq!(there.remove(name), product["id"].as_i64(), "{name} was acknowledged");
    }
    assert_eq!(
        there,
        HashMap::new(),
        "nothing is there that was not acknowledged: each attempt was repeated to its end"
    );
    let tags: i64 = owner.query_one("select count(*) from tags where name like 'refused %'", &[]).await.unwrap().get(0);
    assert_eq!(tags, 0, "what was refused left nothing");
    // each of these was tried often enough to tell something
    let least = cycles / 5;
    let numbers = [all.refused.len(), all.prices.len(), all.unknown, all.replayed, late_repeats];
    assert!(numbers.iter().all(|number| *number >= least), "{numbers:?}");
    format!(
        "{cycles} kills ({databases} of PostgreSQL, half of them as in a crash) in {:.0} s: {} creations and {} changes, 0 lost, 0 partial, 0 twice; {} refused left nothing; {} unknown outcomes settled; {} repeats, and {late_repeats} at the end, answered alike",
        began.elapsed().as_secs_f64(),
        all.created.len(),
        all.prices.len(),
        all.refused.len(),
        all.unknown,
        all.replayed,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_writes_survive_kills() {
    run_kills("kills", 10).await;
}

#[ignore = "minutes: make stress"]
#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_writes_survive_500_kills() {
    record_result("acknowledged writes exist, refused ones left nothing", &run_kills("many-kills", 500).await);
}
