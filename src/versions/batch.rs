//! Requests that share one version read.

use std::{
    future::poll_fn,
    sync::{Mutex, OnceLock},
    task::{Poll, Waker},
};

use super::version::Versions;
use crate::sync::lock;

/// The result of one read.
#[derive(Debug, Clone, Copy)]
pub(super) enum Outcome {
    Read(Versions),
    /// The database is unreachable.
    Unavailable,
    /// The database responds, but the read failed.
    Failed,
}

/// The requests that share one read.
///
/// A list of wakers instead of a `Notify`: every request passes here, and half of the work of a `Notify` supports
/// waiters that give up.
#[derive(Default)]
pub(super) struct Batch {
    outcome: OnceLock<Outcome>,
    wakers: Mutex<Vec<Waker>>,
}

impl Batch {
    /// Waits for the result of the read.
    pub(super) async fn outcome(&self) -> Outcome {
        let mut index: Option<usize> = None;
        poll_fn(|cx| {
            if let Some(outcome) = self.outcome.get() {
                return Poll::Ready(*outcome);
            }
            let mut wakers = lock(&self.wakers);
            // the outcome may have been set before the lock was acquired
            if let Some(outcome) = self.outcome.get() {
                return Poll::Ready(*outcome);
            }
            if let Some(index) = index {
                wakers[index].clone_from(cx.waker());
            } else {
                index = Some(wakers.len());
                wakers.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }

    /// Stores the result, and wakes the requests.
    pub(super) fn finish(&self, outcome: Outcome) {
        let _ = self.outcome.set(outcome);
        let wakers = std::mem::take(&mut *lock(&self.wakers));
        wakers.into_iter().for_each(Waker::wake);
    }
}
