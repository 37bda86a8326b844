//! Refusals that come by the hundred are told slowly.
//!
//! Whoever does not listen to `Retry-After` asks again as soon as it is answered. Answered at once, a few hundred such
//! connections ask some twenty thousand times a second, and those who read wait for them; held for a second or two, they
//! ask a few hundred times.

use std::{
    future::Future,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use prometheus_client::metrics::counter::Counter;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep_until},
};

use crate::error::{Error, Result};

/// So many in a second are told at once: people, and programs with a few faults.
const AT_ONCE: u64 = 32;
/// The others at the earliest so long after they were asked.
const LEAST: Duration = Duration::from_secs(1);
/// And up to so many milliseconds later: those who are refused together do not return together.
const SPREAD: u64 = 1000;
/// Prime to [`SPREAD`] and near its golden section, so that each lands far from those just before it.
const STRIDE: u64 = 619;
/// So many are held at a time; more are told at once.
const HELD: usize = 8192;

/// The refusals of an instance.
#[derive(Debug)]
pub(crate) struct Tarpit {
    began: Instant,
    /// The second since `began`, above the number of refusals in it.
    latest: AtomicU64,
    room: Semaphore,
    /// Refusals that were held.
    pub(crate) held: Counter,
}

impl Default for Tarpit {
    fn default() -> Self {
        Self { began: Instant::now(), latest: AtomicU64::new(0), room: Semaphore::new(HELD), held: Counter::default() }
    }
}

impl Tarpit {
    /// The outcome of an attempt; a refusal, where there are many, not before its time.
    pub(crate) async fn slowly<T>(&self, attempt: impl Future<Output = Result<T>>) -> Result<T> {
        let asked = Instant::now();
        let outcome = attempt.await;
        if outcome.as_ref().is_err_and(is_refusal)
            && let Some(hold) = self.next(self.began.elapsed().as_secs())
            && let Ok(_room) = self.room.try_acquire()
        {
            self.held.inc();
            sleep_until(asked + hold).await;
        }
        outcome
    }

    /// How long the next refusal is held, if at all.
    fn next(&self, second: u64) -> Option<Duration> {
        let count = |latest: u64| if latest >> 32 == second { (latest & u64::from(u32::MAX)) + 1 } else { 1 };
        let step = |latest| Some(second << 32 | count(latest));
        let before = self.latest.fetch_update(Relaxed, Relaxed, step).unwrap_or_else(|latest| latest);
        let number = count(before);
        (number > AT_ONCE).then(|| LEAST + Duration::from_millis(number * STRIDE % SPREAD))
    }
}

/// Whether an attempt cost so little that nothing else slows the next one: a wrong password was hashed.
fn is_refusal(error: &Error) -> bool {
    matches!(error, Error::Throttled(_) | Error::Unavailable(..) | Error::InvalidToken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_are_told_at_once_and_many_at_different_times() {
        let refusals = Tarpit::default();
        for second in [0, 1] {
            assert!((0..AT_ONCE).all(|_| refusals.next(second).is_none()), "second {second}");
            let mut holds: Vec<_> = (0..SPREAD).filter_map(|_| refusals.next(second)).collect();
            holds.sort_unstable();
            holds.dedup();
            assert_eq!(holds.len() as u64, SPREAD, "each another time");
            assert!(holds[0] >= LEAST && holds[holds.len() - 1] < LEAST * 2);
        }
    }

    #[tokio::test]
    async fn what_was_earned_or_took_its_time_is_not_held() {
        let refusals = Tarpit::default();
        for _ in 0..4 * AT_ONCE {
            assert!(refusals.slowly(async { Ok(()) }).await.is_ok());
            assert!(refusals.slowly(async { Err::<(), _>(Error::WrongCredentials) }).await.is_err());
        }
        for _ in 0..AT_ONCE {
            assert!(refusals.slowly(async { Err::<(), _>(Error::InvalidToken) }).await.is_err());
        }
        assert_eq!(refusals.held.get(), 0);
        let asked = Instant::now();
        while refusals.held.get() == 0 {
            assert!(refusals.slowly(async { Err::<(), _>(Error::Throttled(LEAST)) }).await.is_err());
        }
        assert!(asked.elapsed() >= LEAST);
    }
}
