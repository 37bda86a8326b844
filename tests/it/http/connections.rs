//! Connections: timeouts, parking, limits, shutdown.

use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::assert_error_response;
use crate::harness::{ReservedPort, TestApp, TestAppBuilder, wait_until};

#[tokio::test]
async fn slow_and_idle_connections_time_out() {
    let builder =
        TestAppBuilder::default().with("head-timeout", "1s").with("idle-timeout", "4s").with("body-timeout", "1s");
    let app = builder.spawn().await;
    // sends some bytes, and returns the time until the server closes the connection, and the response
    let send_and_wait = async |bytes: &[u8]| {
        let began = Instant::now();
        let mut socket = TcpStream::connect(app.server.address).await.unwrap();
        socket.write_all(bytes).await.unwrap();
        let mut response = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(30), socket.read_to_end(&mut response))
            .await
            .expect("the server closes the connection");
        (began.elapsed(), String::from_utf8(response).unwrap())
    };
    let (no_bytes, partial_head, idle, partial_body) = tokio::join!(
        send_and_wait(b""),
        send_and_wait(b"GET /healthz HT"),
        send_and_wait(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"),
        send_and_wait(
            b"POST /api/login/ HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{"
        ),
    );
    // the server measures timeouts in steps of 250 ms, which may be late: half the timeout is certain to pass
    for (case, (after, response)) in [("no bytes", &no_bytes), ("partial head", &partial_head)] {
        assert!(response.is_empty(), "{case}: {response}");
        assert!(*after >= Duration::from_millis(500), "{case}: {after:?}");
    }
    assert!(idle.1.starts_with("HTTP/1.1 200 ") && idle.0 >= Duration::from_secs(2), "{idle:?}");
    assert!(partial_body.1.starts_with("HTTP/1.1 408 "), "{partial_body:?}");
}

#[tokio::test]
async fn parked_connection_resumes() {
    const REQUEST: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    let app = TestApp::spawn().await;
    let read_response = async |socket: &mut TcpStream| {
        let (mut response, mut buffer) = (Vec::new(), [0; 1024]);
        while !response.ends_with(b"}") {
            let read = tokio::time::timeout(Duration::from_secs(20), socket.read(&mut buffer)).await;
            match read.expect("a response in time").expect("the connection is open") {
                0 => panic!("the server closed the connection"),
                read => response.extend_from_slice(&buffer[..read]),
            }
        }
        String::from_utf8(response).unwrap()
    };
    // a connection on which the first bytes of a second request follow the first request, and one without
    let mut partial = TcpStream::connect(app.server.address).await.unwrap();
    partial.write_all(&[REQUEST, &REQUEST[..9]].concat()).await.unwrap();
    assert!(read_response(&mut partial).await.starts_with("HTTP/1.1 200 "));
    let mut idle = TcpStream::connect(app.server.address).await.unwrap();
    for _ in 0..2 {
        idle.write_all(REQUEST).await.unwrap();
        assert!(read_response(&mut idle).await.starts_with("HTTP/1.1 200 "));
        wait_until("the connection is parked", async || app.metric("testshop_http_connections_parked").await == 1.0)
            .await;
    }
    partial.write_all(&REQUEST[9..]).await.unwrap();
    assert!(read_response(&mut partial).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn head_timeout_applies_to_partial_pipelined_request() {
    let app = TestAppBuilder::default().with("head-timeout", "1s").spawn().await;
    let mut socket = TcpStream::connect(app.server.address).await.unwrap();
    socket.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\nGET /hea").await.unwrap();
    let mut response = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(20), socket.read_to_end(&mut response)).await;
    assert!(ended.is_ok(), "the connection stayed open");
    assert!(response.starts_with(b"HTTP/1.1 200 "));
}

#[tokio::test]
async fn stalled_reader_is_reset() {
    let app = TestAppBuilder::default().with("write-timeout", "1s").spawn().await;
    app.seed_products(50_000).await;
    let user = app.create_user("ann").await;
    let mut socket = TcpStream::connect(app.server.address).await.unwrap();
    let request = format!("GET /api/products/ HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n", user.token());
    socket.write_all(request.as_bytes()).await.unwrap();
    wait_until("the response has begun", async || {
        let mut byte = [0];
        socket.peek(&mut byte).await.is_ok_and(|read| read == 1)
    })
    .await;
    wait_until("the server has dropped the connection", async || app.metric("testshop_http_connections").await == 0.0)
        .await;
    // a reset frees the kernel's send buffer as well
    let mut rest = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(20), socket.read_to_end(&mut rest)).await;
    let end = end.expect("the connection ends");
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn streams_are_limited_per_user() {
    let builder = TestAppBuilder::default().with("cache-bytes", 0).with("cache-entry-bytes", 1000);
    let app = builder.with("stream-concurrency", 4).spawn().await;
    app.seed_products(50_000).await;
    let (ann, bob) = (app.create_user("ann").await, app.create_user("bob").await);
    let request = format!("GET /api/products/ HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n", ann.token());
    let mut slow = TcpStream::connect(app.server.address).await.unwrap();
    slow.write_all(request.as_bytes()).await.unwrap();
    slow.read_exact(&mut [0; 12]).await.unwrap();
    let rejected = ann.get("/api/products/").await;
    assert_eq!((rejected.status.as_u16(), rejected.header("retry-after")), (503, "1"), "a user may have a quarter");
    assert_eq!(bob.get("/api/products/").await.status, 200);
    drop(slow);
    wait_until("the permit is released", async || ann.get("/api/products/").await.status == 200).await;
}

#[tokio::test]
async fn connections_over_limit_get_503() {
    // the peers are proxies, so that one address may hold all connections
    let builder = TestAppBuilder::default().with("max-connections", 2).with("trusted-proxies", "127.0.0.1");
    let app = builder.spawn().await;
    let request = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut socket = TcpStream::connect(app.server.address).await.unwrap();
        socket.write_all(request).await.unwrap();
        let mut response = [0; 12];
        socket.read_exact(&mut response).await.unwrap();
        assert_eq!(&response, b"HTTP/1.1 200");
        open.push(socket);
    }
    let response = app.anonymous().raw(b"").await;
    assert!(response.contains("\r\nretry-after: 1\r\n"), "{response}");
    assert_error_response(&response, "503", "Service temporarily unavailable.");
    drop(open);
    wait_until("the slots are released", async || {
        let response = app.anonymous().try_send(Method::GET, "/healthz", None, Vec::new()).await;
        response.is_some_and(|response| response.status == 200)
    })
    .await;
}

#[tokio::test]
async fn request_timeout_returns_503_and_write_is_atomic() {
    let app = TestAppBuilder::default().with("request-timeout", "1s").spawn().await;
    app.seed_products(1).await;
    let staff = app.create_staff("sam").await;
    // an insert waits until this connection releases the advisory lock; it polls, so no lock timeout applies
    app.batch_execute(
        "create function wait_for_release() returns trigger language plpgsql as 'begin
             while not pg_try_advisory_xact_lock_shared(1) loop perform pg_sleep(0.01); end loop;
             return new;
         end';
         create trigger wait_for_release before insert on products for each row execute function wait_for_release();
         select pg_advisory_lock(1)",
    )
    .await;
    let began = Instant::now();
    let write = staff.post("/api/products/", json!({"name": "Late", "price": 1, "category_id": 1})).await;
    assert_eq!((write.status.as_u16(), write.header("retry-after")), (503, "1"));
    assert!(began.elapsed() >= Duration::from_millis(700), "{:?}", began.elapsed());
    // neither a lock timeout nor the statement timeout has ended the write
    let running = "select count(*) from pg_stat_activity where wait_event = 'PgSleep' and datname = current_database()";
    wait_until("the write still runs", async || app.query_scalar::<i64>(running).await > 0).await;
    app.batch_execute("select pg_advisory_unlock(1)").await;
    app.batch_execute("begin; lock table products in access exclusive mode").await;
    assert_eq!(staff.get("/api/products/1/").await.status, 503);
    app.batch_execute("commit").await;
    wait_until("the write is complete", async || {
        staff.get("/api/products/").await.text().contains("\"name\":\"Late\"")
    })
    .await;
}

#[tokio::test]
async fn shutdown_finishes_running_requests_and_accepts_no_connections() {
    // the port must not be assigned to another server after the shutdown
    let port = ReservedPort::new();
    let builder = TestAppBuilder::default().with("pbkdf2-iterations", 2_000_000).with("listen-addr", port.address());
    let app = builder.spawn().await;
    let address = app.server.address;
    let anonymous = app.anonymous();
    let account = json!({"username": "slow", "email": "slow@example.com", "password": "a slow password"});
    let registering = tokio::spawn(async move { anonymous.post("/api/register/", account).await });
    wait_until("the password is being hashed", async || {
        app.statement_calls("%fold_case(email) = fold_case($2)%").await > 0
    })
    .await;
    let mut idle = TcpStream::connect(address).await.unwrap();
    let stopping = tokio::spawn(app.server.stop());
    assert_eq!(registering.await.unwrap().status, 201, "a running request is finished");
    assert!(stopping.await.unwrap(), "the drain ends in time");
    let mut rest = Vec::new();
    assert_eq!(idle.read_to_end(&mut rest).await.unwrap_or(0), 0, "an idle connection is closed");
    assert!(TcpStream::connect(address).await.is_err(), "the listener is closed");
}
