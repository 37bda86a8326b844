//! Server processes with proxies to PostgreSQL and Redis, and clients that disconnect.

use std::{
    io::ErrorKind,
    net::SocketAddr,
    process::Command,
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::{database::Database, model::Model};
use crate::{
    harness::{
        Pooler, Process, Proxy, ReservedPort, TestClient, host_and_port, process::serve_command, via_proxy, wait_until,
    },
    stress::Rng,
};

/// A server process with its own proxies to PostgreSQL and Redis.
pub struct Instance {
    serve: Command,
    process: Process,
    /// Reserved across restarts of the process.
    port: ReservedPort,
    pub database: Proxy,
    pub redis: Proxy,
    /// Uses PostgreSQL through a pooler.
    pub is_pooled: bool,
}

impl Instance {
    pub async fn start(database_url: &str, is_pooled: bool, redis_url: &str, settings: &[(&str, &str)]) -> Self {
        let database = Proxy::start(host_and_port(database_url).to_owned()).await;
        let redis = Proxy::start(host_and_port(redis_url).to_owned()).await;
        let mut serve = serve_command(&via_proxy(database_url, database.address));
        serve.env("REDIS_URL", via_proxy(redis_url, redis.address)).envs(settings.iter().copied());
        let port = ReservedPort::new();
        let process = Process::start(serve.env("LISTEN_ADDR", port.address().to_string()));
        Self { serve, process, port, database, redis, is_pooled }
    }

    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Kills the process and starts another one on the same port.
    pub fn kill_and_restart(&mut self) {
        self.process.kill();
        self.process = Process::start(&mut self.serve);
    }
}

/// Starts three instances, the first of them behind the pooler if there is one.
pub async fn start_instances(
    database: &Database,
    pooler: Option<&Pooler>,
    serving_url: &str,
    staff: &TestClient,
    lease: Duration,
) -> Vec<Instance> {
    let lease = format!("{}ms", lease.as_millis());
    let settings = [
        ("REDIS_PREFIX", "coherence"),
        ("DB_POOL_SIZE", "8"),
        ("SHUTDOWN_DELAY", "0s"),
        ("PBKDF2_ITERATIONS", "1000"),
        ("RATE_LIMIT", "off"),
        ("LEASE", lease.as_str()),
    ];
    let mut instances = Vec::new();
    for index in 0..3 {
        let pooler = pooler.filter(|_| index == 0);
        let url = pooler.map_or_else(|| serving_url.to_owned(), |pooler| via_proxy(serving_url, pooler.address()));
        let instance = Instance::start(&url, pooler.is_some(), &database.redis().redis_url, &settings).await;
        let client = staff.on_instance(instance.address());
        wait_until("the instance serves lists", async || client.get("/api/products/").await.status == 200).await;
        instances.push(instance);
    }
    instances
}

/// Sends requests and disconnects before the response, until the task is aborted.
pub async fn abandon_requests(model: Arc<Model>, client: TestClient, instances: Vec<SocketAddr>) {
    let mut rng = Rng(0x1eaf);
    loop {
        let address = *rng.pick(&instances);
        let abandon = async {
            let mut socket = TcpStream::connect(address).await?;
            let path = rng.pick(&["/api/products/", "/api/products/?tag=eco", "/api/products/export/"]);
            let token = client.token();
            let request = format!("GET {path} HTTP/1.1\r\nHost: shop\r\nAuthorization: Bearer {token}\r\n\r\n");
            socket.write_all(request.as_bytes()).await?;
            tokio::time::sleep(Duration::from_millis(rng.below(4))).await;
            // no byte of the response has arrived
            let is_early = socket.try_read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
            std::io::Result::Ok(is_early)
        };
        model.counters.abandoned.fetch_add(usize::from(abandon.await.unwrap_or(false)), SeqCst);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
