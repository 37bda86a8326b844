//! Rate limits by GCRA, shared by all instances through Redis; while Redis is unavailable, each instance limits by
//! itself.
//!
//! The generic cell rate algorithm (ITU-T I.371, annex A) stores one time per key, the theoretical arrival time (TAT):
//! the time at which the bucket is empty again. All times are in milliseconds since 1970.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use prometheus_client::metrics::counter::Counter;
use redis::Script;
use secrecy::SecretString;

use crate::{
    digest::{hex, sha256},
    error::{Error, Result},
    mac::MacKeys,
    redis::RedisClient,
    sync::lock,
    timestamps::millis,
};

/// `burst` events at once, then one per `interval`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    name: &'static str,
    burst: u32,
    interval: Duration,
}

/// Login attempts per account.
pub(crate) const LOGIN_ACCOUNT: Limit = Limit { name: "login-account", burst: 5, interval: Duration::from_secs(36) };
/// Login attempts per address.
pub(crate) const LOGIN_ADDRESS: Limit = Limit { name: "login-address", burst: 20, interval: Duration::from_secs(3) };
/// Registrations per address.
pub(crate) const REGISTER_ADDRESS: Limit =
    Limit { name: "register-address", burst: 30, interval: Duration::from_secs(120) };

/// How long an address stays trusted for an account after a successful login from it.
pub(crate) const TRUSTED_ADDRESS_TTL: Duration = Duration::from_secs(30 * 24 * 3600);

/// Counts an event in all buckets or, when one of them is full, in none.
///
/// ARGV: interval in ms and burst of each key. Returns the ms to wait, 0 if the event is allowed. A stored TAT counts
/// for at most a full bucket: no value in Redis, however it got there, blocks a key forever.
const GCRA_SCRIPT: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local wait = 0
local tat = {}
for i, key in ipairs(KEYS) do
  local interval, burst = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
  local stored = tonumber(redis.call('GET', key)) or now
  tat[i] = math.min(math.max(stored, now), now + burst * interval) + interval
  wait = math.max(wait, tat[i] - burst * interval - now)
end
if wait > 0 then return wait end
for i, key in ipairs(KEYS) do
  redis.call('SET', key, tat[i], 'PX', tat[i] - now)
end
return 0
";

/// Limits the in-process map; beyond it, the entries that expire first are removed.
const MAX_KEYS: usize = 50_000;

pub(crate) struct RateLimiter {
    enabled: bool,
    redis: Option<Arc<RedisClient>>,
    script: Script,
    /// TAT by bucket.
    local_tats: Mutex<HashMap<String, u64>>,
    address_keys: MacKeys,
    /// Attempts rejected.
    pub(crate) rejected: Counter,
}

impl RateLimiter {
    /// Creates a limiter that allows everything unless `enabled`.
    ///
    /// The keys for [`RateLimiter::address_macs`] are derived from `secrets`.
    pub(crate) fn new(enabled: bool, redis: Option<Arc<RedisClient>>, secrets: &[SecretString]) -> Self {
        Self {
            enabled,
            redis,
            script: Script::new(GCRA_SCRIPT),
            local_tats: Mutex::default(),
            address_keys: MacKeys::derive(secrets, "trusted addresses"),
            rejected: Counter::default(),
        }
    }

    /// Counts an attempt in all buckets or, when one of them is full, in none and returns [`Error::Throttled`].
    pub(crate) async fn check(&self, buckets: &[(Limit, String)]) -> Result<()> {
        if !self.enabled {
            return Ok(());
        }
        let wait = match self.check_redis(buckets).await {
            Some(wait) if wait > 0 => wait,
            // the process counts as well and enforces its own count: a short outage or an empty Redis resets nothing
            _ => self.check_local(buckets, now()),
        };
        if wait == 0 {
            return Ok(());
        }
        self.rejected.inc();
        Err(Error::Throttled(Duration::from_millis(wait)))
    }

    /// Empties a bucket.
    pub(crate) async fn reset(&self, limit: Limit, subject: &str) {
        if !self.enabled {
            return;
        }
        let key = bucket_key(limit, subject);
        lock(&self.local_tats).remove(&key);
        if let Some(redis) = &self.redis {
            let key = redis.key(&key);
            let delete =
                |mut connection| async move { redis::cmd("DEL").arg(key).query_async::<i64>(&mut connection).await };
            redis.call(delete).await;
        }
    }

    /// Returns the subject that counts login attempts at an account from an address.
    ///
    /// A trusted address, one with a recent successful login, has a bucket of its own, so that attempts from elsewhere
    /// cannot lock out the owner.
    pub(crate) fn login_key(account: &str, address: &str, is_trusted: bool) -> String {
        if is_trusted { format!("{account} at {address}") } else { account.to_owned() }
    }

    /// Returns the MAC under which the database stores an address as trusted, `None` when nothing is limited.
    pub(crate) fn address_mac(&self, address: &str) -> Option<Vec<u8>> {
        self.enabled.then(|| self.address_keys.sign(&[address.as_bytes()]).to_vec())
    }

    /// Returns the MACs under which the database may have stored an address, also before a rotation of the secrets.
    pub(crate) fn address_macs(&self, address: &str) -> Vec<Vec<u8>> {
        let macs = if self.enabled { self.address_keys.sign_all(&[address.as_bytes()]) } else { Vec::new() };
        macs.into_iter().map(Vec::from).collect()
    }

    /// Returns the ms to wait, or `None` while Redis is unavailable.
    async fn check_redis(&self, buckets: &[(Limit, String)]) -> Option<u64> {
        let redis = self.redis.as_ref()?;
        let mut invocation = self.script.prepare_invoke();
        for (limit, subject) in buckets {
            invocation.key(redis.key(&bucket_key(*limit, subject)));
            invocation.arg(millis(limit.interval)).arg(limit.burst);
        }
        redis.call(|mut connection| async move { invocation.invoke_async::<u64>(&mut connection).await }).await
    }

    /// Returns the ms to wait.
    fn check_local(&self, buckets: &[(Limit, String)], now: u64) -> u64 {
        let mut wait = 0;
        let mut tats = Vec::with_capacity(buckets.len());
        let mut local_tats = lock(&self.local_tats);
        for (limit, subject) in buckets {
            let key = bucket_key(*limit, subject);
            let interval = millis(limit.interval);
            let tat = local_tats.get(&key).copied().unwrap_or(now).max(now) + interval;
            wait = wait.max(tat.saturating_sub(u64::from(limit.burst) * interval + now));
            tats.push((key, tat));
        }
        if wait == 0 {
            insert_bounded(&mut local_tats, tats, now);
        }
        wait
    }
}

/// Inserts entries, and removes expired ones and those that expire first while the map exceeds [`MAX_KEYS`].
fn insert_bounded(map: &mut HashMap<String, u64>, entries: impl IntoIterator<Item = (String, u64)>, now: u64) {
    map.extend(entries);
    if map.len() > MAX_KEYS {
        map.retain(|_, time| *time > now);
    }
    while map.len() > MAX_KEYS {
        let first = map.iter().min_by_key(|(_, time)| **time).map(|(key, _)| key.clone());
        map.remove(&first.unwrap_or_default());
    }
}

/// Returns the subject of an account.
pub(crate) fn account(id: i64) -> String {
    format!("account {id}")
}

/// Returns the subject of a username that no account has. It never equals that of an account.
pub(crate) fn unknown_account(lowercase_username: &str) -> String {
    format!("unknown account {lowercase_username}")
}

/// Hashes the subject, so that Redis does not contain accounts and addresses in plain text.
fn bucket_key(limit: Limit, subject: &str) -> String {
    format!("throttle:{}:{}", limit.name, hex(&sha256(&[subject.as_bytes()])[..16]))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000_000;

    #[test]
    fn burst_then_one_event_per_interval() {
        let limiter = RateLimiter::new(true, None, &[]);
        let ann = [(LOGIN_ACCOUNT, "ann".to_owned())];
        for _ in 0..5 {
            assert_eq!(limiter.check_local(&ann, NOW), 0);
        }
        assert_eq!(limiter.check_local(&ann, NOW), 36_000);
        assert_eq!(limiter.check_local(&ann, NOW + 35_000), 1000);
        assert_eq!(limiter.check_local(&ann, NOW + 36_000), 0);
        assert_eq!(limiter.check_local(&ann, NOW + 36_000), 36_000);
        assert_eq!(limiter.check_local(&[(LOGIN_ACCOUNT, "bob".to_owned())], NOW), 0, "accounts have separate buckets");
    }

    #[test]
    fn rejected_attempt_counts_in_no_bucket() {
        let limiter = RateLimiter::new(true, None, &[]);
        let both = |account: &str| [(LOGIN_ACCOUNT, account.to_owned()), (LOGIN_ADDRESS, "::/64".to_owned())];
        for _ in 0..50 {
            limiter.check_local(&both("ann"), NOW);
        }
        // ann's bucket rejected 45 attempts; the address has used 5 of its 20
        for account in 0..15 {
            assert_eq!(limiter.check_local(&both(&account.to_string()), NOW), 0, "{account}");
        }
        assert_eq!(limiter.check_local(&both("one more"), NOW), 3000);
    }

    #[test]
    fn number_of_local_keys_is_limited() {
        let limiter = RateLimiter::new(true, None, &[]);
        for subject in 0..MAX_KEYS + 100 {
            limiter.check_local(&[(LOGIN_ACCOUNT, subject.to_string())], NOW + subject as u64);
        }
        assert!(limiter.local_tats.lock().unwrap().len() <= MAX_KEYS);
    }

    #[test]
    fn address_macs_depend_on_address_and_secret() {
        let limiter = |secrets: &[&str]| {
            let secrets: Vec<_> = secrets.iter().map(|secret| (*secret).to_owned().into()).collect();
            RateLimiter::new(true, None, &secrets)
        };
        let (old, rotated) = (limiter(&["old"]), limiter(&["new", "old"]));
        let (address, other) = ("192.0.2.1", "192.0.2.2");
        let (stored, current) = (old.address_mac(address).unwrap(), rotated.address_mac(address).unwrap());
        assert_eq!(rotated.address_macs(address), [current.clone(), stored.clone()]);
        assert!(stored != current && !rotated.address_macs(other).contains(&stored));
    }
}
