//! Passwords: Django's PBKDF2 text, made and checked on threads of their own, so that logins cannot starve reads.
//!
//! The text is `pbkdf2_sha256$<iterations>$<salt>$<base64 of 32 bytes>`, as `django.contrib.auth.hashers` writes it.

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
    sync,
};

const ALGORITHM: &str = "pbkdf2_sha256";
const HASH_BYTES: usize = 32;
/// Django's salts: so many characters of this alphabet, 131 bits.
const SALT_LENGTH: usize = 22;
const SALT_ALPHABET: &[u8; 62] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
/// A stored text that asks for more work than this is not worked on.
const MAX_ITERATIONS: u32 = 10_000_000;
/// The first of the queue waits so long for a free thread, then it is shed.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(2);
/// Every other waits so much less for each before it: its chances are less, and those who came together are not turned
/// away, and do not return, together.
const QUEUE_STEP: Duration = Duration::from_millis(4);
/// So many requests wait at a time; the next is shed at once.
const QUEUE_LENGTH: usize = 256;
/// So many of them look something up at a time: the other connections of the database are for those who read.
const LOOKUPS: usize = 4;
/// Those who are turned away are told to come again after one to so many seconds.
const SPREAD_SECONDS: u64 = 5;
/// The scheduler gives these threads what requests leave over.
const NICENESS: i32 = 10;

/// What a check of a password says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// Not this password, or nothing to compare it with.
    Wrong,
    /// This password.
    Right,
    /// This password, stored with fewer iterations than are configured now.
    RightButOutdated,
}

/// How the hashing threads fare.
#[derive(Debug, Clone, Default)]
pub(crate) struct PasswordCounters {
    /// Passwords hashed or checked.
    pub(crate) done: Counter,
    /// Requests turned away because the queue was full or slow.
    pub(crate) shed: Counter,
}

/// The hashing threads.
#[derive(Debug)]
pub struct PasswordHasherPool {
    iterations: NonZeroU32,
    jobs: mpsc::Sender<Job>,
    free: Arc<Semaphore>,
    lookups: Semaphore,
    waiting: AtomicUsize,
    /// How the hashing threads fare.
    pub(crate) counters: PasswordCounters,
}

struct Job {
    work: Box<dyn FnOnce() + Send>,
    /// Held until the work is done, whoever stops waiting for it.
    permit: OwnedSemaphorePermit,
}

impl PasswordHasherPool {
    /// Starts `threads` threads; new texts get so many iterations.
    pub fn start(threads: usize, iterations: NonZeroU32) -> Self {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let inbox = Arc::new(Mutex::new(inbox));
        for number in 0..threads.max(1) {
            let inbox = Arc::clone(&inbox);
            let spawned = thread::Builder::new().name(format!("password-{number}")).spawn(move || work(&inbox));
            if let Err(error) = spawned {
                tracing::error!(%error, "a hashing thread could not be started");
            }
        }
        Self {
            iterations,
            jobs,
            free: Arc::new(Semaphore::new(threads.max(1))),
            lookups: Semaphore::new(LOOKUPS),
            waiting: AtomicUsize::new(0),
            counters: PasswordCounters::default(),
        }
    }

    /// Requests that wait for a thread now.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    /// A place in the queue, or at once the answer that there is none. Whoever has to look something up takes it before
    /// that: those who are turned away shall cost little.
    pub(crate) fn place(&self) -> Result<QueueSlot<'_>> {
        let before = self.waiting.fetch_add(1, Relaxed);
        let sooner = QUEUE_STEP.saturating_mul(u32::try_from(before).unwrap_or(u32::MAX));
        let timeout = QUEUE_TIMEOUT.saturating_sub(sooner);
        let place = QueueSlot { passwords: self, deadline: Instant::now() + timeout };
        if before < QUEUE_LENGTH { Ok(place) } else { Err(self.shed("the queue is full")) }
    }

    /// [`QueueSlot::hash`], with a place of its own.
    pub(crate) async fn hash(&self, password: SecretString) -> Result<String> {
        self.place()?.hash(password).await
    }

    /// [`QueueSlot::verify`], with a place of its own.
    pub async fn verify(&self, password: SecretString, stored: Option<String>) -> Result<Check> {
        self.place()?.verify(password, stored).await
    }

    fn shed(&self, why: &str) -> Error {
        // one after the other is told another second: those who are turned away together do not come back together
        let seconds = 1 + self.counters.shed.inc() % SPREAD_SECONDS;
        Error::overloaded(format!("password hashing: {why}"), seconds)
    }
}

/// One place in the queue.
#[derive(Debug)]
pub(crate) struct QueueSlot<'a> {
    passwords: &'a PasswordHasherPool,
    deadline: Instant,
}

impl QueueSlot<'_> {
    /// Looks up what is needed before the password, as one of few at a time.
    pub(crate) async fn lookup<T>(&self, lookup: impl Future<Output = T>) -> Result<T> {
        let turn = tokio::time::timeout_at(self.deadline, self.passwords.lookups.acquire());
        let Ok(Ok(_turn)) = turn.await else { return Err(self.passwords.shed("those before it are still looked up")) };
        Ok(lookup.await)
    }

    /// The text to store for a new password.
    pub(crate) async fn hash(self, password: SecretString) -> Result<String> {
        let iterations = self.passwords.iterations;
        self.run(move || hash(&password, iterations)).await?
    }

    /// Compares a password with a stored text. Whatever is stored, or nothing at all, it takes the time of one check
    /// with the configured iterations: nobody learns from it whether an account exists.
    pub(crate) async fn verify(self, password: SecretString, stored: Option<String>) -> Result<Check> {
        let iterations = self.passwords.iterations;
        self.run(move || verify(&password, stored.as_deref(), iterations)).await
    }

    async fn run<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let passwords = self.passwords;
        let free = tokio::time::timeout_at(self.deadline, Arc::clone(&passwords.free).acquire_owned());
        let Ok(Ok(permit)) = free.await else { return Err(passwords.shed("no thread became free in time")) };
        drop(self);
        let (answer, answered) = oneshot::channel();
        let work = Box::new(move || drop(answer.send(work())));
        passwords.jobs.send(Job { work, permit }).map_err(|_| Error::internal("the hashing threads are gone"))?;
        let outcome = answered.await.map_err(|_| Error::internal("a hashing thread panicked"))?;
        passwords.counters.done.inc();
        Ok(outcome)
    }
}

impl Drop for QueueSlot<'_> {
    fn drop(&mut self) {
        self.passwords.waiting.fetch_sub(1, Relaxed);
    }
}

fn work(inbox: &Mutex<mpsc::Receiver<Job>>) {
    if let Err(error) = rustix::process::nice(NICENESS) {
        tracing::warn!(%error, "the hashing threads keep the priority of all others");
    }
    loop {
        let job = sync::lock(inbox).recv();
        let Ok(Job { work, permit }) = job else { return };
        // a panic is that request's failure, told by its answer that never comes
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        drop(permit);
    }
}

fn hash(password: &SecretString, iterations: NonZeroU32) -> Result<String> {
    let salt = random_salt().map_err(|_| Error::internal("the system gives no random bytes"))?;
    let mut out = [0; HASH_BYTES];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, &salt, password.expose_secret().as_bytes(), &mut out);
    let salt = std::str::from_utf8(&salt).map_err(Error::internal)?;
    Ok(format!("{ALGORITHM}${iterations}${salt}${}", BASE64_STANDARD.encode(out)))
}

fn random_salt() -> Result<[u8; SALT_LENGTH], ring::error::Unspecified> {
    let random = SystemRandom::new();
    let mut salt = [0; SALT_LENGTH];
    for place in &mut salt {
        *place = loop {
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

/// A stored text, taken apart.
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
        spend(password, configured.get());
        return Check::Wrong;
    };
    let outcome =
        pbkdf2::verify(pbkdf2::PBKDF2_HMAC_SHA256, stored.iterations, stored.salt.as_bytes(), password, &stored.hash);
    spend(password, configured.get().saturating_sub(stored.iterations.get()));
    match outcome {
        Ok(()) if stored.iterations < configured => Check::RightButOutdated,
        Ok(()) => Check::Right,
        Err(_) => Check::Wrong,
    }
}

/// Does the work of so many iterations for nothing but the time it takes: by the very function that compares, for another
/// was seen to take 1.5 % longer.
fn spend(password: &[u8], iterations: u32) {
    if let Some(iterations) = NonZeroU32::new(iterations) {
        let nobodys = [0; HASH_BYTES];
        let verdict = pbkdf2::verify(pbkdf2::PBKDF2_HMAC_SHA256, iterations, &[b'-'; SALT_LENGTH], password, &nobodys);
        let _ = std::hint::black_box(verdict);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(text: &str) -> SecretString {
        text.to_owned().into()
    }

    const THOUSAND: NonZeroU32 = NonZeroU32::new(1000).unwrap();

    #[test]
    fn a_text_that_python_made_is_right() {
        // hashlib.pbkdf2_hmac('sha256', b'lètmein', b'seasalt', 10000), the salt and password of Django's own tests
        let stored = "pbkdf2_sha256$10000$seasalt$CWWFdHOWwPnki7HvkcqN9iA2T3KLW1cf2uZ5kvArtVY=";
        let ten_thousand = NonZeroU32::new(10_000).unwrap();
        assert_eq!(verify(&password("lètmein"), Some(stored), ten_thousand), Check::Right);
        assert_eq!(verify(&password("letmein"), Some(stored), ten_thousand), Check::Wrong);
        let more = NonZeroU32::new(10_001).unwrap();
        assert_eq!(verify(&password("lètmein"), Some(stored), more), Check::RightButOutdated);
    }

    #[test]
    fn what_was_hashed_is_recognised() {
        let text = hash(&password("s3cret"), THOUSAND).unwrap();
        assert!(text.starts_with("pbkdf2_sha256$1000$") && text.len() < 128, "{text}");
        assert_eq!(verify(&password("s3cret"), Some(&text), THOUSAND), Check::Right);
        assert_ne!(text, hash(&password("s3cret"), THOUSAND).unwrap(), "each hash has a salt of its own");
    }

    #[test]
    fn a_malformed_text_matches_nothing() {
        let good = hash(&password(""), THOUSAND).unwrap();
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
            assert_eq!(verify(&password(""), Some(text), THOUSAND), Check::Wrong, "{text}");
        }
    }

    #[test]
    fn a_full_queue_turns_away_and_a_place_given_back_is_free() {
        let passwords = PasswordHasherPool::start(1, THOUSAND);
        let mut places: Vec<_> = (0..QUEUE_LENGTH).map(|_| passwords.place().unwrap()).collect();
        let told: std::collections::HashSet<_> =
            (0..SPREAD_SECONDS).map(|_| passwords.place().unwrap_err().answer().header).collect();
        assert_eq!(told.len() as u64, SPREAD_SECONDS, "each is told another second: {told:?}");
        places.pop();
        assert!(passwords.place().is_ok());
    }

    #[tokio::test]
    async fn few_look_something_up_at_a_time_and_who_waits_too_long_is_turned_away() {
        let passwords = PasswordHasherPool::start(1, THOUSAND);
        let others: Vec<_> = (0..LOOKUPS).map(|_| passwords.place().unwrap()).collect();
        let mut last = passwords.place().unwrap();
        last.deadline = Instant::now();
        let stuck =
            futures_util::future::join_all(others.iter().map(|place| place.lookup(std::future::pending::<()>())));
        tokio::select! {
            biased; // these come first
            _ = stuck => unreachable!("these never end"),
            refused = last.lookup(async {}) => assert!(refused.is_err()),
        }
        assert!(last.lookup(async {}).await.is_ok(), "those who stopped waiting hold no turn");
    }

    proptest::proptest! {
        #[test]
        fn no_stored_text_makes_the_reader_panic(text in r"(pbkdf2_sha256)?\$?[0-9]{0,12}\$?.{0,40}") {
            let _ = ParsedHash::parse(&text);
        }
    }
}
