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
    hard::Dice,
    harness::{Caller, Line, Process, Proxy, Services, connect, host_of, metric, process::serving},
};

/// A server with lines of its own to PostgreSQL and Redis.
pub struct Instance {
    serve: Command,
    process: Process,
    pub database: Proxy,
    pub redis: Proxy,
}

impl Instance {
    pub async fn start(services: &Services, database_url: &str, more: &[(&str, &str)]) -> Self {
        let database = Proxy::to(host_of(database_url).to_owned()).await;
        let redis = Proxy::to(host_of(&services.redis_url).to_owned()).await;
        let over = |url: &str, line: SocketAddr| url.replacen(host_of(url), &line.to_string(), 1);
        let mut serve = serving(&over(database_url, database.address));
        serve.env("REDIS_URL", over(&services.redis_url, redis.address)).envs(more.iter().copied());
        let process = Process::start(&mut serve);
        Self { serve, process, database, redis }
    }

    pub fn address(&self) -> SocketAddr {
        self.process.address
    }

    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Ends it without a word; another takes its place.
    fn kill(&mut self) {
        let address = self.address().to_string();
        self.process.kill();
        self.process = Process::start(self.serve.env("LISTEN_ADDR", address));
    }
}

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Nemesis {
    ServerKilled,
    ServerStopped,
    RedisLine(Line),
    RedisKilled,
    RedisFlushed,
    RedisGarbage,
    RedisSetBack,
    DatabaseLine(Line),
    DatabaseCrashed,
    DatabaseKilled,
    BackendsKilled,
}

/// All of them, in the order in which they come round.
pub const ALL: [Nemesis; 17] = [
    Nemesis::ServerKilled,
    Nemesis::RedisSetBack,
    Nemesis::DatabaseLine(Line::Silent),
    Nemesis::RedisFlushed,
    Nemesis::ServerStopped,
    Nemesis::RedisLine(Line::Cut),
    Nemesis::BackendsKilled,
    Nemesis::RedisGarbage,
    Nemesis::RedisSetBack,
    Nemesis::DatabaseLine(Line::Cut),
    Nemesis::RedisLine(Line::Silent),
    Nemesis::RedisKilled,
    Nemesis::DatabaseLine(Line::Slow),
    Nemesis::DatabaseCrashed,
    Nemesis::RedisLine(Line::Garbled),
    Nemesis::DatabaseKilled,
    Nemesis::RedisLine(Line::Slow),
];

/// Whoever lets them loose.
pub struct Fate<'a> {
    services: &'a Services,
    instances: &'a mut [Instance],
    dice: Dice,
    /// How long what lasts lasts.
    lasting: Duration,
    /// By what the key of a list says besides the version: what Redis held when this was taken.
    dump: HashMap<String, Vec<u8>>,
    /// Values that were put into Redis and which a server found there, and took for what they are.
    pub found_out: HashMap<Nemesis, f64>,
}

impl<'a> Fate<'a> {
    pub fn new(services: &'a Services, instances: &'a mut [Instance], lasting: Duration) -> Self {
        Self { services, instances, dice: Dice(0x5eed), lasting, dump: HashMap::new(), found_out: HashMap::new() }
    }

    /// The server that is never killed.
    pub fn survivor(&self) -> &Process {
        self.instances.last().unwrap().process()
    }

    /// Lets one loose, and ends it.
    pub async fn strike(&mut self, nemesis: Nemesis) {
        let count = self.instances.len() as u64;
        let any = usize::try_from(self.dice.below(count)).unwrap();
        match nemesis {
            Nemesis::ServerKilled => {
                let mortal = usize::try_from(self.dice.below(count - 1)).unwrap();
                self.instances[mortal].kill();
            }
            Nemesis::ServerStopped => {
                self.instances[any].process.signal(Signal::STOP);
                tokio::time::sleep(self.lasting).await;
                self.instances[any].process.signal(Signal::CONT);
            }
            Nemesis::RedisLine(line) => self.disturb(&self.instances[any].redis, line).await,
            Nemesis::DatabaseLine(line) => self.disturb(&self.instances[any].database, line).await,
            Nemesis::RedisKilled => {
                self.services.kill_redis();
                tokio::time::sleep(self.lasting).await;
                self.services.start();
            }
            Nemesis::RedisFlushed => self.redis(&["FLUSHALL"]).await,
            Nemesis::RedisGarbage | Nemesis::RedisSetBack => self.spoil(nemesis).await,
            Nemesis::DatabaseCrashed => {
                self.services.crash_database();
                self.services.start();
            }
            Nemesis::DatabaseKilled => {
                self.services.kill_database();
                self.services.start();
            }
            Nemesis::BackendsKilled => {
                let owner = connect(&self.services.database_url).await;
                let kill = "select pg_terminate_backend(pid) from pg_stat_activity
                             where backend_type = 'client backend' and pid <> pg_backend_pid()";
                owner.batch_execute(kill).await.unwrap();
            }
        }
    }

    async fn disturb(&self, proxy: &Proxy, line: Line) {
        proxy.set(line);
        tokio::time::sleep(self.lasting).await;
        proxy.set(Line::Open);
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
    async fn spoil(&mut self, nemesis: Nemesis) {
        let (before, mut connection) = (self.garbage().await, self.connection().await);
        // few keys are seen through quickly
        self.redis(&["FLUSHALL"]).await;
        let (until, mut spoilt, mut there) = (Instant::now() + self.lasting, HashSet::new(), HashMap::new());
        while Instant::now() < until {
            let keys: Vec<String> = redis::cmd("KEYS").arg("*:list:*").query_async(&mut connection).await.unwrap();
            for key in keys.into_iter().filter(|key| !key.ends_with(":lock")) {
                if !spoilt.insert(key.clone()) {
                    continue;
                }
                // prefix:list:number:token:what
                let list = key.splitn(5, ':').last().unwrap().to_owned();
                let old: Option<Vec<u8>> = match nemesis {
                    Nemesis::RedisGarbage => Some(b"garbage".to_vec()),
                    _ => self.dump.get(&list).cloned(),
                };
                let mut command = redis::cmd(if old.is_some() { "SET" } else { "GET" });
                command.arg(key);
                if let Some(old) = old {
                    command.arg(old).arg("EX").arg(60).arg("GET");
                }
                let new: Option<Vec<u8>> = command.query_async(&mut connection).await.unwrap();
                there.extend(new.map(|new| (list, new)));
            }
        }
        self.dump.extend(there);
        *self.found_out.entry(nemesis).or_default() += self.garbage().await - before;
    }

    /// So often servers have found something in Redis that no server writes for that key.
    async fn garbage(&self) -> f64 {
        let mut count = 0.0;
        for instance in &*self.instances {
            count += metric(instance.process.admin_address, "testshop_redis_garbage_total").await;
        }
        count
    }
}

/// A client that asks and leaves before the answer is there, for ever.
pub async fn leave(model: Arc<Model>, caller: Caller, instances: Vec<SocketAddr>) {
    let mut dice = Dice(0x1eaf);
    loop {
        let address = instances[usize::try_from(dice.below(instances.len() as u64)).unwrap()];
        let ask = async {
            let mut socket = TcpStream::connect(address).await?;
            let path = ["/api/products/", "/api/products/?tag=eco", "/api/products/export/"]
                [usize::try_from(dice.below(3)).unwrap()];
            let token = caller.token();
            socket
                .write_all(
                    format!("GET {path} HTTP/1.1\r\nHost: shop\r\nAuthorization: Bearer {token}\r\n\r\n").as_bytes(),
                )
                .await?;
            tokio::time::sleep(Duration::from_millis(dice.below(4))).await;
            // nothing of the answer is there yet
            let is_early = socket.try_read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
            std::io::Result::Ok(is_early)
        };
        model.seen.left.fetch_add(usize::from(ask.await.unwrap_or(false)), SeqCst);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
