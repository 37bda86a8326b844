//! Random histories of the catalogue: after each step, instances that follow the changes have the list that a full fill
//! returns, byte for byte, and so have clients that follow the change feed from any earlier step.
//!
//! The environment variable `HISTORY_SEED` selects another history.

mod actions;
mod copies;
mod import;
mod mutants;
mod names;
mod steps;

use std::{io::Read, net::SocketAddr, pin::pin, sync::Arc};

use flate2::bufread::GzDecoder;
use futures_util::{SinkExt, future::join_all};
use hyper::Method;
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use self::{
    actions::{Action, next_step},
    copies::{Copies, apply_page, follow},
    import::edited_file,
    steps::{seed_sql, small_change},
};
use crate::{
    changes::follower::Follower,
    harness::{TestApp, TestAppBuilder, TestClient, TestResponse, connect, wait_until},
    stress::Rng,
};

/// Steps of `make test`.
const STEPS: usize = 70;
/// Changes of each of the writers that run at the same time.
const CONCURRENT_CHANGES: usize = 40;
const PATH: &str = "/api/products/";

/// Clients of instances on one catalogue.
struct Readers {
    /// Of an instance that loads each version.
    following: TestClient,
    /// Of an instance that loads some of the versions.
    lagging: TestClient,
    /// Of an instance that loads the complete list for each request.
    full: TestClient,
}

/// A difference between a list and a full fill.
type Violation = String;

impl Readers {
    fn all(&self) -> [&TestClient; 3] {
        [&self.following, &self.lagging, &self.full]
    }
}

/// A history that goes on.
struct History {
    app: TestApp,
    readers: Readers,
    staff: TestClient,
    connections: [Arc<Client>; 2],
    /// Statements of the second connection that wait for a prepared transaction of the first one.
    waiting: Option<JoinHandle<()>>,
    copies: Copies,
    rng: Rng,
}

impl History {
    /// Starts a history on these instances: the following, the lagging and the full one.
    async fn new(app: TestApp, instances: [SocketAddr; 3], seed: u64) -> Self {
        app.batch_execute(&seed_sql()).await;
        let (user, staff) = (app.create_user("ann").await, app.create_staff("sam").await);
        let [following, lagging, full] = instances.map(|address| user.on_instance(address));
        let connections = [connect(app.database_url()).await, connect(app.database_url()).await].map(Arc::new);
        let readers = Readers { following, lagging, full };
        Self { app, readers, staff, connections, waiting: None, copies: Copies::default(), rng: Rng(seed) }
    }

    async fn step(&mut self) -> Result<(), Violation> {
        let step = next_step(&mut self.rng);
        if step.expires_tokens {
            self.copies.expire();
        }
        for action in step.actions {
            let done = self.run(action).await;
            self.compare().await.map_err(|violation| format!("{violation} after {done}"))?;
        }
        Ok(())
    }

    /// Runs an action and returns its description.
    async fn run(&mut self, action: Action) -> String {
        match action {
            Action::Sql(connection, sql) => self.execute(connection, sql).await,
            Action::Copy(rows) => {
                let sql = "copy products (id, category_id, name, price) from stdin";
                let mut copy = pin!(self.connections[0].copy_in(sql).await.unwrap());
                copy.send(bytes::Bytes::from(rows)).await.unwrap();
                // rows that exist already roll the statement back
                let _ = copy.finish().await;
                sql.to_owned()
            }
            // the name is unique on the server
            Action::Prepare(sql) => {
                self.execute(0, format!("{sql}; prepare transaction '{}'", self.app.database_name())).await
            }
            Action::Wait(sql) => self.wait(sql).await,
            Action::EndPrepared(end) => {
                let done = self.execute(0, format!("{end} prepared '{}'", self.app.database_name())).await;
                self.waiting.take().expect("statements wait").await.unwrap();
                done
            }
            Action::Import(rows) => self.import(rows).await,
        }
    }

    async fn execute(&self, connection: usize, sql: String) -> String {
        let done = self.connections[connection].batch_execute(&sql).await;
        done.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        sql
    }

    /// Begins statements on the second connection, and returns when they wait for a lock.
    async fn wait(&mut self, sql: String) -> String {
        let (connection, statements) = (Arc::clone(&self.connections[1]), sql.clone());
        self.waiting = Some(tokio::spawn(async move { connection.batch_execute(&statements).await.unwrap() }));
        let waiting =
            "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()";
        wait_until("a writer waits", async || self.app.query_scalar::<i64>(waiting).await == 1).await;
        sql
    }

    /// Imports a file through one of the instances.
    async fn import(&mut self, rows: u64) -> String {
        let list = Follower::load(&self.readers.full).await;
        let file = edited_file(&mut self.rng, rows, &list);
        let staff = self.staff.on_instance(self.rng.pick(&self.readers.all()).address);
        let report = staff.send_bytes(Method::POST, "/api/products/import/", Some("text/csv"), file.into()).await;
        assert_eq!(report.status, 200, "{}", report.text());
        format!("an import: {}", report.text())
    }

    /// Compares with a full fill: the lists of the following instance and, sometimes, of the lagging one, and some copies
    /// of clients that follow the feed.
    async fn compare(&mut self) -> Result<(), Violation> {
        let Readers { following, lagging, full } = &self.readers;
        let expected = get_gzip(full).await;
        assert_eq!(expected.status, 200, "{}", expected.text());
        assert_same("the following instance", &get_gzip(following).await, &expected)?;
        let json = decompress(&expected);
        if self.rng.below(8) == 0 {
            assert_same("the lagging instance", &get_gzip(lagging).await, &expected)?;
            let expected_identity = full.get(PATH).await;
            assert_same("the following instance's JSON", &following.get(PATH).await, &expected_identity)?;
            assert!(json == expected_identity.body, "the compressed list is the same");
        }
        self.copies.follow_some(&self.readers.all(), &present_of(&expected, &json), &mut self.rng).await
    }

    /// Reads the list and follows the feed while two writers change it, and compares when they have finished.
    async fn write_concurrently(&mut self) -> Result<(), Violation> {
        let [mut first, mut second, mut third] = [(); 3].map(|()| Rng(1 + self.rng.below(u64::MAX)));
        let instances = self.readers.all();
        let mut copy = Follower::load(&self.readers.full).await;
        let write = async |connection: &Client, rng: &mut Rng| {
            for _ in 0..CONCURRENT_CHANGES {
                let sql = small_change(rng);
                connection.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
            }
        };
        let rngs = [&mut first, &mut second];
        let writing = join_all(self.connections.iter().zip(rngs).map(|(connection, rng)| write(connection, rng)));
        let reading = async {
            loop {
                get_gzip(&self.readers.following).await;
                get_gzip(&self.readers.lagging).await;
            }
        };
        let following = async { while apply_page(&mut copy, &instances, &mut third).await.is_some() {} };
        tokio::select! {
            _ = writing => {}
            () = reading => {}
            () = following => return Err("a token has expired beside small changes".to_owned()),
        }
        let expected = get_gzip(&self.readers.full).await;
        assert_same("the following instance", &get_gzip(&self.readers.following).await, &expected)?;
        assert_same("the lagging instance", &get_gzip(&self.readers.lagging).await, &expected)?;
        match follow(&mut copy, &instances, &mut third).await {
            Some(()) if copy == present_of(&expected, &decompress(&expected)) => Ok(()),
            _ => Err("a client that follows the feed has another list than a full fill".to_owned()),
        }
    }
}

/// Returns the JSON of a compressed list, which is one member.
fn decompress(list: &TestResponse) -> Vec<u8> {
    let (mut json, mut rest) = (Vec::new(), &*list.body);
    GzDecoder::new(&mut rest).read_to_end(&mut json).unwrap();
    assert!(rest.is_empty(), "the list is one member");
    json
}

/// Returns the list of a response with this JSON.
fn present_of(list: &TestResponse, json: &[u8]) -> Follower {
    Follower::new(list.header("x-sync-token"), serde_json::from_slice(json).unwrap())
}

async fn get_gzip(reader: &TestClient) -> TestResponse {
    reader.with_header("accept-encoding", "gzip").get(PATH).await
}

fn assert_same(reader: &str, list: &TestResponse, expected: &TestResponse) -> Result<(), Violation> {
    assert_eq!(list.status, 200, "{reader}: {}", list.text());
    if list.body != expected.body {
        return Err(format!("{reader} has another list than a full fill"));
    }
    if list.header("etag") != expected.header("etag") {
        return Err(format!("{reader} has another ETag than a full fill"));
    }
    Ok(())
}

fn seed() -> u64 {
    std::env::var("HISTORY_SEED").map_or(1, |seed| seed.parse().expect("HISTORY_SEED is a number above 0"))
}

async fn spawn_history(
    settings: &[(&'static str, &'static str)],
    seed: u64,
) -> (History, [testshop::server::Server; 2]) {
    let mut builder = TestAppBuilder::default().with("redis-url", "").with("statement-timeout", "60s");
    for (flag, value) in settings {
        builder = builder.with(flag, value);
    }
    let app = builder.spawn().await;
    let others = [app.start_instance().await, app.start_instance_with("cache-mode", "off").await];
    let instances = [app.server.address, others[0].address, others[1].address];
    (History::new(app, instances, seed).await, others)
}

#[tokio::test(flavor = "multi_thread")]
async fn followed_list_equals_full_fill_after_random_changes() {
    let seed = seed();
    let (mut history, _others) = spawn_history(&[], seed).await;
    for step in 1..=STEPS {
        history.step().await.unwrap_or_else(|violation| panic!("seed {seed}, step {step}: {violation}"));
        if step % (STEPS / 2) == 0 {
            let outcome = history.write_concurrently().await;
            outcome.unwrap_or_else(|violation| panic!("seed {seed}, writers after step {step}: {violation}"));
            let cold = history.app.start_instance().await;
            let list = get_gzip(&history.readers.full.on_instance(cold.address)).await;
            assert_same("a cold instance", &list, &get_gzip(&history.readers.following).await).unwrap();
        }
    }
    let incremental = history.app.metric("testshop_cache_incremental_fills_total").await;
    let fills = history.app.metric("testshop_cache_fills_total").await;
    assert!(incremental > fills / 2.0 && fills > incremental, "{incremental} of {fills} fills are incremental");
    let Copies { followed, expired, .. } = history.copies;
    assert!(followed >= STEPS / 2 && expired > 0, "{followed} copies followed the feed, {expired} had expired");
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_list_equals_full_fill_after_random_changes() {
    let seed = seed() + 1;
    // the list is about as large, so its JSON is dropped and restored
    let (mut history, _others) = spawn_history(&[("cache-entry-bytes", "700000")], seed).await;
    for step in 1..=STEPS / 3 {
        history.step().await.unwrap_or_else(|violation| panic!("seed {seed}, step {step}: {violation}"));
    }
}
