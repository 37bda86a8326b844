//! A deploy costs no request: servers behind the balancer that the project ships are restarted one after the other under
//! constant load, with writes and exports in flight.

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

use super::seen;
use crate::harness::{Caller, Kept, Process, Shop, process::serving, until};

/// haproxy with the file of `deploy`, but for where it listens and where the servers are.
struct Balancer {
    child: Child,
    address: SocketAddr,
    /// Where it tells its counters.
    operators: SocketAddr,
    _file: tempfile::NamedTempFile,
}

impl Balancer {
    fn start(servers: &[SocketAddr]) -> Self {
        let address = free();
        let operators = free();
        let shipped = include_str!("../../../deploy/haproxy/haproxy.cfg");
        let lines = shipped.lines().map(|line| {
            if line.trim() == "bind :8080" {
                format!("    bind {address}\n")
            } else if line.trim_start().starts_with("bind ") {
                format!("    bind {operators}\n")
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
        Self { child, address, operators, _file: file }
    }

    /// How often it asked another server, because one was gone before it had answered.
    async fn retries(&self) -> f64 {
        let text = Caller::new(self.operators).get("/metrics").await.text();
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

/// An address that nobody has.
fn free() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Reads, changes and exports without a pause longer than this, and every one of them is answered as it should be.
async fn call(caller: Caller, number: i64, calls: Arc<AtomicUsize>, stop: Arc<AtomicBool>) {
    let (mut kept, mut count) = (Kept::default(), 0);
    while !stop.load(SeqCst) {
        count += 1;
        let (method, path, body) = match count % 20 {
            0 => (Method::GET, "/api/products/export/".to_owned(), None),
            1..=4 => (Method::PATCH, format!("/api/products/{number}/"), Some(json!({"price": count}))),
            5..=9 => (Method::GET, format!("/api/products/{number}/"), None),
            _ => (Method::GET, "/api/products/".to_owned(), None),
        };
        let answer = kept.send(&caller, method.clone(), &path, body).await;
        let answer = answer.unwrap_or_else(|| panic!("{method} {path} was not answered"));
        assert_eq!(answer.status, 200, "{method} {path}: {}", answer.text());
        calls.fetch_add(1, SeqCst);
        // half of the clients come anew each time
        if number % 2 == 0 {
            kept = Kept::default();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[ignore = "minutes, and needs haproxy: make hard"]
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_restarts_lose_no_request() {
    let shop = Shop::open().await;
    shop.stock(200).await;
    let token = shop.staff("sam").await.token().to_owned();
    let serve = |address: &str| {
        let mut serve = serving(shop.setting("database-url"));
        serve.env("LISTEN_ADDR", address).env("SHUTDOWN_DELAY", "1300ms").env("EXPORT_CONCURRENCY", "8");
        Process::start(&mut serve)
    };
    let mut servers: Vec<_> = (0..3).map(|_| serve("127.0.0.1:0")).collect();
    let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
    let balancer = Balancer::start(&addresses);
    let caller = Caller::new(balancer.address).bearing(&token);
    until("the balancer balances", async || {
        let answer = caller.try_send(Method::GET, "/api/products/", None, Vec::new()).await;
        answer.is_some_and(|answer| answer.status == 200)
    })
    .await;

    let (calls, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let began = Instant::now();
    let clients: Vec<_> = (1..=8)
        .map(|number| tokio::spawn(call(caller.clone(), number, Arc::clone(&calls), Arc::clone(&stop))))
        .collect();
    for restart in 0..100 {
        let server = &mut servers[restart % 3];
        let status = server.stop();
        assert!(status.success(), "{status}");
        *server = serve(&addresses[restart % 3].to_string());
        let operators = Caller::new(server.admin_address);
        until("the balancer sends it work again", async || {
            assert!(!clients.iter().any(tokio::task::JoinHandle::is_finished), "a client was failed");
            operators.get("/metrics").await.text().lines().any(|line| {
                line.starts_with("testshop_http_requests_total")
                    && line.contains("/api/products/\"")
                    && !line.ends_with(" 0")
            })
        })
        .await;
    }
    stop.store(true, SeqCst);
    for client in clients {
        client.await.expect("every request was answered");
    }
    let numbers = format!(
        "100 restarts in {:.0} s, {} requests through haproxy, 0 failed, {} asked of another server",
        began.elapsed().as_secs_f64(),
        calls.load(SeqCst),
        balancer.retries().await,
    );
    seen("a deploy costs no request", &numbers);
}
