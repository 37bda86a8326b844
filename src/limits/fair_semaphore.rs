//! A semaphore with a share per user, so that no user can hold all permits.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::sync;

/// How long a request waits for a permit.
pub(crate) const PERMIT_TIMEOUT: Duration = Duration::from_secs(2);

pub struct FairSemaphore {
    total: Arc<Semaphore>,
    /// Permits per user.
    share: usize,
    /// A user's semaphore is removed once nobody holds or awaits one of its permits.
    users: Mutex<HashMap<i64, Weak<Semaphore>>>,
}

/// A permit, released when it is dropped.
#[derive(Debug)]
pub struct Permit {
    _of_user: OwnedSemaphorePermit,
    _of_total: OwnedSemaphorePermit,
}

impl FairSemaphore {
    /// Creates a semaphore with `permits` permits. A user may hold `1 / share_divisor` of them, and at least one.
    pub(crate) fn new(permits: usize, share_divisor: usize) -> Arc<Self> {
        let share = (permits / share_divisor).max(1);
        Arc::new(Self { total: Arc::new(Semaphore::new(permits)), share, users: Mutex::default() })
    }

    pub fn available_permits(&self) -> usize {
        self.total.available_permits()
    }

    /// Acquires a permit without waiting.
    pub fn try_acquire(&self, user: i64) -> Option<Permit> {
        let of_user = self.user_semaphore(user).try_acquire_owned().ok()?;
        let of_total = Arc::clone(&self.total).try_acquire_owned().ok()?;
        Some(Permit { _of_user: of_user, _of_total: of_total })
    }

    /// Waits for a permit; returns `None` after `limit`.
    pub(crate) async fn acquire(&self, user: i64, limit: Duration) -> Option<Permit> {
        let acquire = async {
            let of_user = self.user_semaphore(user).acquire_owned().await.ok()?;
            let of_total = Arc::clone(&self.total).acquire_owned().await.ok()?;
            Some(Permit { _of_user: of_user, _of_total: of_total })
        };
        timeout(limit, acquire).await.ok().flatten()
    }

    fn user_semaphore(&self, user: i64) -> Arc<Semaphore> {
        let mut users = sync::lock(&self.users);
        if let Some(semaphore) = users.get(&user).and_then(Weak::upgrade) {
            return semaphore;
        }
        users.retain(|_, semaphore| semaphore.strong_count() > 0);
        let semaphore = Arc::new(Semaphore::new(self.share));
        users.insert(user, Arc::downgrade(&semaphore));
        semaphore
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn user_share_is_limited_and_released_permits_are_available() {
        let semaphore = FairSemaphore::new(4, 2);
        let (first, second) = (semaphore.try_acquire(1).unwrap(), semaphore.try_acquire(1).unwrap());
        assert!(semaphore.try_acquire(1).is_none() && semaphore.available_permits() == 2);
        let others = [semaphore.try_acquire(2).unwrap(), semaphore.try_acquire(3).unwrap()];
        assert!(semaphore.try_acquire(4).is_none(), "all permits are in use");
        assert!(semaphore.acquire(1, Duration::from_millis(1)).await.is_none());
        let waiting = semaphore.acquire(1, Duration::from_secs(60));
        drop(first);
        assert!(waiting.await.is_some());
        drop((second, others));
        assert_eq!(semaphore.available_permits(), 4);
        let _other = semaphore.try_acquire(9).unwrap();
        assert_eq!(semaphore.users.lock().unwrap().len(), 1, "unused semaphores are removed");
    }

    #[test]
    fn user_share_is_at_least_one() {
        let semaphore = FairSemaphore::new(1, 4);
        assert!(semaphore.try_acquire(1).is_some());
        assert!(semaphore.try_acquire(2).is_some());
    }
}
