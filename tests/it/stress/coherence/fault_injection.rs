//! Injected faults, one at a time: servers are killed or paused; PostgreSQL and Redis are killed, disconnected, slow or
//! send garbage; a standby replaces PostgreSQL; Redis loses its entries or contains old ones.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use super::{database::Database, instances::Instance, writers::WriterPool};
use crate::{
    harness::{LinkState, Pooler, Process, Proxy, connect},
    stress::Rng,
};

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
    /// PostgreSQL is killed, and everything moves to its synchronous standby.
    StandbyPromoted,
    PoolerKilled,
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

/// Injects faults, one at a time.
pub struct FaultInjector<'a> {
    pub(super) database: &'a mut Database,
    pub(super) instances: &'a mut [Instance],
    /// Between the first instance and PostgreSQL.
    pooler: Option<Pooler>,
    rng: Rng,
    /// The duration of faults other than a restart.
    pub(super) fault_duration: Duration,
    /// Old entries of Redis, by their key without the version.
    pub(super) dump: HashMap<String, Vec<u8>>,
    pub(super) writers: &'a WriterPool,
    /// How often each fault was injected.
    pub injected: HashMap<Fault, usize>,
    /// Replaced values that a server has read from Redis and recognised as invalid.
    pub detected: HashMap<Fault, f64>,
}

impl<'a> FaultInjector<'a> {
    pub fn new(
        database: &'a mut Database,
        instances: &'a mut [Instance],
        pooler: Option<Pooler>,
        writers: &'a WriterPool,
        fault_duration: Duration,
    ) -> Self {
        let (rng, dump) = (Rng(0x5eed), HashMap::new());
        let (injected, detected) = (HashMap::new(), HashMap::new());
        Self { database, instances, pooler, rng, fault_duration, dump, writers, injected, detected }
    }

    /// The URL of PostgreSQL for the owner of the server.
    pub fn database_url(&self) -> &str {
        &self.database.primary().database_url
    }

    /// The server that is never killed.
    pub fn survivor(&self) -> &Process {
        self.instances.last().unwrap().process()
    }

    /// Injects a fault and ends it.
    pub async fn inject(&mut self, fault: Fault) {
        *self.injected.entry(fault).or_default() += 1;
        let count = self.instances.len();
        let any = self.rng.index(count);
        match fault {
            Fault::ServerKilled => {
                // the last one survives
                let index = self.rng.index(count - 1);
                self.instances[index].kill_and_restart();
            }
            Fault::ServerPaused => {
                self.instances[any].process().signal(Signal::STOP);
                tokio::time::sleep(self.fault_duration).await;
                self.instances[any].process().signal(Signal::CONT);
            }
            Fault::RedisLink(state) => self.degrade_link(&self.instances[any].redis, state, false).await,
            Fault::DatabaseLink(state) => {
                let loses_bytes = self.rng.below(2) == 0;
                self.degrade_link(&self.instances[any].database, state, loses_bytes).await;
            }
            Fault::RedisKilled => {
                self.database.redis().kill_redis();
                tokio::time::sleep(self.fault_duration).await;
                self.database.redis().start_redis();
            }
            Fault::RedisFlushed => self.run_redis_command(&["FLUSHALL"]).await,
            Fault::RedisGarbage | Fault::RedisRollback => self.corrupt_redis(fault).await,
            Fault::DatabaseCrashed => {
                self.database.primary().crash_database();
                self.database.primary().start_database();
            }
            Fault::DatabaseKilled => {
                self.database.primary().kill_database();
                self.database.primary().start_database();
            }
            Fault::BackendsKilled => self.kill_backends().await,
            Fault::BackendsKilledRepeatedly => {
                let began = Instant::now();
                while began.elapsed() < self.fault_duration {
                    self.kill_backends().await;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            Fault::StandbyPromoted => self.promote_standby().await,
            Fault::PoolerKilled => {
                let pooler = self.pooler.as_mut().expect("a pooler");
                pooler.kill();
                tokio::time::sleep(self.fault_duration / 4).await;
                pooler.restart().await;
            }
        }
    }

    /// Replaces PostgreSQL by a synchronous standby. Instances move before its promotion: they use no server that accepts
    /// no writes. Programs and the pooler move after it.
    async fn promote_standby(&mut self) {
        self.database.start_synchronous_standby().await;
        tokio::time::sleep(self.fault_duration).await;
        self.database.kill_primary();
        for instance in self.instances.iter().filter(|instance| !instance.is_pooled) {
            instance.database.set_server(self.database.address().to_owned());
        }
        self.database.promote().await;
    }

    async fn kill_backends(&self) {
        let owner = connect(self.database_url()).await;
        let kill = "select pg_terminate_backend(pid) from pg_stat_activity
                     where backend_type = 'client backend' and pid <> pg_backend_pid()";
        owner.batch_execute(kill).await.unwrap();
    }

    /// Degrades a link. Bytes that it holds are delivered afterwards, or lost with their connections.
    async fn degrade_link(&self, proxy: &Proxy, state: LinkState, loses_bytes: bool) {
        proxy.set_state(state);
        tokio::time::sleep(self.fault_duration).await;
        if loses_bytes {
            proxy.close_connections();
        }
        proxy.set_state(LinkState::Open);
    }
}
