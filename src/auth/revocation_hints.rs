//! Revocations for the time in which the database is unavailable.
//!
//! A revocation reaches an instance with its next version read. If the database becomes unavailable before that, the
//! instance would serve stale lists to a revoked token. Therefore the instance that commits a revocation records a hint
//! in its memory and in Redis, and every instance looks for hints before it serves stale data.
//!
//! A hint only denies access, and only to what has been revoked for good: to replay one changes nothing. In Redis, its
//! key and its value are MACs of what it revokes, so that Redis reveals no ids, and write access to Redis does not
//! suffice to deny access to others. It suffices to delete hints.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use redis::aio::MultiplexedConnection;
use secrecy::SecretString;

use super::tokens::Claims;
use crate::{digest::hex, mac::MacKeys, redis::RedisClient, sync::lock};

/// How long a hint outlives `STALE_IF_ERROR`, whose value may differ between instances.
const HINT_MARGIN: Duration = Duration::from_secs(60);
/// Limits the hints in memory; beyond it, the oldest are removed.
const MAX_LOCAL_HINTS: usize = 100_000;

pub(crate) struct RevocationHints {
    /// How long a hint is needed; zero when no stale data is served.
    ttl: Duration,
    redis: Option<Arc<RedisClient>>,
    keys: MacKeys,
    local: Mutex<LocalHints>,
}

#[derive(Default)]
struct LocalHints {
    subjects: HashSet<String>,
    /// Expiry and subject in the order of recording, which is that of expiry.
    queue: VecDeque<(Instant, String)>,
}

impl RevocationHints {
    /// `stale_if_error` is how long stale data may be served. The keys are derived from `secrets`.
    pub(crate) fn new(stale_if_error: Duration, redis: Option<Arc<RedisClient>>, secrets: &[SecretString]) -> Self {
        let ttl = if stale_if_error.is_zero() { stale_if_error } else { stale_if_error + HINT_MARGIN };
        Self { ttl, redis, keys: MacKeys::derive(secrets, "revocation hints"), local: Mutex::default() }
    }

    /// Records that tokens or sessions with these ids are revoked. Call it after the commit, before the response.
    pub(crate) async fn record_ids(&self, ids: &[&str]) {
        self.record(ids.iter().copied().map(id_subject).collect()).await;
    }

    /// Records that the user's tokens up to this generation are revoked. Call it after the commit, before the response.
    pub(crate) async fn record_generation(&self, user: i64, generation: i32) {
        self.record(vec![generation_subject(user, generation)]).await;
    }

    async fn record(&self, subjects: Vec<String>) {
        if self.ttl.is_zero() {
            return;
        }
        lock(&self.local).insert(&subjects, Instant::now(), self.ttl);
        let Some(redis) = &self.redis else { return };
        let mut pipe = redis::pipe();
        for subject in &subjects {
            for (key, value) in self.redis_entries(redis, subject) {
                pipe.cmd("SET").arg(key).arg(&value[..]).arg("EX").arg(self.ttl.as_secs()).ignore();
            }
        }
        redis.call(|mut connection| async move { pipe.query_async::<()>(&mut connection).await }).await;
    }

    /// Returns whether a hint revokes the token. An unavailable Redis has no hints.
    pub(crate) async fn is_revoked(&self, user: i64, claims: &Claims) -> bool {
        let ids = [Some(claims.jti.as_str()), claims.sid.as_deref()].into_iter().flatten().map(id_subject);
        let subjects: Vec<String> = ids.chain([generation_subject(user, claims.generation)]).collect();
        if lock(&self.local).contains_any(&subjects, Instant::now()) {
            return true;
        }
        let Some(redis) = &self.redis else { return false };
        let (keys, subjects): (Vec<String>, Vec<&String>) = subjects
            .iter()
            .flat_map(|subject| self.redis_entries(redis, subject).into_iter().map(move |(key, _)| (key, subject)))
            .unzip();
        let get = |mut connection: MultiplexedConnection| async move {
            redis::cmd("MGET").arg(keys).query_async::<Vec<Option<Vec<u8>>>>(&mut connection).await
        };
        let values = redis.call(get).await.unwrap_or_default();
        values.iter().zip(subjects).any(|(value, subject)| {
            value.as_ref().is_some_and(|value| self.keys.verify(&[b"value ", subject.as_bytes()], value))
        })
    }

    /// Returns key and value of a hint under each secret, so that instances need to share only one of them.
    fn redis_entries(&self, redis: &RedisClient, subject: &str) -> Vec<(String, [u8; 32])> {
        let names = self.keys.sign_all(&[b"key ", subject.as_bytes()]).into_iter();
        let values = self.keys.sign_all(&[b"value ", subject.as_bytes()]);
        names.map(|name| redis.key(&format!("revoked:{}", hex(&name)))).zip(values).collect()
    }
}

impl LocalHints {
    fn insert(&mut self, subjects: &[String], now: Instant, ttl: Duration) {
        for subject in subjects {
            self.remove_expired(now);
            if self.queue.len() >= MAX_LOCAL_HINTS {
                self.remove_oldest();
            }
            if self.subjects.insert(subject.clone()) {
                self.queue.push_back((now + ttl, subject.clone()));
            }
        }
    }

    fn contains_any(&mut self, subjects: &[String], now: Instant) -> bool {
        self.remove_expired(now);
        subjects.iter().any(|subject| self.subjects.contains(subject))
    }

    fn remove_expired(&mut self, now: Instant) {
        while self.queue.front().is_some_and(|(expiry, _)| *expiry <= now) {
            self.remove_oldest();
        }
    }

    fn remove_oldest(&mut self) {
        if let Some((_, subject)) = self.queue.pop_front() {
            self.subjects.remove(&subject);
        }
    }
}

/// A token or a session.
fn id_subject(id: &str) -> String {
    format!("id {id}")
}

fn generation_subject(user: i64, generation: i32) -> String {
    format!("user {user} generation {generation}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_hints_expire_and_are_limited_in_number() {
        let (mut hints, now, ttl) = (LocalHints::default(), Instant::now(), Duration::from_secs(90));
        let (first, second) = ([id_subject("a")], [id_subject("b")]);
        hints.insert(&first, now, ttl);
        hints.insert(&second, now + Duration::from_secs(1), ttl);
        assert!(hints.contains_any(&first, now + Duration::from_secs(89)));
        assert!(!hints.contains_any(&first, now + ttl) && hints.contains_any(&second, now + ttl));
        let many: Vec<String> = (0..MAX_LOCAL_HINTS).map(|number| number.to_string()).collect();
        hints.insert(&many, now + ttl, ttl);
        assert!(!hints.contains_any(&second, now + ttl) && hints.contains_any(&many[..1], now + ttl));
        assert_eq!((hints.subjects.len(), hints.queue.len()), (MAX_LOCAL_HINTS, MAX_LOCAL_HINTS));
    }
}
