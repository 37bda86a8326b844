//! Hashes and verifies passwords on dedicated threads, so that logins cannot starve other requests.

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

use prometheus_client::metrics::counter::Counter;
use secrecy::SecretString;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::Instant,
};

use super::stored_password;
pub(crate) use super::stored_password::measure_iterations;
pub use super::stored_password::{Check, StoredPassword};
use crate::{
    error::{Error, Result},
    random::random_u64,
    sync,
};

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

#[derive(Debug, Clone, Default)]
pub(crate) struct PasswordCounters {
    /// Passwords hashed or verified.
    pub(crate) hashes: Counter,
    /// PBKDF2 iterations that hashing, verification and equal response times took.
    pub(crate) iterations: Counter,
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
    pub async fn verify(&self, password: SecretString, stored: StoredPassword) -> Result<Check> {
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
        let (iterations, counter) = (self.pool.iterations, self.pool.counters.iterations.clone());
        self.run(move || stored_password::hash(&password, iterations, &counter)).await?
    }

    /// Compares a password with a stored one.
    ///
    /// Every comparison runs the same number of iterations: that of the most expensive stored password or the
    /// configured one, whichever is larger. The response time does not reveal whether an account exists.
    pub(crate) async fn verify(self, password: SecretString, stored: StoredPassword) -> Result<Check> {
        let (iterations, counter) = (self.pool.iterations, self.pool.counters.iterations.clone());
        self.run(move || stored_password::verify(&password, &stored, iterations, &counter)).await
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

#[cfg(test)]
mod tests {
    use super::*;

    const TEST_ITERATIONS: NonZeroU32 = NonZeroU32::new(1000).unwrap();

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
}
