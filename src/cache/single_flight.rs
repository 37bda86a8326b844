//! Coalescing of concurrent calls: the first caller for a key starts the work, the others wait for its result.

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

/// The calls in flight, by key.
///
/// A key contains the version that its request must see, so a request that arrives after a write never shares the
/// result of a call that started before the write.
#[derive(Debug)]
pub(crate) struct SingleFlight<K, V> {
    in_flight: Arc<Mutex<HashMap<K, ResultReceiver<V>>>>,
}

impl<K, V> Default for SingleFlight<K, V> {
    fn default() -> Self {
        Self { in_flight: Arc::default() }
    }
}

impl<K: Hash + Eq + Clone + Send + 'static, V: Clone + Send + Sync + 'static> SingleFlight<K, V> {
    /// Returns the result of the call in flight for `key`, or starts `work` and returns its result.
    ///
    /// The work runs to completion in its own task, even when its callers are cancelled.
    pub(crate) async fn run<F: Future<Output = Result<V>> + Send + 'static>(
        &self,
        key: K,
        work: impl FnOnce() -> F,
    ) -> Result<V> {
        let mut receiver = {
            let mut in_flight = lock(&self.in_flight);
            if let Some(receiver) = in_flight.get(&key) {
                receiver.clone()
            } else {
                let (sender, receiver) = watch::channel(None);
                in_flight.insert(key.clone(), receiver.clone());
                let registration = RemoveOnDrop { key, in_flight: Arc::clone(&self.in_flight) };
                let work = work();
                tokio::spawn(async move {
                    let result = work.await;
                    // removed before the result is published: a caller that arrives later starts new work
                    drop(registration);
                    let _ = sender.send(Some(result));
                });
                receiver
            }
        };
        let received = receiver.wait_for(Option::is_some).await;
        match received.as_deref() {
            Ok(Some(result)) => result.clone(),
            // the sender was dropped without a result
            _ => Err(Error::internal("the shared work panicked")),
        }
    }
}

/// Removes a call from the map when it ends, also by a panic.
struct RemoveOnDrop<K: Hash + Eq, V> {
    key: K,
    in_flight: Arc<Mutex<HashMap<K, ResultReceiver<V>>>>,
}

impl<K: Hash + Eq, V> Drop for RemoveOnDrop<K, V> {
    fn drop(&mut self) {
        lock(&self.in_flight).remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use super::*;

    #[tokio::test]
    async fn concurrent_calls_share_one_run() {
        let single_flight = SingleFlight::<&str, usize>::default();
        let runs = Arc::new(AtomicUsize::new(0));
        let (start, started) = watch::channel(false);
        let calls = (0..50).map(|_| {
            let (runs, mut started) = (Arc::clone(&runs), started.clone());
            single_flight.run("list", move || async move {
                let _ = started.wait_for(|started| *started).await;
                Ok(runs.fetch_add(1, SeqCst))
            })
        });
        let calls = futures_util::future::join_all(calls);
        let (results, _) = tokio::join!(calls, async { start.send(true) });
        assert!(results.into_iter().all(|result| matches!(result, Ok(0))));
        assert_eq!(runs.load(SeqCst), 1);
    }

    #[tokio::test]
    async fn work_continues_after_its_caller_is_cancelled() {
        let single_flight = SingleFlight::<&str, u8>::default();
        let (start, mut started) = watch::channel(false);
        let first = single_flight.run("list", move || async move {
            let _ = started.wait_for(|started| *started).await;
            Ok(7)
        });
        // polled once, then dropped, as hyper does with a handler whose client disconnects
        assert!(futures_util::FutureExt::now_or_never(first).is_none());
        let _ = start.send(true);
        let second = single_flight.run("list", || async { Ok(8) }).await;
        assert_eq!(second.ok(), Some(7));
    }

    #[tokio::test]
    async fn panic_is_an_error_and_the_key_is_usable_again() {
        let single_flight = SingleFlight::<&str, u8>::default();
        assert!(single_flight.run("list", || async { panic!("broken") }).await.is_err());
        assert_eq!(single_flight.run("list", || async { Ok(1) }).await.ok(), Some(1));
    }
}
