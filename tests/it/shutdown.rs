//! Graceful shutdown: requests in flight are finished, and load balancers are notified before connections close.

use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use tokio::{io::AsyncReadExt, net::TcpStream};

use crate::{
    harness::{Process, ReservedPort, TestApp, TestAppBuilder, TestClient, connect, wait_until},
    stress::record_result,
};

#[tokio::test(flavor = "multi_thread")]
async fn stopping_server_reports_it_and_serves_during_delay() {
    let app = TestAppBuilder::default().with("shutdown-delay", "5s").spawn().await;
    app.seed_products(1).await;
    // the port must not be assigned to another server after the shutdown
    let port = ReservedPort::new();
    let other = app.start_instance_with("listen-addr", port.address()).await;
    let user = app.create_user("ann").await.on_instance(other.address);
    let idle = TcpStream::connect(other.address).await.unwrap();
    let (mut idle, connection) = hyper::client::conn::http1::handshake(TokioIo::new(idle)).await.unwrap();
    tokio::spawn(connection);

    let began = Instant::now();
    let address = other.address;
    let stopping = tokio::spawn(other.stop());
    wait_until("the health check reports the shutdown", async || {
        user.get("/healthz").await.json()["status"] == "stopping"
    })
    .await;
    wait_until("responses close their connections", async || {
        user.get("/healthz").await.header("connection") == "close"
    })
    .await;
    assert_eq!(user.get("/readyz").await.status, 503);
    // requests on new and on idle connections are served, and their responses close the connections
    let list = user.get("/api/products/").await;
    assert_eq!((list.status.as_u16(), list.header("connection")), (200, "close"));
    let request = hyper::Request::get("/healthz").header("host", "shop").body(http_body_util::Empty::<&[u8]>::new());
    assert_eq!(idle.send_request(request.unwrap()).await.unwrap().status(), 200);
    assert!(stopping.await.unwrap(), "the drain ends in time");
    assert!(began.elapsed() >= Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(TcpStream::connect(address).await.is_err(), "the listener is closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn running_export_is_finished_before_shutdown() {
    let app = TestApp::spawn().await;
    app.seed_products(20).await;
    // reading the rows takes two seconds
    app.delay_product_rows(0.1).await;
    let other = app.start_instance().await;
    let user = app.create_user("ann").await.on_instance(other.address);
    let exporting = tokio::spawn(async move { user.get("/api/products/export/").await });
    app.wait_until_rows_are_delayed().await;
    assert!(other.stop().await, "the drain ends in time");
    let export = exporting.await.unwrap();
    assert_eq!((export.status.as_u16(), &export.body[..2]), (200, &b"PK"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn graceful_shutdown_finishes_in_flight_requests() {
    const WRITES: i64 = 3;
    const IDLE: usize = 100;
    let app = TestApp::spawn().await;
    app.seed_products(5).await;
    let token = app.create_staff("sam").await.token().to_owned();
    // the port must not be assigned to another server after the shutdown
    let port = ReservedPort::new();
    let listen_addr = port.address().to_string();
    let mut server = Process::serve(&app, &["--shutdown-delay", "100ms", "--listen-addr", &listen_addr]);
    let staff = TestClient::new(server.address).with_token(&token);
    assert_eq!(staff.get("/api/products/").await.status, 200);
    let mut idle = Vec::new();
    for _ in 0..IDLE {
        idle.push(TcpStream::connect(server.address).await.unwrap());
    }

    // all requests that need the table wait for the lock
    let other = connect(app.database_url()).await;
    other.batch_execute("begin; lock table products").await.unwrap();
    let writes: Vec<_> = (0..WRITES)
        .map(|number| {
            let staff = staff.clone();
            let body = serde_json::json!({"name": format!("Late {number}"), "price": 1, "category_id": 1});
            tokio::spawn(async move { staff.post("/api/products/", body).await.status })
        })
        .collect();
    let exporting = tokio::spawn(async move { staff.get("/api/products/export/").await });
    let waiting =
        "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    wait_until("the writes and the export wait", async || app.query_scalar::<i64>(waiting).await > WRITES).await;
    server.signal(rustix::process::Signal::TERM);
    wait_until("the listener is closed", async || TcpStream::connect(server.address).await.is_err()).await;
    other.batch_execute("commit").await.unwrap();

    for write in writes {
        assert_eq!(write.await.unwrap(), 201);
    }
    let export = exporting.await.unwrap();
    assert_eq!((export.status.as_u16(), &export.body[..2]), (200, &b"PK"[..]));
    for mut socket in idle {
        assert_eq!(socket.read(&mut [0]).await.unwrap(), 0, "an idle connection is closed");
    }
    assert!(server.wait().success());
    assert_eq!(app.query_scalar::<i64>("select count(*) from products where name like 'Late %'").await, WRITES);
    let observed = format!(
        "SIGTERM with {WRITES} writes, an export and {IDLE} idle connections: requests answered, idle connections \
         closed, exit code 0"
    );
    record_result("graceful shutdown finishes the requests in flight", &observed);
}
