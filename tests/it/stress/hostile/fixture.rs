//! A server under attack: its resource usage, and the requests of well-behaved clients during the attack.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use hyper::Method;
use tokio::time::timeout;

use crate::harness::{
    KeepAliveClient, Process, TestApp, TestClient, memory_group::MemoryGroup, metric, process::serve_command,
    wait_until,
};

/// A well-behaved client gets its response within this time.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Resources that the server holds, and the kernel on its behalf.
#[derive(Clone, Copy, Debug)]
pub struct ResourceUsage {
    /// MiB, without the cache.
    pub memory: f64,
    pub descriptors: usize,
    /// Connections to PostgreSQL.
    pub backends: i64,
    /// Sockets of the server's port in the kernel, including those without a descriptor.
    pub sockets: usize,
}

impl ResourceUsage {
    /// Returns the number of descriptors without the connections to PostgreSQL; a busy server opens more of these.
    pub fn other_descriptors(&self) -> i64 {
        i64::try_from(self.descriptors).unwrap() - self.backends
    }
}

/// Counts the sockets of a port that are neither listening nor in TIME_WAIT.
fn count_sockets(port: u16) -> usize {
    const LISTEN: &str = "0A";
    const TIME_WAIT: &str = "06";
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let port = format!(":{port:04X}");
    let sockets = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    sockets.filter(|columns| columns[1].ends_with(&port) && ![LISTEN, TIME_WAIT].contains(&columns[3])).count()
}

/// Requests of well-behaved clients.
#[derive(Default)]
pub struct Traffic {
    pub sent: usize,
    /// Responses with status 200 within [`RESPONSE_TIMEOUT`].
    pub served: usize,
}

impl Traffic {
    pub async fn send(&mut self, keep_alive: &mut KeepAliveClient, user: &TestClient, path: &str) {
        self.sent += 1;
        let response = timeout(RESPONSE_TIMEOUT, keep_alive.send(user, Method::GET, path, None)).await;
        self.served += usize::from(matches!(response, Ok(Some(response)) if response.status == 200));
    }

    pub fn percent_served(&self) -> f64 {
        self.served as f64 / self.sent as f64 * 100.0
    }
}

/// Sends requests until `stop` is set.
async fn send_requests(user: TestClient, is_keep_alive: bool, stop: Arc<AtomicBool>) -> Traffic {
    const PATHS: [&str; 3] = ["/api/products/?page_size=100", "/api/products/1/", "/api/me/"];
    let (mut keep_alive, mut traffic) = (KeepAliveClient::default(), Traffic::default());
    while !stop.load(SeqCst) {
        traffic.send(&mut keep_alive, &user, PATHS[traffic.sent % PATHS.len()]).await;
        if !is_keep_alive {
            keep_alive = KeepAliveClient::default();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    traffic
}

pub struct AttackFixture {
    pub app: TestApp,
    pub server: Process,
    pub user: TestClient,
}

impl AttackFixture {
    /// Starts a server with some products and fills its cache.
    pub async fn start(products: i32, settings: &[(&str, &str)]) -> Self {
        Self::start_in(None, products, settings).await
    }

    /// Like [`Self::start`], with the server in a control group.
    pub async fn start_in(group: Option<&MemoryGroup>, products: i32, settings: &[(&str, &str)]) -> Self {
        let app = TestApp::spawn().await;
        app.seed_products(products).await;
        let token = app.create_user("ann").await.token().to_owned();
        let mut command = serve_command(app.setting("database-url"));
        command.envs(settings.iter().copied());
        let mut command = match group {
            Some(group) => group.wrap(&command),
            None => command,
        };
        let server = Process::start(&mut command);
        let user = TestClient::new(server.address).with_token(&token);
        for _ in 0..50 {
            assert_eq!(user.get("/api/products/").await.status, 200);
        }
        Self { app, server, user }
    }

    pub async fn resource_usage(&self) -> ResourceUsage {
        let backends = "select count(*) from pg_stat_activity
                         where datname = current_database() and application_name = 'testshop'";
        let cached = metric(self.server.admin_address, "testshop_cache_bytes").await;
        ResourceUsage {
            memory: self.server.memory_kib("VmRSS") as f64 / 1024.0 - cached / f64::from(1 << 20),
            descriptors: self.server.descriptors(),
            backends: self.app.query_scalar(backends).await,
            sockets: count_sockets(self.user.address.port()),
        }
    }

    /// Runs an attack while four well-behaved clients send requests, two of them on a new connection per request.
    pub async fn run_attack(&self, attack: impl Future<Output = ()>) -> Traffic {
        let stop = Arc::new(AtomicBool::new(false));
        let clients = [true, false, true, false]
            .map(|is_keep_alive| tokio::spawn(send_requests(self.user.clone(), is_keep_alive, Arc::clone(&stop))));
        attack.await;
        stop.store(true, SeqCst);
        let mut total = Traffic::default();
        for client in clients {
            let traffic = client.await.unwrap();
            total.sent += traffic.sent;
            total.served += traffic.served;
        }
        total
    }

    /// Waits until the server has closed all connections but those of the well-behaved clients.
    pub async fn wait_released(&self, before: ResourceUsage) {
        wait_until("the server closes the hostile connections", async || {
            self.server.descriptors() <= before.descriptors + 8
        })
        .await;
    }

    /// Waits until the server holds no more descriptors and connections than before. Memory is not compared: the
    /// allocator keeps some.
    pub async fn assert_recovered(&self, before: ResourceUsage) -> ResourceUsage {
        wait_until("descriptors and connections are released", async || {
            let now = self.resource_usage().await;
            now.descriptors <= before.descriptors + 4
                && now.backends <= before.backends.max(10)
                && now.sockets <= before.sockets + 4
        })
        .await;
        self.resource_usage().await
    }
}
