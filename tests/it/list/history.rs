//! Random histories of the catalogue: after each step, instances that follow the changes have the list that a full fill
//! returns, byte for byte.
//!
//! The environment variable `HISTORY_SEED` selects another history.

use std::{io::Read, net::SocketAddr, pin::pin, time::Duration};

use flate2::bufread::GzDecoder;
use futures_util::{SinkExt, future::join_all};
use tokio::time::Instant;
use tokio_postgres::Client;

use super::history_steps::{Action, next_step, seed_sql, small_change};
use crate::{
    harness::{Process, TestApp, TestAppBuilder, TestClient, TestResponse, connect},
    stress::{Rng, record_result},
};

/// Steps of `make test`.
const STEPS: usize = 80;
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

/// A history that goes on.
struct History {
    app: TestApp,
    readers: Readers,
    connections: [Client; 2],
    rng: Rng,
}

impl History {
    /// Starts a history on these instances: the following, the lagging and the full one.
    async fn new(app: TestApp, instances: [SocketAddr; 3], seed: u64) -> Self {
        app.batch_execute(&seed_sql()).await;
        let user = app.create_user("ann").await;
        let [following, lagging, full] = instances.map(|address| user.on_instance(address));
        let connections = [connect(app.database_url()).await, connect(app.database_url()).await];
        Self { app, readers: Readers { following, lagging, full }, connections, rng: Rng(seed) }
    }

    async fn step(&mut self) -> Result<(), Violation> {
        for action in next_step(&mut self.rng) {
            let sql = self.run(action).await;
            self.compare().await.map_err(|violation| format!("{violation} after {sql}"))?;
        }
        Ok(())
    }

    /// Runs an action and returns its SQL.
    async fn run(&self, action: Action) -> String {
        match action {
            Action::Sql(connection, sql) => {
                let done = self.connections[connection].batch_execute(&sql).await;
                done.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
                sql
            }
            Action::Copy(rows) => {
                let sql = "copy products (id, category_id, name, price) from stdin";
                let mut copy = pin!(self.connections[0].copy_in(sql).await.unwrap());
                copy.send(bytes::Bytes::from(rows)).await.unwrap();
                // rows that exist already roll the statement back
                let _ = copy.finish().await;
                sql.to_owned()
            }
        }
    }

    /// Compares the lists of the following instance and, sometimes, of the lagging one with a full fill.
    async fn compare(&mut self) -> Result<(), Violation> {
        let Readers { following, lagging, full } = &self.readers;
        let expected = get_gzip(full).await;
        assert_eq!(expected.status, 200, "{}", expected.text());
        assert_same("the following instance", &get_gzip(following).await, &expected)?;
        if self.rng.below(8) == 0 {
            assert_same("the lagging instance", &get_gzip(lagging).await, &expected)?;
            let expected_identity = full.get(PATH).await;
            assert_same("the following instance's JSON", &following.get(PATH).await, &expected_identity)?;
            let (mut json, mut rest) = (Vec::new(), &*expected.body);
            GzDecoder::new(&mut rest).read_to_end(&mut json).unwrap();
            assert!(json == expected_identity.body && rest.is_empty(), "one member with the same list");
        }
        Ok(())
    }

    /// Reads the list while two writers change it, and compares it when they have finished.
    async fn write_concurrently(&mut self) -> Result<(), Violation> {
        let mut rngs = [(); 2].map(|()| Rng(1 + self.rng.below(u64::MAX)));
        let write = async |connection: &Client, rng: &mut Rng| {
            for _ in 0..CONCURRENT_CHANGES {
                let sql = small_change(rng);
                connection.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
            }
        };
        let writing = join_all(self.connections.iter().zip(&mut rngs).map(|(connection, rng)| write(connection, rng)));
        let reading = async {
            loop {
                get_gzip(&self.readers.following).await;
                get_gzip(&self.readers.lagging).await;
            }
        };
        tokio::select! { _ = writing => {}, () = reading => {} }
        let expected = get_gzip(&self.readers.full).await;
        assert_same("the following instance", &get_gzip(&self.readers.following).await, &expected)?;
        assert_same("the lagging instance", &get_gzip(&self.readers.lagging).await, &expected)
    }
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
        if step % 40 == 0 {
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

/// Runs a history on servers with a mutant, until it finds the mutant.
async fn find_mutant(mutant: &str) {
    assert!(std::env::var_os("TESTSHOP_PROGRAM").is_some(), "TESTSHOP_PROGRAM is not set to a server with {mutant}");
    let app = TestAppBuilder::default().with("redis-url", "").spawn().await;
    let modes = [&[][..], &[], &["--cache-mode", "off"]];
    let processes = modes.map(|flags| Process::serve(&app, flags));
    let seed = seed();
    let mut history = History::new(app, [0, 1, 2].map(|index: usize| processes[index].address), seed).await;
    let began = Instant::now();
    for step in 1.. {
        let outcome = match history.step().await {
            Ok(()) if step % 8 == 1 => history.write_concurrently().await,
            outcome => outcome,
        };
        if let Err(violation) = outcome {
            let seconds = began.elapsed().as_secs_f64();
            let observed = format!("found after {seconds:.1} s, in step {step} of history {seed}: {violation}");
            record_result(
                &format!("histories find {mutant}"),
                observed.split_whitespace().collect::<Vec<_>>().join(" ").as_str(),
            );
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{mutant} is not found in {step} steps of history {seed}");
    }
}

#[ignore = "needs a server built with the feature naive-fill, in TESTSHOP_PROGRAM: make stress"]
#[tokio::test(flavor = "multi_thread")]
async fn history_finds_chunk_of_another_snapshot() {
    find_mutant("a chunk of another snapshot than the version").await;
}

#[ignore = "needs a server built with the feature trust-pruned-log, in TESTSHOP_PROGRAM: make stress"]
#[tokio::test(flavor = "multi_thread")]
async fn history_finds_trust_in_pruned_log() {
    find_mutant("trust in a pruned log").await;
}
