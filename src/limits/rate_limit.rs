//! Throttles: GCRA, in Redis for all instances together, in the process when Redis is away.
//!
//! The generic cell rate algorithm (ITU-T I.371, annex A) keeps one time per key: when the bucket would be empty again.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use prometheus_client::metrics::counter::Counter;
use redis::Script;

use crate::{
    digest::{hex, sha256},
    error::{Error, Result},
    redis::RedisClient,
    sync::lock,
    timestamps::millis,
};

/// How often something may happen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    name: &'static str,
    /// At once.
    burst: u32,
    /// Then one in this time.
    interval: Duration,
}

/// Attempts to log in to one account.
pub(crate) const LOGIN_ACCOUNT: Limit = Limit { name: "login-account", burst: 5, interval: Duration::from_secs(36) };
/// Attempts to log in from one address.
pub(crate) const LOGIN_ADDRESS: Limit = Limit { name: "login-address", burst: 20, interval: Duration::from_secs(3) };
/// Registrations from one address.
pub(crate) const REGISTER_ADDRESS: Limit =
    Limit { name: "register-address", burst: 30, interval: Duration::from_secs(120) };

/// So long an address from which an account was entered counts as its owner's.
const KNOWN_FOR: Duration = Duration::from_secs(30 * 24 * 3600);

/// All buckets or none: one full bucket refuses, and then nothing is taken from the others.
/// ARGV: for each key its interval and burst, in ms and events. Gives the ms to wait, 0 when it is allowed.
/// What is stored never counts for more than a full bucket: nobody is kept out for ever by a number that somebody put there.
const TAKE: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local wait = 0
local full = {}
for i, key in ipairs(KEYS) do
  local interval, burst = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
  local stored = tonumber(redis.call('GET', key)) or now
  full[i] = math.min(math.max(stored, now), now + burst * interval) + interval
  wait = math.max(wait, full[i] - burst * interval - now)
end
if wait > 0 then return wait end
for i, key in ipairs(KEYS) do
  redis.call('SET', key, full[i], 'PX', full[i] - now)
end
return 0
";

/// So many keys of a kind are remembered in the process; then those whose time comes soonest are forgotten.
const MAX_KEYS: usize = 50_000;

/// The throttles of all instances, or of this one while Redis is away.
pub(crate) struct RateLimiter {
    enabled: bool,
    shared: Option<Arc<RedisClient>>,
    script: Script,
    /// By bucket, the time at which it is empty, in ms since 1970.
    local: Mutex<HashMap<String, u64>>,
    /// By account and address, the time until which they are known together. Not among the buckets: it would be these that
    /// are forgotten first.
    known: Mutex<HashMap<String, u64>>,
    /// Attempts refused.
    pub(crate) refused: Counter,
}

impl RateLimiter {
    /// Throttles that are shared where there is something to share them with.
    pub(crate) fn new(enabled: bool, shared: Option<Arc<RedisClient>>) -> Self {
        Self {
            enabled,
            shared,
            script: Script::new(TAKE),
            local: Mutex::default(),
            known: Mutex::default(),
            refused: Counter::default(),
        }
    }

    /// Takes one attempt from each bucket, or none and says when to come again.
    pub(crate) async fn take(&self, buckets: &[(Limit, String)]) -> Result<()> {
        if !self.enabled {
            return Ok(());
        }
        let wait = match self.take_shared(buckets).await {
            Some(wait) if wait > 0 => wait,
            // noted here too, and held to: an outage of a moment, or a Redis that forgot, is no fresh start
            _ => self.take_local(buckets, now()),
        };
        if wait == 0 {
            return Ok(());
        }
        self.refused.inc();
        Err(Error::Throttled(Duration::from_millis(wait)))
    }

    /// Empties a bucket: its attempts were the rightful owner's.
    pub(crate) async fn forget(&self, limit: Limit, subject: &str) {
        if !self.enabled {
            return;
        }
        let key = bucket(limit, subject);
        lock(&self.local).remove(&key);
        if let Some(shared) = &self.shared {
            let key = shared.key(&key);
            shared
                .call(|mut connection| async move {
                    redis::cmd("DEL").arg(key).query_async::<i64>(&mut connection).await
                })
                .await;
        }
    }

    /// The subject under which attempts at an account count. At an address from which it was entered before they count by
    /// themselves: whoever guesses from elsewhere does not keep its owner out.
    pub(crate) async fn account_at(&self, account: &str, address: &str) -> String {
        let together = together(account, address);
        if self.enabled && self.knows(&together).await { together } else { account.to_owned() }
    }

    async fn knows(&self, together: &str) -> bool {
        let key = known(together);
        if lock(&self.known).get(&key).is_some_and(|until| *until > now()) {
            return true;
        }
        let Some(shared) = &self.shared else { return false };
        let key = shared.key(&key);
        let exists = |mut connection| async move { redis::cmd("EXISTS").arg(key).query_async(&mut connection).await };
        shared.call(exists).await.unwrap_or(false)
    }

    /// Notes that the owner of an account entered it from there, and that all attempts so far were theirs.
    pub(crate) async fn entered(&self, account: &str, address: &str, subject: &str) {
        if !self.enabled {
            return;
        }
        self.forget(LOGIN_ACCOUNT, subject).await;
        let key = known(&together(account, address));
        keep(&mut lock(&self.known), [(key.clone(), now() + millis(KNOWN_FOR))], now());
        if let Some(shared) = &self.shared {
            let key = shared.key(&key);
            let note = |mut connection| async move {
                redis::cmd("SET")
                    .arg(key)
                    .arg(1)
                    .arg("EX")
                    .arg(KNOWN_FOR.as_secs())
                    .query_async::<()>(&mut connection)
                    .await
            };
            shared.call(note).await;
        }
    }

    async fn take_shared(&self, buckets: &[(Limit, String)]) -> Option<u64> {
        let shared = self.shared.as_ref()?;
        let mut invocation = self.script.prepare_invoke();
        for (limit, subject) in buckets {
            invocation.key(shared.key(&bucket(*limit, subject)));
            invocation.arg(millis(limit.interval)).arg(limit.burst);
        }
        shared.call(|mut connection| async move { invocation.invoke_async::<u64>(&mut connection).await }).await
    }

    fn take_local(&self, buckets: &[(Limit, String)], now: u64) -> u64 {
        let mut wait = 0;
        let mut full = Vec::with_capacity(buckets.len());
        let mut local = lock(&self.local);
        for (limit, subject) in buckets {
            let key = bucket(*limit, subject);
            let interval = millis(limit.interval);
            let filled = local.get(&key).copied().unwrap_or(now).max(now) + interval;
            wait = wait.max(filled.saturating_sub(u64::from(limit.burst) * interval + now));
            full.push((key, filled));
        }
        if wait == 0 {
            keep(&mut local, full, now);
        }
        wait
    }
}

/// Remembers times, and forgets those that have passed where they grow too many.
fn keep(kept: &mut HashMap<String, u64>, times: impl IntoIterator<Item = (String, u64)>, now: u64) {
    kept.extend(times);
    if kept.len() > MAX_KEYS {
        kept.retain(|_, time| *time > now);
    }
    while kept.len() > MAX_KEYS {
        let soonest = kept.iter().min_by_key(|(_, time)| **time).map(|(key, _)| key.clone());
        kept.remove(&soonest.unwrap_or_default());
    }
}

/// The subject of a throttle by account.
pub(crate) fn account(id: i64) -> String {
    format!("account {id}")
}

/// The subject of attempts at a name that nobody has, in the case in which names are compared: no account's, whatever the name.
pub(crate) fn nobody(folded: &str) -> String {
    format!("nobody {folded}")
}

/// The subject of a throttle by address: an IPv6 customer has a /64, not an address (RFC 6177).
pub(crate) fn address(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let network = Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64));
            format!("{network}/64")
        }
    }
}

/// The name of a bucket. Subjects are hashed: Redis need not know who logs in, or from where.
fn bucket(limit: Limit, subject: &str) -> String {
    hashed(&format!("throttle:{}:", limit.name), subject)
}

/// The subject of an account at an address.
fn together(account: &str, address: &str) -> String {
    format!("{account} at {address}")
}

/// The name of what says that an account was entered from an address.
fn known(together: &str) -> String {
    hashed("known:", together)
}

fn hashed(prefix: &str, subject: &str) -> String {
    format!("{prefix}{}", hex(&sha256(&[subject.as_bytes()])[..16]))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000_000;

    #[test]
    fn a_burst_then_one_in_each_interval() {
        let throttle = RateLimiter::new(true, None);
        let ann = [(LOGIN_ACCOUNT, "ann".to_owned())];
        for _ in 0..5 {
            assert_eq!(throttle.take_local(&ann, NOW), 0);
        }
        assert_eq!(throttle.take_local(&ann, NOW), 36_000);
        assert_eq!(throttle.take_local(&ann, NOW + 35_000), 1000);
        assert_eq!(throttle.take_local(&ann, NOW + 36_000), 0);
        assert_eq!(throttle.take_local(&ann, NOW + 36_000), 36_000);
        assert_eq!(throttle.take_local(&[(LOGIN_ACCOUNT, "bob".to_owned())], NOW), 0, "each has a bucket of its own");
    }

    #[test]
    fn a_refusal_takes_nothing_from_the_other_bucket() {
        let throttle = RateLimiter::new(true, None);
        let both = |account: &str| [(LOGIN_ACCOUNT, account.to_owned()), (LOGIN_ADDRESS, "::/64".to_owned())];
        for _ in 0..50 {
            throttle.take_local(&both("ann"), NOW);
        }
        // ann's bucket refused 45 times; the address has spent 5 of its 20
        for account in 0..15 {
            assert_eq!(throttle.take_local(&both(&account.to_string()), NOW), 0, "{account}");
        }
        assert_eq!(throttle.take_local(&both("one more"), NOW), 3000);
    }

    #[test]
    fn an_ipv6_customer_is_a_network() {
        let of = |text: &str| address(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), of("2001:db8:1:2::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("192.0.2.1"), "192.0.2.1");
    }

    #[test]
    fn memory_is_bounded() {
        let throttle = RateLimiter::new(true, None);
        for subject in 0..MAX_KEYS + 100 {
            throttle.take_local(&[(LOGIN_ACCOUNT, subject.to_string())], NOW + subject as u64);
        }
        assert!(throttle.local.lock().unwrap().len() <= MAX_KEYS);
    }

    #[tokio::test]
    async fn known_addresses_push_out_no_throttle() {
        let throttle = RateLimiter::new(true, None);
        let guess = [(LOGIN_ACCOUNT, "ann".to_owned())];
        while throttle.take(&guess).await.is_ok() {}
        for account in 0..MAX_KEYS {
            throttle.entered(&account.to_string(), "192.0.2.1", &account.to_string()).await;
        }
        assert!(throttle.take(&guess).await.is_err());
        assert_eq!(throttle.account_at("1", "192.0.2.1").await, "1 at 192.0.2.1");
        assert_eq!(throttle.account_at("1", "192.0.2.2").await, "1");
    }
}
