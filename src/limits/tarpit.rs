//! Delays cheap rejections when there are many of them.
//!
//! Clients that ignore `Retry-After` send the next request as soon as they have a response. With immediate responses, a
//! few hundred such connections send about 20,000 requests per second and slow down all other clients; with a delay of
//! one to two seconds they send a few hundred.

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

use crate::{
    error::{Error, Result},
    random::random_u64,
};

/// Rejections per second that are not delayed. Ordinary clients with occasional errors stay below it.
const MAX_UNDELAYED_PER_SECOND: u64 = 32;
/// Minimum time from the request to a delayed rejection.
const MIN_DELAY: Duration = Duration::from_secs(1);
/// Upper limit of the random time added to [`MIN_DELAY`], so that clients rejected together do not retry together.
const JITTER_MS: u64 = 1000;
/// Rejections beyond this number are not delayed.
const MAX_DELAYED: usize = 8192;

#[derive(Debug)]
pub(crate) struct Tarpit {
    started: Instant,
    /// Upper 32 bits: the second since `started` of the latest rejection; lower 32 bits: the rejections in that second.
    latest: AtomicU64,
    slots: Semaphore,
    pub(crate) delayed: Counter,
}

impl Default for Tarpit {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            latest: AtomicU64::new(0),
            slots: Semaphore::new(MAX_DELAYED),
            delayed: Counter::default(),
        }
    }
}

impl Tarpit {
    /// Returns the outcome of `attempt`. A cheap rejection above the free rate is returned after a delay.
    pub(crate) async fn delay_rejections<T>(&self, attempt: impl Future<Output = Result<T>>) -> Result<T> {
        let arrived = Instant::now();
        let outcome = attempt.await;
        if outcome.as_ref().is_err_and(is_cheap_rejection)
            && let Some(delay) = self.next_delay(self.started.elapsed().as_secs())
            && let Ok(_slot) = self.slots.try_acquire()
        {
            self.delayed.inc();
            sleep_until(arrived + delay).await;
        }
        outcome
    }

    /// Counts a rejection in `second`, and returns its delay if it exceeds the free rate.
    fn next_delay(&self, second: u64) -> Option<Duration> {
        let count = |latest: u64| if latest >> 32 == second { (latest & u64::from(u32::MAX)) + 1 } else { 1 };
        let update = |latest| Some(second << 32 | count(latest));
        let previous = self.latest.fetch_update(Relaxed, Relaxed, update).unwrap_or_else(|latest| latest);
        (count(previous) > MAX_UNDELAYED_PER_SECOND).then(|| MIN_DELAY + jitter())
    }
}

fn jitter() -> Duration {
    Duration::from_millis(random_u64() % JITTER_MS)
}

/// Returns whether a rejection cost little. A wrong password does not count: hashing it limits the rate of attempts.
fn is_cheap_rejection(error: &Error) -> bool {
    matches!(error, Error::Throttled(_) | Error::Unavailable(..) | Error::InvalidToken)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn rejections_above_free_rate_are_delayed_with_jitter() {
        let tarpit = Tarpit::default();
        for second in [0, 1] {
            assert!((0..MAX_UNDELAYED_PER_SECOND).all(|_| tarpit.next_delay(second).is_none()), "second {second}");
            let delays: Vec<_> = (0..1000).map(|_| tarpit.next_delay(second).unwrap()).collect();
            let (min, max) = (*delays.iter().min().unwrap(), *delays.iter().max().unwrap());
            assert!(min >= MIN_DELAY && max < MIN_DELAY + Duration::from_millis(JITTER_MS), "{min:?} to {max:?}");
            // 1,000 uniform values of 1,000 possible ones: about 632 are distinct
            assert!(max.saturating_sub(min) > Duration::from_millis(JITTER_MS * 9 / 10), "{min:?} to {max:?}");
            let distinct = delays.into_iter().collect::<HashSet<_>>().len();
            assert!(distinct > 500, "{distinct} distinct delays");
        }
    }

    #[tokio::test]
    async fn only_cheap_rejections_above_free_rate_are_delayed() {
        let tarpit = Tarpit::default();
        for _ in 0..4 * MAX_UNDELAYED_PER_SECOND {
            assert!(tarpit.delay_rejections(async { Ok(()) }).await.is_ok());
            assert!(tarpit.delay_rejections(async { Err::<(), _>(Error::WrongCredentials) }).await.is_err());
        }
        for _ in 0..MAX_UNDELAYED_PER_SECOND {
            assert!(tarpit.delay_rejections(async { Err::<(), _>(Error::InvalidToken) }).await.is_err());
        }
        assert_eq!(tarpit.delayed.get(), 0);
        let started = Instant::now();
        while tarpit.delayed.get() == 0 {
            assert!(tarpit.delay_rejections(async { Err::<(), _>(Error::Throttled(MIN_DELAY)) }).await.is_err());
        }
        assert!(started.elapsed() >= MIN_DELAY);
    }
}
