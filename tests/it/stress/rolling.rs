//! Servers behind haproxy, with the configuration of `deploy`. A rolling restart loses no request: the servers restart
//! one after the other under constant load with writes and exports in flight. One address cannot use up all connections.

use std::{
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use hyper::Method;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinHandle,
};

use super::{hostile::attacks::raise_nofile_limit, record_result};
use crate::harness::{KeepAliveClient, Process, ReservedPort, TestApp, TestClient, process::serve_command, wait_until};

/// haproxy with the configuration of `deploy`, except for its addresses and those of the servers.
struct Balancer {
    child: Child,
    address: SocketAddr,
    metrics_address: SocketAddr,
    _file: tempfile::NamedTempFile,
    _ports: [ReservedPort; 2],
}

impl Balancer {
    fn start(servers: &[SocketAddr]) -> Self {
        let (port, metrics_port) = (ReservedPort::new(), ReservedPort::new());
        let (address, metrics_address) = (port.address(), metrics_port.address());
        let deployed = include_str!("../../../deploy/haproxy/haproxy.cfg");
        let lines = deployed.lines().map(|line| {
            if line.trim() == "bind :8080" {
                format!("    bind {address}\n")
            } else if line.trim_start().starts_with("bind ") {
                format!("    bind {metrics_address}\n")
            } else if line.trim_start().starts_with("server-template ") {
                servers
                    .iter()
                    .enumerate()
                    .map(|(number, server)| format!("    server api{number} {server}\n"))
                    .collect()
            } else {
                format!("{line}\n")
            }
        });
        let config: String = lines.collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, config).unwrap();
        let mut haproxy = Command::new("haproxy");
        haproxy.arg("-db").arg("-f").arg(file.path()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = haproxy.spawn().expect("haproxy is installed");
        Self { child, address, metrics_address, _file: file, _ports: [port, metrics_port] }
    }

    /// Returns how often haproxy has retried a request on another server.
    async fn retries(&self) -> f64 {
        let text = TestClient::new(self.metrics_address).get("/metrics").await.text();
        let line = text.lines().find_map(|line| {
            line.strip_prefix("haproxy_backend_retry_warnings_total{proxy=\"servers\"")?.rsplit_once(' ')
        });
        line.expect("haproxy counts its retries").1.parse().unwrap()
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends reads, changes and exports until `stop` is set, and asserts that each gets 200.
async fn send_requests(client: TestClient, number: i64, calls: Arc<AtomicUsize>, stop: Arc<AtomicBool>) {
    let (mut keep_alive, mut count) = (KeepAliveClient::default(), 0);
    while !stop.load(SeqCst) {
        count += 1;
        let (method, path, body) = match count % 20 {
            0 => (Method::GET, "/api/products/export/".to_owned(), None),
            1..=4 => (Method::PATCH, format!("/api/products/{number}/"), Some(json!({"price": count}))),
            5..=9 => (Method::GET, format!("/api/products/{number}/"), None),
            _ => (Method::GET, "/api/products/".to_owned(), None),
        };
        let response = keep_alive.send(&client, method.clone(), &path, body).await;
        let response = response.unwrap_or_else(|| panic!("{method} {path} got no response"));
        assert_eq!(response.status, 200, "{method} {path}: {}", response.text());
        calls.fetch_add(1, SeqCst);
        // half of the clients open a connection per request
        if number % 2 == 0 {
            keep_alive = KeepAliveClient::default();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until the server has received a list request from the balancer.
async fn wait_balanced(server: &Process, clients: &[JoinHandle<()>]) {
    let admin = TestClient::new(server.admin_address);
    wait_until("the balancer sends requests to the restarted server", async || {
        assert!(!clients.iter().any(JoinHandle::is_finished), "a request failed");
        admin.get("/metrics").await.text().lines().any(|line| {
            line.starts_with("testshop_http_requests_total")
                && line.contains("/api/products/\"")
                && !line.ends_with(" 0")
        })
    })
    .await;
}

/// Opens a connection from an address of this machine, and returns it if a request on it gets 200.
async fn try_connect(from: [u8; 4], balancer: SocketAddr) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    let mut connection = socket.connect(balancer).await.ok()?;
    connection.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.ok()?;
    let mut status = [0; 12];
    connection.read_exact(&mut status).await.ok()?;
    (&status == b"HTTP/1.1 200").then_some(connection)
}

#[ignore = "thousands of connections, and needs haproxy: make stress"]
#[tokio::test(flavor = "multi_thread")]
async fn one_network_holds_half_of_the_balancer() {
    assert!(raise_nofile_limit() > 13_000, "13,000 descriptors are needed");
    let app = TestApp::spawn().await;
    let balancer = Balancer::start(&[app.server.address]);
    let [attacker, other] = [[127, 0, 0, 2], [127, 0, 0, 3]];
    wait_until("the balancer forwards requests", async || try_connect(other, balancer.address).await.is_some()).await;
    let mut held = Vec::new();
    while let Some(connection) = try_connect(attacker, balancer.address).await {
        held.push(connection);
        assert!(held.len() <= 4096, "one address holds more than half of 8,192 connections");
    }
    assert_eq!(held.len(), 4096);
    assert!(try_connect(other, balancer.address).await.is_some(), "another address is served");
    record_result("one network holds at most half of haproxy's connections", "4,096 of 8,192");
}

#[ignore = "minutes, and needs haproxy: make stress"]
#[tokio::test(flavor = "multi_thread")]
async fn hundred_restarts_lose_no_request() {
    let app = TestApp::spawn().await;
    app.seed_products(200).await;
    let token = app.create_staff("sam").await.token().to_owned();
    let serve = |address: SocketAddr| {
        let mut serve = serve_command(app.setting("database-url"));
        serve.env("LISTEN_ADDR", address.to_string()).env("SHUTDOWN_DELAY", "1300ms").env("EXPORT_CONCURRENCY", "8");
        Process::start(&mut serve)
    };
    let ports: [ReservedPort; 3] = std::array::from_fn(|_| ReservedPort::new());
    let addresses = ports.each_ref().map(ReservedPort::address);
    let mut servers = addresses.map(serve);
    let balancer = Balancer::start(&addresses);
    let client = TestClient::new(balancer.address).with_token(&token);
    wait_until("the balancer forwards requests", async || {
        let response = client.try_send(Method::GET, "/api/products/", None, Vec::new()).await;
        response.is_some_and(|response| response.status == 200)
    })
    .await;

    let (calls, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let began = Instant::now();
    let clients: Vec<_> = (1..=8)
        .map(|number| tokio::spawn(send_requests(client.clone(), number, Arc::clone(&calls), Arc::clone(&stop))))
        .collect();
    for restart in 0..100 {
        let index = restart % servers.len();
        let status = servers[index].stop();
        assert!(status.success(), "{status}");
        servers[index] = serve(addresses[index]);
        wait_balanced(&servers[index], &clients).await;
    }
    stop.store(true, SeqCst);
    for client in clients {
        client.await.expect("every request gets 200");
    }
    let observed = format!(
        "100 restarts in {:.0} s: {} requests through haproxy, 0 failed, {} retried on another server",
        began.elapsed().as_secs_f64(),
        calls.load(SeqCst),
        balancer.retries().await,
    );
    record_result("a rolling restart loses no request", &observed);
}
