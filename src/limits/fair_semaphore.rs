//! A semaphore with a share per user and per network, so that no client can hold all permits.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::client::Client;
use crate::{network::ClientNetwork, sync};

/// How long a request waits for a permit.
pub(crate) const PERMIT_TIMEOUT: Duration = Duration::from_secs(2);

/// What one client may hold: `1 / user` of the permits with one account, `1 / network` of them with all accounts of one
/// network; in both cases at least one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ShareDivisors {
    pub(crate) user: usize,
    pub(crate) network: usize,
}

/// The unit of a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Holder {
    User(i64),
    Network(ClientNetwork),
}

pub struct FairSemaphore {
    total: Arc<Semaphore>,
    user_share: usize,
    network_share: usize,
    /// A holder's semaphore is removed once nobody holds or awaits one of its permits.
    shares: Mutex<HashMap<Holder, Weak<Semaphore>>>,
}

/// A permit, released when it is dropped.
#[derive(Debug)]
pub struct Permit {
    _of_user: OwnedSemaphorePermit,
    _of_network: Option<OwnedSemaphorePermit>,
    _of_total: OwnedSemaphorePermit,
}

impl FairSemaphore {
    /// Creates a semaphore with `permits` permits.
    pub(crate) fn new(permits: usize, divisors: ShareDivisors) -> Arc<Self> {
        Arc::new(Self {
            total: Arc::new(Semaphore::new(permits)),
            user_share: (permits / divisors.user).max(1),
            network_share: (permits / divisors.network).max(1),
            shares: Mutex::default(),
        })
    }

    pub fn available_permits(&self) -> usize {
        self.total.available_permits()
    }

    /// Acquires a permit without waiting.
    pub fn try_acquire(&self, client: Client) -> Option<Permit> {
        let (user, network) = self.share_semaphores(client);
        Some(Permit {
            _of_user: user.try_acquire_owned().ok()?,
            _of_network: network.map(Semaphore::try_acquire_owned).transpose().ok()?,
            _of_total: Arc::clone(&self.total).try_acquire_owned().ok()?,
        })
    }

    /// Waits for a permit; returns `None` after `limit`.
    ///
    /// A client at the limit of its share waits for its own permits, not in the queue of the total, so it delays no
    /// other client.
    pub(crate) async fn acquire(&self, client: Client, limit: Duration) -> Option<Permit> {
        let (user, network) = self.share_semaphores(client);
        let acquire = async {
            let of_user = user.acquire_owned().await.ok()?;
            let of_network = match network {
                Some(network) => Some(network.acquire_owned().await.ok()?),
                None => None,
            };
            let of_total = Arc::clone(&self.total).acquire_owned().await.ok()?;
            Some(Permit { _of_user: of_user, _of_network: of_network, _of_total: of_total })
        };
        timeout(limit, acquire).await.ok().flatten()
    }

    /// Returns the semaphores of the client's user and network.
    fn share_semaphores(&self, client: Client) -> (Arc<Semaphore>, Option<Arc<Semaphore>>) {
        let mut shares = sync::lock(&self.shares);
        let mut get = |holder, share| {
            if let Some(semaphore) = shares.get(&holder).and_then(Weak::upgrade) {
                return semaphore;
            }
            shares.retain(|_, semaphore| semaphore.strong_count() > 0);
            let semaphore = Arc::new(Semaphore::new(share));
            shares.insert(holder, Arc::downgrade(&semaphore));
            semaphore
        };
        let user = get(Holder::User(client.user), self.user_share);
        (user, client.network.map(|network| get(Holder::Network(network), self.network_share)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALVES: ShareDivisors = ShareDivisors { user: 2, network: 2 };

    /// A user whose network no share counts.
    fn user(id: i64) -> Client {
        Client::new(id, None)
    }

    #[tokio::test]
    async fn user_share_is_limited_and_released_permits_are_available() {
        let semaphore = FairSemaphore::new(4, HALVES);
        let (first, second) = (semaphore.try_acquire(user(1)).unwrap(), semaphore.try_acquire(user(1)).unwrap());
        assert!(semaphore.try_acquire(user(1)).is_none() && semaphore.available_permits() == 2);
        let others = [semaphore.try_acquire(user(2)).unwrap(), semaphore.try_acquire(user(3)).unwrap()];
        assert!(semaphore.try_acquire(user(4)).is_none(), "all permits are in use");
        assert!(semaphore.acquire(user(1), Duration::from_millis(1)).await.is_none());
        let waiting = semaphore.acquire(user(1), Duration::from_secs(60));
        drop(first);
        assert!(waiting.await.is_some());
        drop((second, others));
        assert_eq!(semaphore.available_permits(), 4);
        let _other = semaphore.try_acquire(user(9)).unwrap();
        assert_eq!(semaphore.shares.lock().unwrap().len(), 1, "unused semaphores are removed");
    }

    #[tokio::test]
    async fn accounts_of_one_network_leave_half_to_others() {
        let semaphore = FairSemaphore::new(16, ShareDivisors { user: 4, network: 2 });
        let at = |address: &str, id| Client::new(id, Some(address.parse().unwrap()));
        let held: Vec<_> = (0..30).filter_map(|id| semaphore.try_acquire(at("2001:db8::1", id))).collect();
        assert_eq!(held.len(), 8);
        assert!(semaphore.try_acquire(at("2001:db8::2", 99)).is_none(), "an address of the same /64");
        let waiting = semaphore.acquire(at("2001:db8::3", 98), Duration::from_millis(1));
        assert!(waiting.await.is_none());
        let others: Vec<_> = (30..38).map_while(|id| semaphore.try_acquire(at("2001:db8:1::1", id))).collect();
        assert_eq!(others.len(), 8, "another network has the other half");
    }

    #[test]
    fn share_is_at_least_one() {
        let semaphore = FairSemaphore::new(1, HALVES);
        assert!(semaphore.try_acquire(user(1)).is_some());
        assert!(semaphore.try_acquire(user(2)).is_some());
    }
}
