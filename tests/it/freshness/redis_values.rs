//! Values in Redis are authenticated together with their keys: whatever else is found there is a miss.

use std::{collections::BTreeSet, time::Duration};

use redis::{AsyncCommands, AsyncConnectionConfig, Cmd, aio::MultiplexedConnection};
use ring::digest::{SHA256, digest};
use testshop::server::Server;

use crate::harness::{JWT_SECRET, TestApp, TestClient, TestResponse, required_env, wait_until};

const REDIS_HIT: &str = "TestShop; hit; detail=redis";
const INVALID_VALUES: &str = "testshop_redis_invalid_values_total";

pub async fn connect_to_redis() -> MultiplexedConnection {
    let client = redis::Client::open(required_env("REDIS_URL")).unwrap();
    // the default of half a second is too short on a busy machine
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(20)));
    client.get_multiplexed_async_connection_with_config(&config).await.unwrap()
}

/// Returns the names of all keys that match a pattern.
async fn keys(redis: &MultiplexedConnection, pattern: &str) -> Vec<String> {
    redis::cmd("KEYS").arg(pattern).query_async(&mut redis.clone()).await.unwrap()
}

/// Waits until Redis has an entry of the app, and returns the names of all its entries.
pub async fn wait_for_redis_entries(app: &TestApp, redis: &MultiplexedConnection) -> Vec<String> {
    let pattern = format!("{}:v*:products:*", app.setting("redis-prefix"));
    let entries = async || {
        let found = keys(redis, &pattern).await.into_iter();
        found.filter(|key| !key.ends_with(":lock")).collect::<Vec<_>>()
    };
    wait_until("an entry is in Redis", async || !entries().await.is_empty()).await;
    entries().await
}

/// An instance that looks up every list in Redis, and a user of it.
struct Fixture {
    app: TestApp,
    instance: Server,
    user: TestClient,
    redis: MultiplexedConnection,
}

impl Fixture {
    async fn spawn() -> Self {
        let app = TestApp::spawn().await;
        app.seed_products(20).await;
        let instance = app.start_instance_with("cache-mode", "redis").await;
        let user = app.create_user("ann").await.on_instance(instance.address);
        Self { app, instance, user, redis: connect_to_redis().await }
    }

    /// Requests a list until it is a hit in Redis, and returns the name of its key and the response.
    async fn store(&self, path: &str, key: &str) -> (String, TestResponse) {
        wait_until("the list is stored", async || self.user.get(path).await.header("cache-status") == REDIS_HIT).await;
        let found = keys(&self.redis, &format!("{}:v*:{key}", self.app.setting("redis-prefix"))).await;
        assert_eq!(found.len(), 1, "{found:?}");
        (found[0].clone(), self.user.get(path).await)
    }

    async fn value(&self, key: &str) -> Vec<u8> {
        self.redis.clone().get(key).await.unwrap()
    }

    /// Stores a value under the key of the list at `path`, and asserts that it is a miss with the expected response.
    async fn assert_is_miss(&self, stored: &(String, TestResponse), path: &str, what: &str, value: &[u8]) {
        self.assert_miss_after(&Cmd::set(&stored.0, value), stored, path, what).await;
    }

    async fn assert_miss_after(&self, write: &Cmd, (_, expected): &(String, TestResponse), path: &str, what: &str) {
        wait_until("the list is stored", async || self.user.get(path).await.header("cache-status") == REDIS_HIT).await;
        let before = self.app.metric_on(&self.instance, INVALID_VALUES).await;
        let () = write.query_async(&mut self.redis.clone()).await.unwrap();
        let first = self.user.get(path).await;
        assert_eq!(first.header("cache-status"), "TestShop; fwd=miss; stored", "{what}");
        assert_same(&first, expected, what);
        // on a busy machine a call to Redis may time out: then the value was not read
        wait_until("the value is counted", async || {
            assert_same(&self.user.get(path).await, expected, what);
            self.app.metric_on(&self.instance, INVALID_VALUES).await > before
        })
        .await;
    }
}

fn assert_same(response: &TestResponse, expected: &TestResponse, what: &str) {
    assert_eq!(response.status, 200, "{what}");
    assert!(response.body == expected.body, "{what}: {}", response.text());
    let names = |response: &TestResponse| response.headers.keys().map(ToString::to_string).collect::<BTreeSet<_>>();
    assert_eq!(names(response), names(expected), "{what}");
    for name in ["content-type", "content-length", "cache-control", "etag"] {
        assert_eq!(response.header(name), expected.header(name), "{what}");
    }
}

/// Returns a value in the format of earlier versions, which replayed its headers: with a valid checksum, so that those
/// versions served it.
fn old_format_value(version: i64, token: uuid::Uuid, headers: &str, body: &[u8]) -> Vec<u8> {
    let sha256 = |bytes: &[u8]| digest(&SHA256, bytes).as_ref().to_vec();
    let rest = [&u32::try_from(headers.len()).unwrap().to_be_bytes(), headers.as_bytes(), body].concat();
    [b"TSL2", &version.to_be_bytes()[..], token.as_bytes(), &sha256(body)[..16], &sha256(&rest), &rest].concat()
}

#[tokio::test]
async fn forged_damaged_and_old_values_are_misses() {
    let fixture = Fixture::spawn().await;
    let path = "/api/products/?page=1&page_size=2";
    let stored = fixture.store(path, "products:*:identity:page*").await;
    assert_eq!((stored.1.header("x-total-count"), stored.1.header("link").is_empty()), ("20", false));
    let valid = fixture.value(&stored.0).await;
    let row = fixture
        .app
        .sql
        .query_one("select version, token from catalogue_versions order by version desc limit 1", &[])
        .await;
    let row = row.unwrap();
    let (version, token) = (row.get(0), row.get(1));

    let page = b"<script>alert(1)</script>";
    for headers in [
        "content-type:text/html\n",
        "set-cookie:session=forged\ncache-control:public\n",
        "content-length:3\n",
        "transfer-encoding:chunked\n",
    ] {
        let old = old_format_value(version, token, headers, page);
        fixture.assert_is_miss(&stored, path, headers, &old).await;
    }
    // the present format, with another body and the MAC of the valid one, or none
    let forged = [&valid[..80], page].concat();
    fixture.assert_is_miss(&stored, path, "another body", &forged).await;
    fixture.assert_is_miss(&stored, path, "no MAC", &[&valid[..4], &[0; 32], &valid[36..]].concat()).await;
    fixture.assert_is_miss(&stored, path, "another format", &[&[0, 0, 0, 0], &valid[4..]].concat()).await;
    for length in [1, 4, 36, valid.len() - 1] {
        fixture.assert_is_miss(&stored, path, "a truncated value", &valid[..length]).await;
    }
    fixture.assert_is_miss(&stored, path, "garbage", b"garbage").await;
    // the valid value, lengthened by zeros
    let lengthen = Cmd::setrange(&stored.0, 9 << 20, "0");
    fixture.assert_miss_after(&lengthen, &stored, path, "a huge value").await;
    assert_eq!(fixture.store(path, "products:*:identity:page*").await.1.body, stored.1.body);
}

#[tokio::test]
async fn values_of_other_keys_are_misses() {
    let fixture = Fixture::spawn().await;
    fixture.app.execute("delete from product_tags where product_id = 2", &[]).await;
    let (all, tagged) = ("/api/products/", "/api/products/?tag=eco");
    let all_stored = fixture.store(all, "products:*:identity:").await;
    let tagged_stored = fixture.store(tagged, "products:*:identity:tag=eco").await;
    assert_ne!(all_stored.1.body, tagged_stored.1.body);
    let (value, tagged_value) = (fixture.value(&all_stored.0).await, fixture.value(&tagged_stored.0).await);
    fixture.assert_is_miss(&tagged_stored, tagged, "the complete list", &value).await;
    fixture.assert_is_miss(&all_stored, all, "a filtered list", &tagged_value).await;

    // the same list at an earlier version
    fixture.app.execute("update products set name = 'Renamed' where id = 1", &[]).await;
    fixture.redis.clone().del::<_, ()>(&all_stored.0).await.unwrap();
    let renamed = fixture.store(all, "products:*:identity:").await;
    assert!(renamed.1.text().contains("Renamed"));
    fixture.assert_is_miss(&renamed, all, "an earlier version", &value).await;

    // the same list of the same database, stored by a shop with another prefix
    let prefix = fixture.app.setting("redis-prefix");
    let other_prefix = format!("{prefix}-other");
    let other = fixture.app.start_instance_with("redis-prefix", &other_prefix).await;
    fixture.user.on_instance(other.address).get(all).await;
    let other_key = renamed.0.replace(prefix, &other_prefix);
    wait_until("the other shop has stored its list", async || fixture.redis.clone().exists(&other_key).await.unwrap())
        .await;
    let other_value = fixture.value(&other_key).await;
    fixture.redis.clone().del::<_, ()>(&other_key).await.unwrap();
    fixture.assert_is_miss(&renamed, all, "a value of another shop", &other_value).await;
}

#[tokio::test]
async fn secrets_can_be_rotated() {
    let fixture = Fixture::spawn().await;
    let path = "/api/products/";
    let stored = fixture.store(path, "products:*:identity:").await;
    let secrets = format!("the next secret: more than 32 bytes,{JWT_SECRET}");
    let settings = [("cache-mode", "redis"), ("jwt-secret", secrets.as_str())];
    let rotated = fixture.app.start_instance_with_settings(&settings).await;
    let on_rotated = fixture.user.on_instance(rotated.address);
    let is_hit = async || on_rotated.get(path).await.header("cache-status") == REDIS_HIT;
    wait_until("the stored list is a hit", is_hit).await;
    assert_eq!(fixture.app.metric_on(&rotated, INVALID_VALUES).await, 0.0, "all secrets verify");
    fixture.redis.clone().del::<_, ()>(&stored.0).await.unwrap();
    wait_until("the next secret has signed", is_hit).await;
    let signed_with_next = fixture.value(&stored.0).await;
    fixture.redis.clone().del::<_, ()>(&stored.0).await.unwrap();
    fixture.assert_is_miss(&stored, path, "a value signed with an unknown secret", &signed_with_next).await;
}
