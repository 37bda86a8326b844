//! Faults of Redis that replace its entries.

use std::{
    collections::HashSet,
    sync::atomic::Ordering::SeqCst,
    time::{Duration, Instant},
};

use super::fault_injection::{Fault, FaultInjector};
use crate::harness::metric;

/// Time for a server to read a value that was replaced in Redis.
const DETECTION_TIMEOUT: Duration = Duration::from_secs(30);

impl FaultInjector<'_> {
    async fn connect_redis(&self) -> redis::aio::MultiplexedConnection {
        let client = redis::Client::open(self.database.redis().redis_url.as_str()).unwrap();
        client.get_multiplexed_async_connection().await.unwrap()
    }

    pub(super) async fn run_redis_command(&self, arguments: &[&str]) {
        let mut command = redis::cmd(arguments[0]);
        command.arg(&arguments[1..]).query_async::<redis::Value>(&mut self.connect_redis().await).await.unwrap();
    }

    /// Replaces each list that a server stores in Redis, under the same key, by garbage or by an older entry. The first
    /// time, waits until a server has read a replaced list.
    pub(super) async fn corrupt_redis(&mut self, fault: Fault) {
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
            count += metric(instance.process().admin_address, "testshop_redis_invalid_values_total").await;
        }
        count
    }
}
