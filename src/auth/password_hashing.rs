//! Hashes and verifies passwords on dedicated threads, so that logins cannot starve other requests.
//!
//! The stored form is that of `django.contrib.auth.hashers`: `pbkdf2_sha256$<iterations>$<salt>$<base64 of 32 bytes>`.

use std::{
    num::NonZeroU32,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use prometheus_client::metrics::counter::Counter;
use ring::{
    pbkdf2,
    rand::{SecureRandom, SystemRandom},
};
use secrecy::{ExposeSecret, SecretString};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::Instant,
};

use crate::{
    error::{Error, Result},
    random::random_u64,
    sync,
};

const ALGORITHM: &str = "pbkdf2_sha256";
const HASH_BYTES: usize = 32;
/// Length of Django's salts in characters of [`SALT_ALPHABET`]: 131 bits.
const SALT_LENGTH: usize = 22;
const SALT_ALPHABET: &[u8; 62] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
/// A stored hash with more iterations never matches, so it cannot occupy a thread.
const MAX_ITERATIONS: u32 = 10_000_000;
/// How long the first request of the queue waits for a free thread before it is rejected.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(2);
/// Each position further back shortens the timeout by this much. Requests at the back have a lower chance of being
/// served in time, and requests that arrived together are not rejected, and do not retry, together.
const TIMEOUT_STEP: Duration = Duration::from_millis(4);
/// Requests beyond this number are rejected immediately.
const QUEUE_LENGTH: usize = 256;
/// Limits the database connections that queued requests use, so that reads find free ones.
const MAX_CONCURRENT_LOOKUPS: usize = 4;
/// `Retry-After` of a rejected request is a random number of seconds from 1 to this, so that clients rejected together
/// do not retry together.
const MAX_RETRY_AFTER_SECONDS: u64 = 5;
/// Nice value of the hashing threads: the scheduler prefers the threads that serve requests.
const NICENESS: i32 = 10;

/// The result of comparing a password with a stored hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// The password differs, or there is no valid stored hash.
    Mismatch,
    Match,
    /// The password matches, but its hash has fewer iterations than are configured now.
    MatchNeedsRehash,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct PasswordCounters {
    /// Passwords hashed or verified.
    pub(crate) hashes: Counter,
    /// Requests rejected because the queue was full or too slow.
    pub(crate) rejected: Counter,
}

/// A pool of hashing threads with a bounded queue.
#[derive(Debug)]
pub struct PasswordHasherPool {
    iterations: NonZeroU32,
    jobs: mpsc::Sender<Job>,
    idle_threads: Arc<Semaphore>,
    lookups: Semaphore,
    queue_length: AtomicUsize,
    pub(crate) counters: PasswordCounters,
}

struct Job {
    work: Box<dyn FnOnce() + Send>,
    /// Held until the work is done, even if the request is cancelled.
    permit: OwnedSemaphorePermit,
}

impl PasswordHasherPool {
    /// Starts `threads` threads, at least one; new hashes get `iterations` iterations.
    pub fn start(threads: usize, iterations: NonZeroU32) -> Self {
        let (jobs, receiver) = mpsc::channel::<Job>();
        let receiver = Arc::new(Mutex::new(receiver));
        for number in 0..threads.max(1) {
            let receiver = Arc::clone(&receiver);
            let thread = thread::Builder::new().name(format!("password-{number}"));
            if let Err(error) = thread.spawn(move || worker_loop(&receiver)) {
                tracing::error!(%error, "starting a password hashing thread failed");
            }
        }
        Self {
            iterations,
            jobs,
            idle_threads: Arc::new(Semaphore::new(threads.max(1))),
            lookups: Semaphore::new(MAX_CONCURRENT_LOOKUPS),
            queue_length: AtomicUsize::new(0),
            counters: PasswordCounters::default(),
        }
    }

    /// Returns the number of requests that are waiting for a thread.
    pub(crate) fn queue_length(&self) -> usize {
        self.queue_length.load(Relaxed)
    }

    /// Takes a slot in the queue, or rejects the request immediately if the queue is full.
    ///
    /// A request that needs a database lookup takes its slot first, so that rejecting it costs no statement.
    pub(crate) fn enqueue(&self) -> Result<QueueSlot<'_>> {
        let position = self.queue_length.fetch_add(1, Relaxed);
        let reduction = TIMEOUT_STEP.saturating_mul(u32::try_from(position).unwrap_or(u32::MAX));
        let slot = QueueSlot { pool: self, deadline: Instant::now() + QUEUE_TIMEOUT.saturating_sub(reduction) };
        if position < QUEUE_LENGTH { Ok(slot) } else { Err(self.reject("the queue is full")) }
    }

    /// Takes a slot and calls [`QueueSlot::hash`].
    pub(crate) async fn hash(&self, password: SecretString) -> Result<String> {
        self.enqueue()?.hash(password).await
    }

    /// Takes a slot and calls [`QueueSlot::verify`].
    pub async fn verify(&self, password: SecretString, stored: Option<String>) -> Result<Check> {
        self.enqueue()?.verify(password, stored).await
    }

    fn reject(&self, reason: &str) -> Error {
        self.counters.rejected.inc();
        let seconds = 1 + random_u64() % MAX_RETRY_AFTER_SECONDS;
        Error::overloaded(format!("password hashing: {reason}"), seconds)
    }
}

/// A slot in the queue for a hashing thread, released when it is dropped.
#[derive(Debug)]
pub(crate) struct QueueSlot<'a> {
    pool: &'a PasswordHasherPool,
    deadline: Instant,
}

impl QueueSlot<'_> {
    /// Runs a lookup that precedes the hashing, at most [`MAX_CONCURRENT_LOOKUPS`] at a time.
    pub(crate) async fn run_lookup<T>(&self, lookup: impl Future<Output = T>) -> Result<T> {
        let permit = tokio::time::timeout_at(self.deadline, self.pool.lookups.acquire());
        let Ok(Ok(_permit)) = permit.await else { return Err(self.pool.reject("no lookup permit in time")) };
        Ok(lookup.await)
    }

    /// Returns the stored form of a new password.
    pub(crate) async fn hash(self, password: SecretString) -> Result<String> {
        let iterations = self.pool.iterations;
        self.run(move || hash(&password, iterations)).await?
    }

    /// Compares a password with a stored hash.
    ///
    /// A missing, malformed or weaker hash takes as long as one with the configured iterations, so that the response
    /// time does not reveal whether an account exists.
    pub(crate) async fn verify(self, password: SecretString, stored: Option<String>) -> Result<Check> {
        let iterations = self.pool.iterations;
        self.run(move || verify(&password, stored.as_deref(), iterations)).await
    }

    async fn run<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let pool = self.pool;
        let permit = tokio::time::timeout_at(self.deadline, Arc::clone(&pool.idle_threads).acquire_owned());
        let Ok(Ok(permit)) = permit.await else { return Err(pool.reject("no idle thread in time")) };
        drop(self);
        let (sender, receiver) = oneshot::channel();
        let work = Box::new(move || drop(sender.send(work())));
        pool.jobs.send(Job { work, permit }).map_err(|_| Error::internal("the hashing threads have ended"))?;
        let result = receiver.await.map_err(|_| Error::internal("a hashing thread panicked"))?;
        pool.counters.hashes.inc();
        Ok(result)
    }
}

impl Drop for QueueSlot<'_> {
    fn drop(&mut self) {
        self.pool.queue_length.fetch_sub(1, Relaxed);
    }
}

fn worker_loop(jobs: &Mutex<mpsc::Receiver<Job>>) {
    if let Err(error) = rustix::process::nice(NICENESS) {
        tracing::warn!(%error, "lowering the priority of a password hashing thread failed");
    }
    loop {
        let job = sync::lock(jobs).recv();
        let Ok(Job { work, permit }) = job else { return };
        // a panic drops the sender of the result: the request fails, the thread goes on
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        drop(permit);
    }
}

fn hash(password: &SecretString, iterations: NonZeroU32) -> Result<String> {
    let salt = random_salt().map_err(|_| Error::internal("no random bytes from the operating system"))?;
    let mut out = [0; HASH_BYTES];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, &salt, password.expose_secret().as_bytes(), &mut out);
    let salt = std::str::from_utf8(&salt).map_err(Error::internal)?;
    Ok(format!("{ALGORITHM}${iterations}${salt}${}", BASE64_STANDARD.encode(out)))
}

fn random_salt() -> Result<[u8; SALT_LENGTH], ring::error::Unspecified> {
    let random = SystemRandom::new();
    let mut salt = [0; SALT_LENGTH];
    for letter in &mut salt {
        *letter = loop {
            let mut byte = [0];
            random.fill(&mut byte)?;
            // 248 is the largest multiple of 62 in a byte: each letter is equally likely
            if byte[0] < 248 {
                break SALT_ALPHABET[usize::from(byte[0] % 62)];
            }
        };
    }
    Ok(salt)
}

struct ParsedHash<'a> {
    iterations: NonZeroU32,
    salt: &'a str,
    hash: [u8; HASH_BYTES],
}

impl<'a> ParsedHash<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split('$');
        let (ALGORITHM, iterations, salt, hash, None) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?, parts.next())
        else {
            return None;
        };
        let iterations =
            iterations.parse().ok().filter(|iterations: &NonZeroU32| iterations.get() <= MAX_ITERATIONS)?;
        let hash = BASE64_STANDARD.decode(hash).ok()?.try_into().ok()?;
        (!salt.is_empty()).then_some(Self { iterations, salt, hash })
    }
}

fn verify(password: &SecretString, stored: Option<&str>, configured: NonZeroU32) -> Check {
    let password = password.expose_secret().as_bytes();
    let Some(stored) = stored.and_then(ParsedHash::parse) else {
        equalize_time(password, configured.get());
        return Check::Mismatch;
    };
    let outcome =
        pbkdf2::verify(pbkdf2::PBKDF2_HMAC_SHA256, stored.iterations, stored.salt.as_bytes(), password, &stored.hash);
    equalize_time(password, configured.get().saturating_sub(stored.iterations.get()));
    match outcome {
        Ok(()) if stored.iterations < configured => Check::MatchNeedsRehash,
        Ok(()) => Check::Match,
        Err(_) => Check::Mismatch,
    }
}

/// Runs this many iterations and discards the result, to equalize response times.
///
/// It calls the function that does the real comparison: another one was measured to take 1.5 % longer.
fn equalize_time(password: &[u8], iterations: u32) {
    if let Some(iterations) = NonZeroU32::new(iterations) {
        let (salt, hash) = ([b'-'; SALT_LENGTH], [0; HASH_BYTES]);
        let outcome = pbkdf2::verify(pbkdf2::PBKDF2_HMAC_SHA256, iterations, &salt, password, &hash);
        let _ = std::hint::black_box(outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(text: &str) -> SecretString {
        text.to_owned().into()
    }

    const TEST_ITERATIONS: NonZeroU32 = NonZeroU32::new(1000).unwrap();

    #[test]
    fn hash_of_python_hashlib_matches() {
        // hashlib.pbkdf2_hmac('sha256', b'lètmein', b'seasalt', 10000), the salt and password of Django's own tests
        let stored = "pbkdf2_sha256$10000$seasalt$CWWFdHOWwPnki7HvkcqN9iA2T3KLW1cf2uZ5kvArtVY=";
        let ten_thousand = NonZeroU32::new(10_000).unwrap();
        assert_eq!(verify(&password("lètmein"), Some(stored), ten_thousand), Check::Match);
        assert_eq!(verify(&password("letmein"), Some(stored), ten_thousand), Check::Mismatch);
        let more = NonZeroU32::new(10_001).unwrap();
        assert_eq!(verify(&password("lètmein"), Some(stored), more), Check::MatchNeedsRehash);
    }

    #[test]
    fn own_hash_matches_and_salts_differ() {
        let text = hash(&password("s3cret"), TEST_ITERATIONS).unwrap();
        assert!(text.starts_with("pbkdf2_sha256$1000$") && text.len() < 128, "{text}");
        assert_eq!(verify(&password("s3cret"), Some(&text), TEST_ITERATIONS), Check::Match);
        assert_ne!(text, hash(&password("s3cret"), TEST_ITERATIONS).unwrap(), "the salts differ");
    }

    #[test]
    fn malformed_hash_is_a_mismatch() {
        let good = hash(&password(""), TEST_ITERATIONS).unwrap();
        for text in [
            "",
            "$",
            "$$$",
            "pbkdf2_sha256$0$salt$AAAA",
            "pbkdf2_sha256$10000001$salt$CWWFdHOWwPnki7HvkcqN9iA2T3KLW1cf2uZ5kvArtVY=",
            "pbkdf2_sha256$-1$salt$x",
            "pbkdf2_sha256$1$salt$",
            "md5$1$salt$x",
            "!unusable",
            &good[..good.len() - 4],
            &format!("{good}$"),
            &good.replacen("pbkdf2_sha256", "pbkdf2_sha1", 1),
        ] {
            assert_eq!(verify(&password(""), Some(text), TEST_ITERATIONS), Check::Mismatch, "{text}");
        }
    }

    #[test]
    fn full_queue_rejects_until_a_slot_is_released() {
        let pool = PasswordHasherPool::start(1, TEST_ITERATIONS);
        let mut slots: Vec<_> = (0..QUEUE_LENGTH).map(|_| pool.enqueue().unwrap()).collect();
        let headers: std::collections::HashSet<_> =
            (0..100).map(|_| pool.enqueue().unwrap_err().response().header).collect();
        // the chance that one of five values is missing is below 1e-8
        assert_eq!(headers.len() as u64, MAX_RETRY_AFTER_SECONDS, "Retry-After differs: {headers:?}");
        slots.pop();
        assert!(pool.enqueue().is_ok());
    }

    #[tokio::test]
    async fn lookups_are_limited_and_wait_until_the_deadline_only() {
        let pool = PasswordHasherPool::start(1, TEST_ITERATIONS);
        let others: Vec<_> = (0..MAX_CONCURRENT_LOOKUPS).map(|_| pool.enqueue().unwrap()).collect();
        let mut last = pool.enqueue().unwrap();
        last.deadline = Instant::now();
        let pending =
            futures_util::future::join_all(others.iter().map(|slot| slot.run_lookup(std::future::pending::<()>())));
        tokio::select! {
            biased; // `pending` is polled first and takes all permits
            _ = pending => unreachable!("these lookups never end"),
            outcome = last.run_lookup(async {}) => assert!(outcome.is_err()),
        }
        assert!(last.run_lookup(async {}).await.is_ok(), "cancelled lookups release their permits");
    }

    proptest::proptest! {
        #[test]
        fn parsing_a_hash_does_not_panic(text in r"(pbkdf2_sha256)?\$?[0-9]{0,12}\$?.{0,40}") {
            let _ = ParsedHash::parse(&text);
        }
    }
}
