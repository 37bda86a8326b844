//! Event streams: order, continuation, expiry, revocation, shutdown, limits.

use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
};

use super::{expired, follower::Follower, ids_of, list_token, spawn_with_products, stream::EventStream, token_of};
use crate::harness::{LinkState, Proxy, TestApp, TestAppBuilder, connect, host_and_port, required_env, wait_until};

#[tokio::test]
async fn events_arrive_in_order_and_continue_after_the_last_one() {
    let (app, user) = spawn_with_products(5).await;
    let token = list_token(&user).await;
    let mut stream = EventStream::at_present(&user).await;
    assert_eq!(stream.last_id, token);
    for (name, value) in
        [("content-type", "text/event-stream"), ("cache-control", "no-store"), ("x-accel-buffering", "no")]
    {
        assert_eq!(stream.headers[name], value);
    }
    assert!(stream.headers.get("content-encoding").is_none());
    for id in 1..=3 {
        app.execute("update products set price = 3 where id = $1", &[&id]).await;
        let event = stream.next().await.unwrap();
        assert_eq!((event.name.as_str(), ids_of(&event.data)), ("changes", (vec![id], vec![])));
        assert_eq!(event.id, token_of(&event.data));
        assert_eq!(event.id, list_token(&user).await);
    }
    let last = stream.last_id.clone();
    drop(stream);
    app.batch_execute("delete from products where id = 4; update products set price = 4 where id = 5").await;
    // the last event of a client counts, not the parameter with which it began
    for (client, query) in [
        (user.with_header("last-event-id", &last), String::new()),
        (user.with_header("last-event-id", &last), format!("?since={token}")),
        (user.clone(), format!("?since={last}")),
        (user.with_header("last-event-id", ""), format!("?since={last}")),
    ] {
        let mut stream = EventStream::open(&client, &query).await;
        assert_eq!(stream.next_block().await.unwrap(), "retry: 2000");
        assert_eq!(ids_of(&stream.next().await.unwrap().data), (vec![5], vec![4]));
        assert_eq!(stream.last_id, list_token(&user).await);
    }
    let errors = json!({"sinse": ["Unknown parameter. Did you mean \"since\"?"]});
    assert_eq!(user.get("/api/products/events/?sinse=x").await.status_and_json(), (400, errors));
    let head = user.send(Method::HEAD, "/api/products/events/", None).await;
    assert_eq!((head.status.as_u16(), head.header("content-type")), (200, "text/event-stream"));
    wait_until("all streams have ended", async || app.metric("testshop_change_listeners").await == 0.0).await;
}

#[tokio::test]
async fn follower_of_events_ends_with_exactly_the_list() {
    let (app, user) = spawn_with_products(30).await;
    let mut follower = Follower::load(&user).await;
    let mut stream = EventStream::open(&user, &format!("?since={}", follower.token)).await;
    let writing = async {
        for round in 0..20 {
            app.batch_execute(&format!(
                "delete from products where id = {round};
                 update products set price = {round} where id % 5 = {round} % 5;
                 insert into products (category_id, name, price) select 1, 'New', 1 from generate_series(1, 3);
                 update tags set name = 'tag {round}' where id = 1"
            ))
            .await;
        }
        app.execute("insert into products (category_id, name, price) values (1, 'last', 1)", &[]).await;
    };
    let reading = async {
        while !follower.products.values().any(|product| product["name"] == "last") {
            follower.apply(&stream.next().await.unwrap().data);
        }
    };
    tokio::join!(writing, reading);
    follower.assert_reaches_list(&user, 1000).await;
    // more products than a page has
    app.batch_execute("update categories set name = 'Games'; update products set price = 1 where id <= 15").await;
    app.execute(
        "insert into products (category_id, name, price) select 1, 'many', 1 from generate_series(1, 900)",
        &[],
    )
    .await;
    app.execute("update categories set name = 'Toys'", &[]).await;
    app.execute(
        "insert into products (category_id, name, price) select 1, 'many', 1 from generate_series(1, 900)",
        &[],
    )
    .await;
    app.execute("update categories set name = 'Last'", &[]).await;
    while !follower.products.values().all(|product| product["category_name"] == "Last")
        || follower.products.len() < 1800
    {
        let event = stream.next().await.unwrap();
        assert!(event.data["changed"].as_array().unwrap().len() <= 1000);
        follower.apply(&event.data);
    }
    follower.assert_reaches_list(&user, 1000).await;
}

#[tokio::test]
async fn listeners_share_the_read_of_a_version_and_cost_none_while_idle() {
    const LISTENERS: usize = 40;
    let (app, user) = spawn_with_products(3).await;
    let mut streams = Vec::new();
    for _ in 0..LISTENERS {
        streams.push(EventStream::at_present(&user).await);
    }
    assert_eq!(app.metric("testshop_change_listeners").await, 40.0);
    app.reset_statement_stats().await;
    let before = app.metric("testshop_version_reads_total").await;
    app.execute("update products set price = 1 where id = 1", &[]).await;
    for stream in &mut streams {
        assert_eq!(ids_of(&stream.next().await.unwrap().data), (vec![1], vec![]));
    }
    assert_eq!(app.statement_calls("%as is_known%").await, 1);
    assert_eq!(app.metric("testshop_change_events_total").await, 40.0);
    // five reads a second, whatever the number of listeners
    tokio::time::sleep(Duration::from_secs(2)).await;
    let reads = app.metric("testshop_version_reads_total").await - before;
    assert!(reads < 60.0, "{reads}");
    assert_eq!(app.statement_calls("%as is_known%").await, 1);
}

#[tokio::test]
async fn expired_token_ends_the_stream_with_an_event() {
    let (app, user) = spawn_with_products(1).await;
    let mut streams = vec![
        EventStream::open(&user, "?since=nonsense").await,
        EventStream::open(&user.with_header("last-event-id", "nonsense"), "").await,
    ];
    let mut running = EventStream::at_present(&user).await;
    app.batch_execute("truncate product_tags").await;
    streams.push(EventStream::open(&user, &format!("?since={}", running.last_id)).await);
    running.next_block().await.into_iter().for_each(|block| assert!(block.starts_with("event: expired"), "{block}"));
    assert!(running.next().await.is_none());
    for mut stream in streams {
        let event = stream.next().await.unwrap();
        assert_eq!((event.name.as_str(), event.id.as_str(), event.data), ("expired", "", expired().1));
        assert!(stream.next().await.is_none());
    }
}

#[tokio::test]
async fn revocation_ends_the_stream_before_later_changes() {
    let app = TestAppBuilder::default().with("access-token-ttl", "6s").spawn().await;
    app.seed_products(2).await;
    app.create_user("ann").await;
    let expiring = app.login("ann").await;
    let mut expiring_stream = EventStream::at_present(&expiring).await;
    for revocation in [
        "update users set is_active = false where username = 'ann'",
        "delete from users where username = 'ann'",
        "logout",
    ] {
        if revocation.starts_with("delete") {
            app.execute("update users set is_active = true where username = 'ann'", &[]).await;
        } else if revocation == "logout" {
            app.create_user("ann").await;
        }
        let ann = app.login("ann").await;
        let mut stream = EventStream::at_present(&ann).await;
        app.execute("update products set price = price + 1 where id = 1", &[]).await;
        assert_eq!(ids_of(&stream.next().await.unwrap().data).0, [1]);
        let began = Instant::now();
        if revocation == "logout" {
            assert_eq!(ann.post("/api/logout/", json!({})).await.status, 204);
        } else {
            app.execute(revocation, &[]).await;
        }
        app.execute("update products set price = price + 1 where id = 2", &[]).await;
        assert!(stream.next().await.is_none(), "nothing after: {revocation}");
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    }
    // it may end at the deactivation or when its token expires; both are an end without an error
    while expiring_stream.next().await.is_some() {}
    // an idle stream ends with its token
    app.create_user("bob").await;
    let mut idle = EventStream::at_present(&app.login("bob").await).await;
    assert!(idle.next().await.is_none());
}

/// A revocation is committed while a listener reads the changes, and before the server learns of it.
#[tokio::test]
async fn changes_that_are_read_after_a_revocation_are_not_sent() {
    let app = TestApp::spawn().await;
    app.seed_products(3).await;
    let user = app.create_user("ann").await;
    let mut stream = EventStream::at_present(&user).await;
    let other = connect(app.database_url()).await;
    // the server can read versions, and waits with the names of categories
    other.batch_execute("begin; lock table categories in access exclusive mode").await.unwrap();
    app.execute("update products set price = 9 where id = 1", &[]).await;
    let waiting = "select count(*) from pg_locks where relation = 'categories'::regclass and not granted";
    wait_until("the listener reads the change", async || app.query_scalar::<i64>(waiting).await == 1).await;
    other.batch_execute("update users set is_active = false where username = 'ann'; commit").await.unwrap();
    assert!(stream.next().await.is_none(), "nothing is sent after the revocation");
    assert_eq!(app.metric("testshop_change_pages_total").await, 1.0, "the changes were read");
}

#[tokio::test]
async fn shutdown_ends_streams_cleanly_at_once() {
    let (app, user) = spawn_with_products(1).await;
    let other = app.start_instance_with("shutdown-delay", "1s").await;
    let mut streams = Vec::new();
    for _ in 0..5 {
        streams.push(EventStream::at_present(&user.on_instance(other.address)).await);
    }
    let began = Instant::now();
    let stopping = tokio::spawn(other.stop());
    for stream in &mut streams {
        assert!(stream.next().await.is_none());
    }
    assert!(stopping.await.unwrap(), "the drain ends in time");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

/// Sends the head of a request, with this version of HTTP, on a connection with small buffers.
async fn send_raw(user: &crate::harness::TestClient, query: &str, http_version: &str) -> tokio::net::TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut socket = socket.connect(user.address).await.unwrap();
    let token = user.token();
    let head = format!(
        "GET /api/products/events/{query} HTTP/{http_version}\r\nhost: shop.test\r\nauthorization: Bearer {token}\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    socket
}

#[tokio::test]
async fn reader_that_does_not_read_is_dropped_and_continues_without_loss() {
    let app = TestAppBuilder::default().with("write-timeout", "1s").spawn().await;
    app.seed_products(20).await;
    let user = app.create_user("ann").await;
    let mut follower = Follower::load(&user).await;
    let mut socket = send_raw(&user, &format!("?since={}", follower.token), "1.1").await;
    let mut head = [0; 200];
    socket.read_exact(&mut head).await.unwrap();
    for round in 0..6 {
        let sql = format!("update products set description = repeat('{round}', 100000)");
        app.execute(&sql, &[]).await;
    }
    wait_until("the listener is dropped", async || app.metric("testshop_change_listeners").await == 0.0).await;
    let mut stream = EventStream::open(&user.with_header("last-event-id", &follower.token), "").await;
    while follower.token != list_token(&user).await {
        follower.apply(&stream.next().await.unwrap().data);
    }
    follower.assert_reaches_list(&user, 1000).await;
}

#[tokio::test]
async fn http_1_0_gets_the_stream_without_chunks() {
    let (app, user) = spawn_with_products(1).await;
    let mut socket = send_raw(&user, "", "1.0").await;
    wait_until("the stream has begun", async || app.metric("testshop_change_listeners").await == 1.0).await;
    app.batch_execute("truncate product_tags").await;
    let mut text = String::new();
    socket.read_to_string(&mut text).await.unwrap();
    assert!(!text.to_lowercase().contains("transfer-encoding"), "{text}");
    assert!(text.contains("\r\n\r\nretry: 2000\nid: ") && text.contains("event: expired\ndata: {"), "{text}");
}

#[tokio::test]
async fn stream_survives_an_outage_of_the_database() {
    let proxy = Proxy::start(host_and_port(&required_env("DATABASE_URL")).to_owned()).await;
    let app = TestAppBuilder::default().database_via_proxy(&proxy).spawn().await;
    app.seed_products(3).await;
    let user = app.create_user("ann").await;
    let mut stream = EventStream::at_present(&user).await;
    for (state, id) in [(LinkState::Cut, 1), (LinkState::Silent, 2)] {
        proxy.set_state(state);
        let failures = app.metric("testshop_version_read_failures_total").await;
        app.execute("update products set price = 1 where id = $1", &[&id]).await;
        wait_until("the outage is noticed", async || {
            app.metric("testshop_version_read_failures_total").await > failures + 1.0
        })
        .await;
        proxy.set_state(LinkState::Open);
        assert_eq!(ids_of(&stream.next().await.unwrap().data), (vec![id], vec![]));
    }
}

#[tokio::test]
async fn listeners_have_shares() {
    let app = TestAppBuilder::default()
        .with("max-connections", 64)
        .with("trusted-proxies", "127.0.0.0/8")
        .with("rate-limit", "off")
        .spawn()
        .await;
    app.seed_products(1).await;
    let mut streams = Vec::new();
    // 48 listeners in all; half of them to a user and to a network
    for (name, address, allowed) in [("ann", "", 24), ("bob", "192.0.2.1", 20), ("carl", "192.0.2.1", 4)] {
        let user = app.create_user(name).await;
        let user = if address.is_empty() { user } else { user.with_header("x-forwarded-for", address) };
        for _ in 0..allowed {
            streams.push(EventStream::at_present(&user).await);
        }
        let refused = if name == "bob" { continue } else { user.get("/api/products/events/").await };
        assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (503, "10"), "{name}");
        assert_eq!(user.get("/api/products/").await.status, 200);
    }
    assert_eq!(app.metric("testshop_change_listeners").await, 48.0);
    drop(streams);
    wait_until("the permits are released", async || app.metric("testshop_change_listeners").await == 0.0).await;
}
