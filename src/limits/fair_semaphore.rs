//! Turns at what only few may do at a time: so many in all, and only a share of them for one user, so that whoever takes all
//! they can leaves some to others.

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

/// Turns, shared out.
pub struct FairSemaphore {
    all: Arc<Semaphore>,
    /// Of one user.
    share: usize,
    /// By user; gone when nobody holds or awaits a turn of theirs.
    users: Mutex<HashMap<i64, Weak<Semaphore>>>,
}

/// One turn; over when it is dropped.
#[derive(Debug)]
pub struct Permit {
    _own: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

impl FairSemaphore {
    /// So many in all; one user has at most `1 / parts` of them, and at least one.
    pub(crate) fn new(all: usize, parts: usize) -> Arc<Self> {
        let share = (all / parts).max(1);
        Arc::new(Self { all: Arc::new(Semaphore::new(all)), share, users: Mutex::default() })
    }

    /// Turns that nobody has.
    pub fn free(&self) -> usize {
        self.all.available_permits()
    }

    /// A turn for this user, now or not at all.
    pub fn try_take(&self, user: i64) -> Option<Permit> {
        let own = self.of(user).try_acquire_owned().ok()?;
        let of_all = Arc::clone(&self.all).try_acquire_owned().ok()?;
        Some(Permit { _own: own, _of_all: of_all })
    }

    /// A turn for this user, within this time.
    pub(crate) async fn take(&self, user: i64, patience: Duration) -> Option<Permit> {
        let taking = async {
            let own = self.of(user).acquire_owned().await.ok()?;
            let of_all = Arc::clone(&self.all).acquire_owned().await.ok()?;
            Some(Permit { _own: own, _of_all: of_all })
        };
        timeout(patience, taking).await.ok().flatten()
    }

    fn of(&self, user: i64) -> Arc<Semaphore> {
        let mut users = sync::lock(&self.users);
        if let Some(known) = users.get(&user).and_then(Weak::upgrade) {
            return known;
        }
        users.retain(|_, turns| turns.strong_count() > 0);
        let own = Arc::new(Semaphore::new(self.share));
        users.insert(user, Arc::downgrade(&own));
        own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_user_leaves_some_to_others_and_a_turn_that_is_over_is_free() {
        let turns = FairSemaphore::new(4, 2);
        let (first, second) = (turns.try_take(1).unwrap(), turns.try_take(1).unwrap());
        assert!(turns.try_take(1).is_none() && turns.free() == 2);
        let others = [turns.try_take(2).unwrap(), turns.try_take(3).unwrap()];
        assert!(turns.try_take(4).is_none(), "there are no more");
        assert!(turns.take(1, Duration::from_millis(1)).await.is_none());
        let waiting = turns.take(1, Duration::from_secs(60));
        drop(first);
        assert!(waiting.await.is_some());
        drop((second, others));
        assert_eq!(turns.free(), 4);
        let _other = turns.try_take(9).unwrap();
        assert_eq!(turns.users.lock().unwrap().len(), 1, "those who have none are forgotten");
    }

    #[test]
    fn each_has_one_where_there_are_few() {
        let turns = FairSemaphore::new(1, 4);
        assert!(turns.try_take(1).is_some());
        assert!(turns.try_take(2).is_some());
    }
}
