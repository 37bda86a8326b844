//! Redis with Sentinels: the server finds the master at the start and after a failover.

use std::process::{Child, Command, Stdio};

use redis::Connection;
use serde_json::json;

use crate::harness::{ReservedPort, Services, TestAppBuilder, host_and_port, product_names, required_env, wait_until};

fn admin(url: &str) -> Connection {
    redis::Client::open(url).unwrap().get_connection().unwrap()
}

/// Returns the number of keys.
fn key_count(url: &str) -> i64 {
    redis::cmd("DBSIZE").query(&mut admin(url)).unwrap()
}

/// Returns whether `INFO replication` contains this text. Returns false when there is no response: a Sentinel that
/// promotes a server closes all connections to it.
fn replication_info_contains(url: &str, text: &str) -> bool {
    let info =
        || redis::cmd("INFO").arg("replication").query::<String>(&mut redis::Client::open(url)?.get_connection()?);
    info().is_ok_and(|info: String| info.contains(text))
}

/// A Sentinel process. It is killed when this is dropped.
struct Sentinel {
    child: Child,
    port: ReservedPort,
    _dir: tempfile::TempDir,
}

impl Sentinel {
    /// Starts a Sentinel that monitors `master` under the name `shop`.
    fn start(master: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = ReservedPort::new();
        let (host, master_port) = host_and_port(master).split_once(':').unwrap();
        let file = dir.path().join("sentinel.conf");
        let text = format!(
            "port {}\n\
             bind 127.0.0.1\n\
             dir {}\n\
             sentinel monitor shop {host} {master_port} 1\n\
             sentinel auth-user shop shop\n\
             sentinel auth-pass shop same\n\
             sentinel down-after-milliseconds shop 500\n\
             sentinel failover-timeout shop 2000\n",
            port.port(),
            dir.path().display()
        );
        std::fs::write(&file, text).unwrap();
        let program = required_env("REDIS_BIN");
        let child = Command::new(program).arg(&file).arg("--sentinel").stdout(Stdio::null()).spawn().unwrap();
        Self { child, port, _dir: dir }
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinel_master_is_found_before_and_after_failover() {
    let (first, second) = (Services::redis("sentinel-first"), Services::redis("sentinel-second"));
    // both servers get one account: their generated passwords differ
    for services in [&first, &second] {
        let mut server = admin(&services.redis_url);
        redis::cmd("ACL")
            .arg(&["SETUSER", "shop", "on", ">same", "~*", "&*", "+@all"])
            .query::<()>(&mut server)
            .unwrap();
        let replica_account = ["SET", "masteruser", "shop", "masterauth", "same"];
        redis::cmd("CONFIG").arg(&replica_account).query::<()>(&mut server).unwrap();
    }
    let (host, port) = host_and_port(&first.redis_url).split_once(':').unwrap();
    redis::cmd("REPLICAOF").arg(host).arg(port).query::<()>(&mut admin(&second.redis_url)).unwrap();
    wait_until("the second server replicates the first", async || {
        replication_info_contains(&second.redis_url, "master_link_status:up")
    })
    .await;
    let sentinel = Sentinel::start(&first.redis_url);
    wait_until("the Sentinel has found the replica", async || {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", sentinel.port.port())).unwrap();
        let Ok(mut connection) = client.get_connection() else { return false };
        let replicas = redis::cmd("SENTINEL").arg(&["replicas", "shop"]).query::<Vec<redis::Value>>(&mut connection);
        replicas.is_ok_and(|replicas| replicas.len() == 1)
    })
    .await;

    // nothing listens on the first address of the list
    let url = format!("redis+sentinel://shop:same@127.0.0.1:1,127.0.0.1:{}/shop", sentinel.port.port());
    let app = TestAppBuilder::default().with("redis-url", &url).spawn().await;
    app.seed_products(1).await;
    let staff = app.create_staff("sam").await;
    wait_until("the cache is connected", async || app.anonymous().get("/readyz").await.json()["cache"] == "ok").await;
    assert_eq!(product_names(&staff.get("/api/products/").await.json()), ["Product 1"]);
    wait_until("the master has the entry", async || key_count(&first.redis_url) > 0).await;

    first.kill_redis();
    wait_until("the second server is the master", async || replication_info_contains(&second.redis_url, "role:master"))
        .await;
    // requests succeed meanwhile, and the server finds the new master
    let renamed = staff.patch("/api/products/1/", json!({"name": "Renamed"})).await;
    assert_eq!(renamed.status, 200, "{}", renamed.text());
    assert_eq!(product_names(&staff.get("/api/products/").await.json()), ["Renamed"]);
    wait_until("the cache is connected again", async || app.anonymous().get("/readyz").await.json()["cache"] == "ok")
        .await;
    redis::cmd("FLUSHALL").query::<()>(&mut admin(&second.redis_url)).unwrap();
    // an instance that has the list of all products builds the next one itself
    staff.get("/api/products/?page_size=1").await;
    wait_until("the new master has an entry", async || key_count(&second.redis_url) > 0).await;
}
