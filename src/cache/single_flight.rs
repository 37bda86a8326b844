//! One flight per key: whoever asks for what is being made waits for it and makes nothing.

use std::{
    collections::HashMap,
    future::Future,
    hash::Hash,
    sync::{Arc, Mutex},
};

use tokio::sync::watch;

use crate::{
    error::{Error, Result},
    sync::lock,
};

type ResultReceiver<V> = watch::Receiver<Option<Result<V>>>;

/// What is being made right now.
///
/// A key carries the version that its request must see, so a request that arrived after a write never joins a flight
/// that began before it.
#[derive(Debug)]
pub(crate) struct SingleFlight<K, V> {
    under_way: Arc<Mutex<HashMap<K, ResultReceiver<V>>>>,
}

impl<K, V> Default for SingleFlight<K, V> {
    fn default() -> Self {
        Self { under_way: Arc::default() }
    }
}

impl<K: Hash + Eq + Clone + Send + 'static, V: Clone + Send + Sync + 'static> SingleFlight<K, V> {
    /// The value of `work`, or of the same work that is under way. The work runs in a task of its own, to its end,
    /// whoever stops waiting for it.
    pub(crate) async fn join<F: Future<Output = Result<V>> + Send + 'static>(
        &self,
        key: K,
        work: impl FnOnce() -> F,
    ) -> Result<V> {
        let mut landing = {
            let mut under_way = lock(&self.under_way);
            if let Some(landing) = under_way.get(&key) {
                landing.clone()
            } else {
                let (land, landing) = watch::channel(None);
                under_way.insert(key.clone(), landing.clone());
                let departure = RemoveOnDrop { key, under_way: Arc::clone(&self.under_way) };
                let work = work();
                tokio::spawn(async move {
                    let outcome = work.await;
                    // no longer to be joined, before anybody hears of the outcome
                    drop(departure);
                    let _ = land.send(Some(outcome));
                });
                landing
            }
        };
        let landed = landing.wait_for(Option::is_some).await;
        match landed.as_deref() {
            Ok(Some(outcome)) => outcome.clone(),
            // the sender is gone without a word: the work panicked
            _ => Err(Error::internal("the work that many requests waited for broke off")),
        }
    }
}

/// Takes a flight off the board when it ends, also by a panic.
struct RemoveOnDrop<K: Hash + Eq, V> {
    key: K,
    under_way: Arc<Mutex<HashMap<K, ResultReceiver<V>>>>,
}

impl<K: Hash + Eq, V> Drop for RemoveOnDrop<K, V> {
    fn drop(&mut self) {
        lock(&self.under_way).remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use super::*;

    #[tokio::test]
    async fn many_that_ask_at_once_cost_one_flight() {
        let flights = SingleFlight::<&str, usize>::default();
        let flown = Arc::new(AtomicUsize::new(0));
        let (go, gate) = watch::channel(false);
        let waiting = (0..50).map(|_| {
            let (flown, mut gate) = (Arc::clone(&flown), gate.clone());
            flights.join("list", move || async move {
                let _ = gate.wait_for(|go| *go).await;
                Ok(flown.fetch_add(1, SeqCst))
            })
        });
        let all = futures_util::future::join_all(waiting);
        let (all, _) = tokio::join!(all, async { go.send(true) });
        assert!(all.into_iter().all(|outcome| matches!(outcome, Ok(0))));
        assert_eq!(flown.load(SeqCst), 1);
    }

    #[tokio::test]
    async fn a_flight_goes_on_without_the_one_that_started_it() {
        let flights = SingleFlight::<&str, u8>::default();
        let (go, mut gate) = watch::channel(false);
        let starter = flights.join("list", move || async move {
            let _ = gate.wait_for(|go| *go).await;
            Ok(7)
        });
        // polled once, then given up, as hyper does with a handler whose client left
        assert!(futures_util::FutureExt::now_or_never(starter).is_none());
        let _ = go.send(true);
        let joined = flights.join("list", || async { Ok(8) }).await;
        assert_eq!(joined.ok(), Some(7));
    }

    #[tokio::test]
    async fn a_panic_is_an_error_for_all_and_blocks_nobody_afterwards() {
        let flights = SingleFlight::<&str, u8>::default();
        assert!(flights.join("list", || async { panic!("broken") }).await.is_err());
        assert_eq!(flights.join("list", || async { Ok(1) }).await.ok(), Some(1));
    }
}
