//! Redis behind Sentinels: the master is found, and found again after a fail-over.

use std::process::{Child, Command, Stdio};

use redis::Connection;
use serde_json::json;

use crate::harness::{ReservedPort, Services, TestAppBuilder, host_and_port, product_names, wait_until};

fn admin(url: &str) -> Connection {
    redis::Client::open(url).unwrap().get_connection().unwrap()
}

fn keys(url: &str) -> i64 {
    redis::cmd("DBSIZE").query(&mut admin(url)).unwrap()
}

/// Whether the server says this of its part in the replication; not while it cannot be asked: a Sentinel that makes a
/// server the master ends all connections to it.
fn says(url: &str, words: &str) -> bool {
    let asked =
        || redis::cmd("INFO").arg("replication").query::<String>(&mut redis::Client::open(url)?.get_connection()?);
    asked().is_ok_and(|response: String| response.contains(words))
}

/// A Sentinel in a process of its own, ended with the test.
struct Sentinel {
    child: Child,
    port: ReservedPort,
    _folder: tempfile::TempDir,
}

impl Sentinel {
    fn watching(master: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = ReservedPort::new();
        let (host, master_port) = host_and_port(master).split_once(':').unwrap();
        let file = folder.path().join("sentinel.conf");
        let text = format!(
            "port {}\nbind 127.0.0.1\ndir {}\nsentinel monitor shop {host} {master_port} 1\nsentinel auth-user shop shop\n\
             sentinel auth-pass shop same\nsentinel down-after-milliseconds shop 500\nsentinel failover-timeout shop 2000\n",
            port.port(),
            folder.path().display()
        );
        std::fs::write(&file, text).unwrap();
        let program = crate::harness::required_env("REDIS_BIN");
        let child = Command::new(program).arg(&file).arg("--sentinel").stdout(Stdio::null()).spawn().unwrap();
        Self { child, port, _folder: folder }
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
    // one account for everybody: the servers' own passwords differ
    for services in [&first, &second] {
        let mut server = admin(&services.redis_url);
        redis::cmd("ACL")
            .arg(&["SETUSER", "shop", "on", ">same", "~*", "&*", "+@all"])
            .query::<()>(&mut server)
            .unwrap();
        let follow = ["SET", "masteruser", "shop", "masterauth", "same"];
        redis::cmd("CONFIG").arg(&follow).query::<()>(&mut server).unwrap();
    }
    let (host, port) = host_and_port(&first.redis_url).split_once(':').unwrap();
    redis::cmd("REPLICAOF").arg(host).arg(port).query::<()>(&mut admin(&second.redis_url)).unwrap();
    wait_until("the second follows the first", async || says(&second.redis_url, "master_link_status:up")).await;
    let sentinel = Sentinel::watching(&first.redis_url);
    wait_until("the Sentinel knows both", async || {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", sentinel.port.port())).unwrap();
        let Ok(mut connection) = client.get_connection() else { return false };
        let known = redis::cmd("SENTINEL").arg(&["replicas", "shop"]).query::<Vec<redis::Value>>(&mut connection);
        known.is_ok_and(|replicas| replicas.len() == 1)
    })
    .await;

    // the first Sentinel of the list is one that nobody started
    let url = format!("redis+sentinel://shop:same@127.0.0.1:1,127.0.0.1:{}/shop", sentinel.port.port());
    let app = TestAppBuilder::default().with("redis-url", &url).spawn().await;
    app.seed_products(1).await;
    let staff = app.create_staff("sam").await;
    wait_until("the cache is found", async || app.anonymous().get("/readyz").await.json()["cache"] == "ok").await;
    assert_eq!(product_names(&staff.get("/api/products/").await.json()), ["Product 1"]);
    wait_until("the entry has arrived at the master", async || keys(&first.redis_url) > 0).await;

    first.kill_redis();
    wait_until("the other one is the master", async || says(&second.redis_url, "role:master")).await;
    // no answer was lost over it, and the new master is found
    let renamed = staff.patch("/api/products/1/", json!({"name": "Renamed"})).await;
    assert_eq!(renamed.status, 200, "{}", renamed.text());
    assert_eq!(product_names(&staff.get("/api/products/").await.json()), ["Renamed"]);
    wait_until("the cache is found again", async || app.anonymous().get("/readyz").await.json()["cache"] == "ok").await;
    redis::cmd("FLUSHALL").query::<()>(&mut admin(&second.redis_url)).unwrap();
    staff.patch("/api/products/1/", json!({"name": "Again"})).await;
    staff.get("/api/products/").await;
    wait_until("a new entry stands at the new master", async || keys(&second.redis_url) > 0).await;
}
