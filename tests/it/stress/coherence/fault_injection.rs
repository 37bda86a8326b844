//! Injected faults, one at a time: servers are killed or paused; PostgreSQL and Redis are killed, disconnected, slow or
//! send garbage; Redis loses its entries or contains old ones.

use std::{
    collections::{HashMap, HashSet},
    io::ErrorKind,
    net::SocketAddr,
    process::Command,
    sync::{Arc, atomic::Ordering::SeqCst},
    time::{Duration, Instant},
};

use rustix::process::Signal;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::{model::Model, writers::WriterPool};
use crate::{
    harness::{
        LinkState, Process, Proxy, ReservedPort, Services, TestClient, connect, host_and_port, metric,
        process::serve_command, via_proxy,
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
}

impl Instance {
    pub async fn start(services: &Services, database_url: &str, settings: &[(&str, &str)]) -> Self {
        let database = Proxy::start(host_and_port(database_url).to_owned()).await;
        let redis = Proxy::start(host_and_port(&services.redis_url).to_owned()).await;
        let mut serve = serve_command(&via_proxy(database_url, database.address));
        serve.env("REDIS_URL", via_proxy(&services.redis_url, redis.address)).envs(settings.iter().copied());
        let port = ReservedPort::new();
        let process = Process::start(serve.env("LISTEN_ADDR", port.address().to_string()));
        Self { serve, process, port, database, redis }
    }

    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Kills the process and starts another one on the same port.
    fn kill_and_restart(&mut self) {
        self.process.kill();
        self.process = Process::start(&mut self.serve);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    ServerKilled,
    ServerPaused,
    RedisLink(LinkState),
    RedisKilled,
    RedisFlushed,
    /// Entries in Redis are replaced by invalid values.
    RedisGarbage,
    /// Entries in Redis are replaced by older ones.
    RedisRollback,
    DatabaseLink(LinkState),
    DatabaseCrashed,
    DatabaseKilled,
    /// All connections of PostgreSQL are terminated.
    BackendsKilled,
    /// The same, again and again.
    BackendsKilledRepeatedly,
}

/// All faults in the order in which they are injected.
pub const ALL_FAULTS: [Fault; 17] = [
    Fault::ServerKilled,
    Fault::RedisRollback,
    Fault::DatabaseLink(LinkState::Silent),
    Fault::RedisFlushed,
    Fault::ServerPaused,
    Fault::RedisLink(LinkState::Cut),
    Fault::BackendsKilled,
    Fault::RedisGarbage,
    Fault::RedisRollback,
    Fault::DatabaseLink(LinkState::Cut),
    Fault::RedisLink(LinkState::Silent),
    Fault::RedisKilled,
    Fault::DatabaseLink(LinkState::Slow),
    Fault::DatabaseCrashed,
    Fault::RedisLink(LinkState::Garbled),
    Fault::DatabaseKilled,
    Fault::RedisLink(LinkState::Slow),
];

/// Time for a server to read a value that was replaced in Redis.
const DETECTION_TIMEOUT: Duration = Duration::from_secs(30);

/// Injects faults, one at a time.
pub struct FaultInjector<'a> {
    services: &'a Services,
    instances: &'a mut [Instance],
    rng: Rng,
    /// The duration of faults other than a restart.
    fault_duration: Duration,
    /// Old entries of Redis, by their key without the version.
    dump: HashMap<String, Vec<u8>>,
    writers: &'a WriterPool,
    /// Replaced values that a server has read from Redis and recognised as invalid.
    pub detected: HashMap<Fault, f64>,
}

impl<'a> FaultInjector<'a> {
    pub fn new(
        services: &'a Services,
        instances: &'a mut [Instance],
        writers: &'a WriterPool,
        fault_duration: Duration,
    ) -> Self {
        let (rng, dump, detected) = (Rng(0x5eed), HashMap::new(), HashMap::new());
        Self { services, instances, rng, fault_duration, dump, writers, detected }
    }

    /// The server that is never killed.
    pub fn survivor(&self) -> &Process {
        self.instances.last().unwrap().process()
    }

    /// Injects a fault and ends it.
    pub async fn inject(&mut self, fault: Fault) {
        let count = self.instances.len();
        let any = self.rng.index(count);
        match fault {
            Fault::ServerKilled => {
                // the last one survives
                let index = self.rng.index(count - 1);
                self.instances[index].kill_and_restart();
            }
            Fault::ServerPaused => {
                self.instances[any].process.signal(Signal::STOP);
                tokio::time::sleep(self.fault_duration).await;
                self.instances[any].process.signal(Signal::CONT);
            }
            Fault::RedisLink(state) => self.degrade_link(&self.instances[any].redis, state).await,
            Fault::DatabaseLink(state) => self.degrade_link(&self.instances[any].database, state).await,
            Fault::RedisKilled => {
                self.services.kill_redis();
                tokio::time::sleep(self.fault_duration).await;
                self.services.start();
            }
            Fault::RedisFlushed => self.run_redis_command(&["FLUSHALL"]).await,
            Fault::RedisGarbage | Fault::RedisRollback => self.corrupt_redis(fault).await,
            Fault::DatabaseCrashed => {
                self.services.crash_database();
                self.services.start();
            }
            Fault::DatabaseKilled => {
                self.services.kill_database();
                self.services.start();
            }
            Fault::BackendsKilled => self.kill_backends().await,
            Fault::BackendsKilledRepeatedly => {
                let began = Instant::now();
                while began.elapsed() < self.fault_duration {
                    self.kill_backends().await;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        }
    }

    async fn kill_backends(&self) {
        let owner = connect(&self.services.database_url).await;
        let kill = "select pg_terminate_backend(pid) from pg_stat_activity
                     where backend_type = 'client backend' and pid <> pg_backend_pid()";
        owner.batch_execute(kill).await.unwrap();
    }

    async fn degrade_link(&self, proxy: &Proxy, state: LinkState) {
        proxy.set_state(state);
        tokio::time::sleep(self.fault_duration).await;
        proxy.set_state(LinkState::Open);
    }

    async fn connect_redis(&self) -> redis::aio::MultiplexedConnection {
        let client = redis::Client::open(self.services.redis_url.as_str()).unwrap();
        client.get_multiplexed_async_connection().await.unwrap()
    }

    async fn run_redis_command(&self, arguments: &[&str]) {
        let mut command = redis::cmd(arguments[0]);
        command.arg(&arguments[1..]).query_async::<redis::Value>(&mut self.connect_redis().await).await.unwrap();
    }

    /// Replaces each list that a server stores in Redis, under the same key, by garbage or by an older entry. The first
    /// time, waits until a server has read a replaced list.
    async fn corrupt_redis(&mut self, fault: Fault) {
        let (before, mut connection) = (self.count_invalid_values().await, self.connect_redis().await);
        // keeps the number of keys small, and KEYS fast
        self.run_redis_command(&["FLUSHALL"]).await;
        let (began, mut replaced) = (Instant::now(), HashSet::new());
        while began.elapsed() < self.fault_duration {
            self.replace_lists(fault, &mut connection, &mut replaced).await;
        }
        if self.detected.get(&fault).is_none_or(|count| *count == 0.0) {
            for attempt in 1.. {
                if self.count_invalid_values().await > before || began.elapsed() > DETECTION_TIMEOUT {
                    break;
                }
                self.read_replaced_list(fault, attempt, &mut connection, &mut replaced).await;
            }
        }
        *self.detected.entry(fault).or_default() += self.count_invalid_values().await - before;
    }

    /// Replaces the lists that were stored since the last call.
    async fn replace_lists(
        &mut self,
        fault: Fault,
        connection: &mut redis::aio::MultiplexedConnection,
        replaced: &mut HashSet<String>,
    ) {
        let keys: Vec<String> = redis::cmd("KEYS").arg("*:v*:products:*").query_async(connection).await.unwrap();
        for key in keys.into_iter().filter(|key| !key.ends_with(":lock")) {
            if !replaced.insert(key.clone()) {
                continue;
            }
            // prefix:format:products:number:token:representation:query
            let list = key.splitn(6, ':').last().unwrap().to_owned();
            let replacement: Option<Vec<u8>> = match fault {
                Fault::RedisGarbage => Some(b"garbage".to_vec()),
                _ => self.dump.get(&list).cloned(),
            };
            let mut command = redis::cmd(if replacement.is_some() { "SET" } else { "GET" });
            command.arg(key);
            if let Some(replacement) = replacement {
                command.arg(replacement).arg("EX").arg(60).arg("GET");
            }
            let entry: Option<Vec<u8>> = command.query_async(connection).await.unwrap();
            self.dump.extend(entry.map(|entry| (list, entry)));
        }
    }

    /// Has one instance store a list that no reader requests, replaces it, and has another instance read it. Writers
    /// pause meanwhile, so that both look for the same version.
    async fn read_replaced_list(
        &mut self,
        fault: Fault,
        attempt: usize,
        connection: &mut redis::aio::MultiplexedConnection,
        replaced: &mut HashSet<String>,
    ) {
        let path = format!("/api/products/?page_size={}", 11 + attempt % 80);
        let [first, second] = [0, 1].map(|index| self.writers.staff.on_instance(self.instances[index].address()));
        // the dump gets an entry of an older version
        first.get(&path).await;
        self.replace_lists(fault, connection, replaced).await;
        self.writers.is_paused.store(true, SeqCst);
        first.get(&path).await;
        self.replace_lists(fault, connection, replaced).await;
        second.get(&path).await;
        self.writers.is_paused.store(false, SeqCst);
    }

    /// Counts the values that the servers have read from Redis and that no server writes for their key.
    async fn count_invalid_values(&self) -> f64 {
        let mut count = 0.0;
        for instance in &*self.instances {
            count += metric(instance.process.admin_address, "testshop_redis_invalid_values_total").await;
        }
        count
    }
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
