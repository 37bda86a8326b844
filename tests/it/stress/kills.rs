//! Acknowledged writes survive, and rejected writes leave no trace, when the server or PostgreSQL is killed during a
//! write.

use std::{
    collections::HashMap,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use hyper::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::{Rng, record_result};
use crate::harness::{
    KeepAliveClient, Process, ReservedPort, Services, TestAppBuilder, TestClient, TestResponse, connect,
    process::serve_command, wait_until,
};

/// The responses that a writer got.
#[derive(Default)]
struct WriterLog {
    /// Products of acknowledged creations, by name.
    created: HashMap<String, Value>,
    /// Names of rejected creations.
    rejected: Vec<String>,
    /// The last acknowledged price, by id.
    prices: HashMap<i64, i64>,
    /// Creations with an attempt whose outcome was unknown.
    unknown: usize,
    /// Immediate repeats of a creation.
    replayed: usize,
}

impl WriterLog {
    fn merge(&mut self, other: Self) {
        self.created.extend(other.created);
        self.rejected.extend(other.rejected);
        self.prices.extend(other.prices);
        self.unknown += other.unknown;
        self.replayed += other.replayed;
    }
}

/// Repeats a request until its response has another status than 503. Also returns whether the outcome of an attempt was
/// unknown.
async fn send_until_settled(
    keep_alive: &mut KeepAliveClient,
    client: &TestClient,
    method: Method,
    path: &str,
    body: &Value,
) -> (TestResponse, bool) {
    let mut is_unknown = false;
    loop {
        match keep_alive.send(client, method.clone(), path, Some(body.clone())).await {
            Some(response) if response.status != 503 => return (response, is_unknown),
            _ => is_unknown = true,
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Returns the name and the body of a writer's creation number `count`. The name is also its idempotency key.
fn creation_request(writer: &str, count: u64) -> (String, Value) {
    let name = format!("{writer} n{count}");
    let body = json!({"name": name, "price": count, "category_id": 1, "tags": [format!("of {writer}"), "both"]});
    (name, body)
}

/// Sends a creation again, with its idempotency key, and asserts that the response is the same.
async fn assert_replayed(
    keep_alive: &mut KeepAliveClient,
    client: &TestClient,
    body: &Value,
    product: &Value,
) -> TestResponse {
    let (response, _) = send_until_settled(keep_alive, client, Method::POST, "/api/products/", body).await;
    assert_eq!((response.status.as_u16(), &response.json()), (201, product), "a repeat gets the same response");
    assert_eq!(response.header("idempotent-replayed"), "true");
    response
}

/// Creates and changes products, repeats creations and sends invalid ones, until `stop` is set.
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
        let client = staff.with_header("idempotency-key", &name);
        let (response, is_unknown) =
            send_until_settled(&mut keep_alive, &client, Method::POST, "/api/products/", &body).await;
        assert_eq!(response.status, 201, "{}", response.text());
        let product = response.json();
        log.unknown += usize::from(is_unknown);
        if rng.below(4) == 0 {
            let repeated = assert_replayed(&mut keep_alive, &client, &body, &product).await;
            assert_eq!(repeated.text(), response.text());
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
                let (response, _) = send_until_settled(&mut keep_alive, &staff, Method::PATCH, &path, &change).await;
                assert_eq!(response.status, 200, "{}", response.text());
                log.prices.insert(id, price);
                acknowledged.fetch_add(1, SeqCst);
            }
            1 => {
                let rejected = format!("rejected {name}");
                // the category does not exist; a valid request would also create the tag
                let body = json!({"name": rejected, "price": 1, "category_id": 999, "tags": [rejected]});
                let (response, _) =
                    send_until_settled(&mut keep_alive, &staff, Method::POST, "/api/products/", &body).await;
                assert_eq!(response.status, 400, "{}", response.text());
                log.rejected.push(rejected);
            }
            _ => {}
        }
    }
    log
}

/// Kills the server in four of five cycles, and PostgreSQL in the fifth: by SIGKILL or as a crash in turn.
async fn kill_repeatedly(
    cycles: usize,
    services: &Services,
    serve: &mut Command,
    process: &mut Process,
    acknowledged: &AtomicUsize,
    writers: &[JoinHandle<WriterLog>],
) {
    let mut rng = Rng(9);
    for cycle in 1..=cycles {
        let before = acknowledged.load(SeqCst);
        wait_until("more writes are acknowledged", async || {
            acknowledged.load(SeqCst) > before + 5 || writers.iter().any(JoinHandle::is_finished)
        })
        .await;
        // a random moment within a write
        tokio::time::sleep(Duration::from_micros(rng.below(20_000))).await;
        if cycle % 5 == 0 {
            match cycle % 10 {
                0 => services.crash_database(),
                _ => services.kill_database(),
            }
            services.start();
        } else {
            process.kill();
            *process = Process::start(serve);
        }
    }
}

/// Repeats about 300 of the creations, and returns how many.
async fn assert_late_repeats_replayed(staff: &TestClient, log: &WriterLog) -> usize {
    let mut keep_alive = KeepAliveClient::default();
    let sample = log.created.iter().step_by((log.created.len() / 300).max(1));
    let mut repeats = 0;
    for (name, product) in sample {
        let (writer, count) = name.split_once(" n").unwrap();
        let (_, body) = creation_request(writer, count.parse().unwrap());
        let client = staff.with_header("idempotency-key", name);
        assert_replayed(&mut keep_alive, &client, &body, product).await;
        repeats += 1;
    }
    repeats
}

/// Asserts that the database contains the acknowledged writes, complete and once, and nothing else.
async fn assert_database_matches(owner: &tokio_postgres::Client, log: &WriterLog) {
    let products = "select p.id, p.name, p.price::text, p.description, array_agg(t.name order by t.name)::text[] tags
                      from products p
                      left join product_tags l on l.product_id = p.id left join tags t on t.id = l.tag_id
                     group by p.id";
    let mut stored = HashMap::new();
    for row in owner.query(products, &[]).await.unwrap() {
        let (id, name): (i64, String) = (row.get("id"), row.get("name"));
        let (price, description): (String, String) = (row.get("price"), row.get("description"));
        let tags: Vec<Option<String>> = row.get("tags");
        let (writer, count) = name.split_once(" n").expect("a name from a writer");
        assert_eq!(tags, [Some("both".to_owned()), Some(format!("of {writer}"))], "{name} is complete");
        let changed = log.prices.get(&id).map(|price| (format!("{price}.00"), price.to_string()));
        assert_eq!((price, description), changed.unwrap_or_else(|| (format!("{count}.00"), String::new())), "{name}");
        assert!(stored.insert(name.clone(), id).is_none(), "{name} is stored twice");
    }
    for (name, product) in &log.created {
        assert_eq!(stored.remove(name), product["id"].as_i64(), "{name} was acknowledged");
    }
    // each attempt was repeated until it was acknowledged or rejected
    assert_eq!(stored, HashMap::new(), "these were not acknowledged");
    let tags = "select count(*) from tags where name like 'rejected %'";
    let tags: i64 = owner.query_one(tags, &[]).await.unwrap().get(0);
    assert_eq!(tags, 0, "rejected writes leave no trace");
}

/// Runs writers while the server and PostgreSQL are killed, and returns what was observed.
async fn run_kills(purpose: &str, cycles: usize) -> String {
    let services = Services::up(purpose);
    let app = TestAppBuilder::default().on_server(&services.database_url).with("redis-url", "").spawn().await;
    app.seed_products(0).await;
    let port = ReservedPort::new();
    let staff = app.create_staff("sam").await.on_instance(port.address());
    let mut serve = serve_command(app.setting("database-url"));
    serve.env("REDIS_URL", &services.redis_url).env("LISTEN_ADDR", port.address().to_string());
    let mut process = Process::start(&mut serve);
    let (acknowledged, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let began = Instant::now();
    let writers: Vec<_> = (0..6)
        .map(|number| tokio::spawn(run_writer(number, staff.clone(), Arc::clone(&acknowledged), Arc::clone(&stop))))
        .collect();
    kill_repeatedly(cycles, &services, &mut serve, &mut process, &acknowledged, &writers).await;
    stop.store(true, SeqCst);
    let mut log = WriterLog::default();
    for writer in writers {
        log.merge(writer.await.expect("every response is as expected"));
    }
    let late_repeats = assert_late_repeats_replayed(&staff, &log).await;
    // the connection of `app` was closed with PostgreSQL
    assert_database_matches(&connect(app.database_url()).await, &log).await;
    // each case occurred often enough
    let counts = [log.rejected.len(), log.prices.len(), log.unknown, log.replayed, late_repeats];
    assert!(counts.iter().all(|count| *count >= cycles / 5), "{counts:?}");
    format!(
        "{cycles} kills ({} of them of PostgreSQL, half of those as a crash) in {:.0} s: {} creations and {} updates, \
         0 lost, 0 partial, 0 duplicated; {} rejected writes left no trace; {} unknown outcomes resolved; {} immediate \
         and {late_repeats} late repeats with the same idempotency key got the same response",
        cycles / 5,
        began.elapsed().as_secs_f64(),
        log.created.len(),
        log.prices.len(),
        log.rejected.len(),
        log.unknown,
        log.replayed,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_writes_survive_kills() {
    run_kills("kills", 10).await;
}

#[ignore = "minutes: make stress"]
#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_writes_survive_500_kills() {
    let observed = run_kills("many-kills", 500).await;
    record_result("acknowledged writes survive kills, rejected writes leave no trace", &observed);
}
