//! What goes wrong, one after the other: servers killed and stopped, Redis and PostgreSQL killed, cut off, slow, garbled,
//! set back.

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

use super::model::Model;
use crate::{
    harness::{
        LinkState, Process, Proxy, ReservedPort, Services, TestClient, connect, host_and_port, metric,
        process::serve_command, via_proxy,
    },
    stress::Rng,
};

/// A server with lines of its own to PostgreSQL and Redis.
pub struct Instance {
    serve: Command,
    process: Process,
    /// Kept while the process is restarted.
    port: ReservedPort,
    pub database: Proxy,
    pub redis: Proxy,
}

impl Instance {
    pub async fn start(services: &Services, database_url: &str, more: &[(&str, &str)]) -> Self {
        let database = Proxy::start(host_and_port(database_url).to_owned()).await;
        let redis = Proxy::start(host_and_port(&services.redis_url).to_owned()).await;
        let mut serve = serve_command(&via_proxy(database_url, database.address));
        serve.env("REDIS_URL", via_proxy(&services.redis_url, redis.address)).envs(more.iter().copied());
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

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    ServerKilled,
    ServerPaused,
    RedisLink(LinkState),
    RedisKilled,
    RedisFlushed,
    RedisGarbage,
    RedisRollback,
    DatabaseLink(LinkState),
    DatabaseCrashed,
    DatabaseKilled,
    BackendsKilled,
}

/// All of them, in the order in which they come round.
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
    /// How long what lasts lasts.
    fault_duration: Duration,
    /// By what the key of a list says besides the version: what Redis held when this was taken.
    dump: HashMap<String, Vec<u8>>,
    /// Values that were put into Redis and which a server found there, and took for what they are.
    pub detected: HashMap<Fault, f64>,
}

impl<'a> FaultInjector<'a> {
    pub fn new(services: &'a Services, instances: &'a mut [Instance], fault_duration: Duration) -> Self {
        Self { services, instances, rng: Rng(0x5eed), fault_duration, dump: HashMap::new(), detected: HashMap::new() }
    }

    /// The server that is never killed.
    pub fn survivor(&self) -> &Process {
        self.instances.last().unwrap().process()
    }

    /// Lets one loose, and ends it.
    pub async fn inject(&mut self, fault: Fault) {
        let count = self.instances.len() as u64;
        let any = usize::try_from(self.rng.below(count)).unwrap();
        match fault {
            Fault::ServerKilled => {
                let index = usize::try_from(self.rng.below(count - 1)).unwrap();
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
            Fault::RedisFlushed => self.redis(&["FLUSHALL"]).await,
            Fault::RedisGarbage | Fault::RedisRollback => self.corrupt_redis(fault).await,
            Fault::DatabaseCrashed => {
                self.services.crash_database();
                self.services.start();
            }
            Fault::DatabaseKilled => {
                self.services.kill_database();
                self.services.start();
            }
            Fault::BackendsKilled => {
                let owner = connect(&self.services.database_url).await;
                let kill = "select pg_terminate_backend(pid) from pg_stat_activity
                             where backend_type = 'client backend' and pid <> pg_backend_pid()";
                owner.batch_execute(kill).await.unwrap();
            }
        }
    }

    async fn degrade_link(&self, proxy: &Proxy, state: LinkState) {
        proxy.set_state(state);
        tokio::time::sleep(self.fault_duration).await;
        proxy.set_state(LinkState::Open);
    }

    async fn connection(&self) -> redis::aio::MultiplexedConnection {
        let client = redis::Client::open(self.services.redis_url.as_str()).unwrap();
        client.get_multiplexed_async_connection().await.unwrap()
    }

    async fn redis(&self, words: &[&str]) {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]).query_async::<redis::Value>(&mut self.connection().await).await.unwrap();
    }

    /// While it lasts, each list that is shared becomes another under the very key by which servers ask for it: garbage, or
    /// what an old dump has of it. What it was before is the dump for the next time.
    async fn corrupt_redis(&mut self, fault: Fault) {
        let (before, mut connection) = (self.invalid_values().await, self.connection().await);
        // few keys are seen through quickly
        self.redis(&["FLUSHALL"]).await;
        let (began, mut corrupted, mut found) = (Instant::now(), HashSet::new(), HashMap::new());
        // a busy machine takes longer until a server reads a replaced value; one detection of each kind is enough
        let can_replace = fault == Fault::RedisGarbage || !self.dump.is_empty();
        let is_needed = can_replace && self.detected.get(&fault).is_none_or(|count| *count == 0.0);
        while began.elapsed() < self.fault_duration
            || (is_needed && began.elapsed() < DETECTION_TIMEOUT && self.invalid_values().await <= before)
        {
            let keys: Vec<String> = redis::cmd("KEYS").arg("*:list:*").query_async(&mut connection).await.unwrap();
            for key in keys.into_iter().filter(|key| !key.ends_with(":lock")) {
                if !corrupted.insert(key.clone()) {
                    continue;
                }
                // prefix:list:number:token:what
                let list = key.splitn(5, ':').last().unwrap().to_owned();
                let old: Option<Vec<u8>> = match fault {
                    Fault::RedisGarbage => Some(b"garbage".to_vec()),
                    _ => self.dump.get(&list).cloned(),
                };
                let mut command = redis::cmd(if old.is_some() { "SET" } else { "GET" });
                command.arg(key);
                if let Some(old) = old {
                    command.arg(old).arg("EX").arg(60).arg("GET");
                }
                let new: Option<Vec<u8>> = command.query_async(&mut connection).await.unwrap();
                found.extend(new.map(|new| (list, new)));
            }
        }
        self.dump.extend(found);
        *self.detected.entry(fault).or_default() += self.invalid_values().await - before;
    }

    /// So often servers have found something in Redis that no server writes for that key.
    async fn invalid_values(&self) -> f64 {
        let mut count = 0.0;
        for instance in &*self.instances {
            count += metric(instance.process.admin_address, "testshop_redis_garbage_total").await;
        }
        count
    }
}

/// A client that asks and leaves before the answer is there, for ever.
pub async fn abandon_requests(model: Arc<Model>, caller: TestClient, instances: Vec<SocketAddr>) {
    let mut rng = Rng(0x1eaf);
    loop {
        let address = instances[usize::try_from(rng.below(instances.len() as u64)).unwrap()];
        let ask = async {
            let mut socket = TcpStream::connect(address).await?;
            let path = ["/api/products/", "/api/products/?tag=eco", "/api/products/export/"]
                [usize::try_from(rng.below(3)).unwrap()];
            let token = caller.token();
            socket
                .write_all(
                    format!("GET {path} HTTP/1.1\r\nHost: shop\r\nAuthorization: Bearer {token}\r\n\r\n").as_bytes(),
                )
                .await?;
            tokio::time::sleep(Duration::from_millis(rng.below(4))).await;
            // nothing of the answer is there yet
            let is_early = socket.try_read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
            std::io::Result::Ok(is_early)
        };
        model.seen.abandoned.fetch_add(usize::from(ask.await.unwrap_or(false)), SeqCst);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
