//! What goes wrong, one after the other: servers killed and stopped, Redis and PostgreSQL killed, cut off, slow, garbled,
//! set back.

use std::{collections::HashMap, net::SocketAddr, process::Command, time::Duration};

use rustix::process::Signal;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::{
    hard::Dice,
    harness::{Caller, Line, Process, Proxy, Services, connect, host_of, process::serving},
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nemesis {
    ServerKilled,
    ServerStopped,
    RedisLine(Line),
    RedisKilled,
    RedisFlushed,
    RedisGarbage,
    RedisSetBack,
    DatabaseLine(Line),
    DatabaseKilled,
    BackendsKilled,
}

/// All of them, in the order in which they come round.
pub const ALL: [Nemesis; 16] = [
    Nemesis::ServerKilled,
    Nemesis::RedisSetBack,
    Nemesis::DatabaseLine(Line::Silent),
    Nemesis::RedisFlushed,
    Nemesis::ServerStopped,
    Nemesis::RedisLine(Line::Cut),
    Nemesis::BackendsKilled,
    Nemesis::RedisGarbage,
    Nemesis::DatabaseLine(Line::Cut),
    Nemesis::RedisLine(Line::Silent),
    Nemesis::RedisKilled,
    Nemesis::DatabaseLine(Line::Slow),
    Nemesis::RedisSetBack,
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
    /// What Redis held when this was taken.
    dump: HashMap<Vec<u8>, Vec<u8>>,
}

impl<'a> Fate<'a> {
    pub fn new(services: &'a Services, instances: &'a mut [Instance], lasting: Duration) -> Self {
        Self { services, instances, dice: Dice(0x5eed), lasting, dump: HashMap::new() }
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
            Nemesis::RedisGarbage => self.spoil().await,
            Nemesis::RedisSetBack => self.set_back().await,
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

    async fn keys(&self) -> Vec<Vec<u8>> {
        redis::cmd("KEYS").arg("*").query_async(&mut self.connection().await).await.unwrap()
    }

    /// Every value becomes another.
    async fn spoil(&self) {
        let mut connection = self.connection().await;
        for key in self.keys().await {
            redis::cmd("SET").arg(key).arg("garbage").query_async::<()>(&mut connection).await.unwrap();
        }
    }

    /// What it held the last time is put back, as from an old dump; what it holds now is remembered for the next time.
    async fn set_back(&mut self) {
        let mut connection = self.connection().await;
        let mut dump = HashMap::new();
        for key in self.keys().await {
            let value: Option<Vec<u8>> = redis::cmd("DUMP").arg(&key).query_async(&mut connection).await.unwrap();
            dump.extend(value.map(|value| (key, value)));
        }
        for (key, value) in std::mem::replace(&mut self.dump, dump) {
            let mut restore = redis::cmd("RESTORE");
            restore.arg(key).arg(0).arg(value).arg("REPLACE");
            restore.query_async::<()>(&mut connection).await.unwrap();
        }
    }
}

/// A client that asks and leaves before the answer is there, for ever.
pub async fn leave(caller: Caller, instances: Vec<SocketAddr>) {
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
            std::io::Result::Ok(())
        };
        let _ = ask.await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
