//! A budget for response bytes in flight.
//!
//! A body stays in memory until its client has read it, even after the cache has evicted the entry, so slow readers
//! could hold any amount of memory. The budget limits the bytes of all responses in flight and the shares of each user
//! and each network. An entry that several connections send counts once. Small entries are counted by an addition, as
//! long as all of them together are a small part of the budget: most responses are small, and are read at once.

use std::{
    hash::Hash,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use foldhash::HashMap;

use super::client::Client;
use crate::{cache::Entry, network::ClientNetwork, sync::lock};

/// Bodies up to this size are not counted.
pub(crate) const UNCOUNTED_BYTES: usize = 4 * 1024;
/// Entries up to this size are small.
const SMALL_ENTRY_BYTES: usize = 32 * 1024;
/// `1 / SMALL_PART_DIVISOR` of the budget is for small entries, counted once per response and without shares.
const SMALL_PART_DIVISOR: usize = 4;
/// A user may hold `1 / SHARE_DIVISOR` of the budget, and so may all users of one network together.
const SHARE_DIVISOR: usize = 2;

#[derive(Debug)]
pub struct ResponseBudget {
    /// Limit of the entries in `usage`.
    limit: usize,
    usage: Arc<Mutex<Usage>>,
    /// Limit of the bytes in `small_bytes`.
    small_limit: usize,
    small_bytes: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct Usage {
    /// Bytes of all entries in flight, each counted once.
    bytes: usize,
    /// Bytes of the entries in flight to each user; those to the same user at several networks count several times.
    users: HashMap<i64, usize>,
    /// Bytes of the entries in flight to each network, each counted once.
    networks: HashMap<ClientNetwork, usize>,
    /// Reservations by network and address of the entry, and in total under no network.
    counts: HashMap<(Option<ClientNetwork>, usize), usize>,
    /// By client and address of the entry.
    reservations: HashMap<(Client, usize), Weak<Reservation>>,
}

/// Subtracts `size` from the bytes of a holder, and removes a holder of nothing.
fn subtract<K: Hash + Eq>(holders: &mut HashMap<K, usize>, holder: &K, size: usize) {
    if let Some(bytes) = holders.get_mut(holder) {
        *bytes -= size;
        if *bytes == 0 {
            holders.remove(holder);
        }
    }
}

impl Usage {
    /// Whether one more entry exceeds the limit or a share of the client. The only entry in flight may have any size.
    fn exceeds(&self, limit: usize, client: Client, address: usize, size: usize) -> bool {
        let additional = |network| if self.counts.contains_key(&(network, address)) { 0 } else { size };
        let exceeds = |bytes: usize, additional, limit| bytes > 0 && bytes + additional > limit;
        let share = limit / SHARE_DIVISOR;
        let of_user = self.users.get(&client.user).copied().unwrap_or_default();
        let of_network = client.network.and_then(|network| self.networks.get(&network)).copied().unwrap_or_default();
        exceeds(of_user, size, share)
            || (of_network > 0 && exceeds(of_network, additional(client.network), share))
            || (self.bytes > 0 && exceeds(self.bytes, additional(None), limit))
    }

    fn add(&mut self, client: Client, address: usize, size: usize) {
        *self.users.entry(client.user).or_default() += size;
        if self.increment(None, address) {
            self.bytes += size;
        }
        if let Some(network) = client.network
            && self.increment(Some(network), address)
        {
            *self.networks.entry(network).or_default() += size;
        }
    }

    fn remove(&mut self, client: Client, address: usize, size: usize) {
        subtract(&mut self.users, &client.user, size);
        if self.decrement(None, address) {
            self.bytes -= size;
        }
        if let Some(network) = client.network
            && self.decrement(Some(network), address)
        {
            subtract(&mut self.networks, &network, size);
        }
    }

    /// Counts a reservation, and returns whether it is the first one of the entry.
    fn increment(&mut self, network: Option<ClientNetwork>, address: usize) -> bool {
        let count = self.counts.entry((network, address)).or_default();
        *count += 1;
        *count == 1
    }

    /// Uncounts a reservation, and returns whether it was the last one of the entry.
    fn decrement(&mut self, network: Option<ClientNetwork>, address: usize) -> bool {
        let key = (network, address);
        let Some(count) = self.counts.get_mut(&key) else { return false };
        *count -= 1;
        let is_last = *count == 0;
        if is_last {
            self.counts.remove(&key);
        }
        is_last
    }
}

/// An entry in flight to a client, on one or several connections.
#[derive(Debug)]
struct Reservation {
    client: Client,
    entry: Arc<Entry>,
    usage: Arc<Mutex<Usage>>,
}

/// Returns the address of an entry. It identifies the entry as long as a reservation keeps it alive.
fn entry_address(entry: &Arc<Entry>) -> usize {
    Arc::as_ptr(entry) as usize
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let (address, size) = (entry_address(&self.entry), self.entry.bytes.len());
        let mut usage = lock(&self.usage);
        usage.remove(self.client, address, size);
        // the client may have reserved the same entry again since the last reference was dropped
        let key = (self.client, address);
        if usage.reservations.get(&key).is_some_and(|reservation| reservation.strong_count() == 0) {
            usage.reservations.remove(&key);
        }
    }
}

/// The owner of a response body: holds the reservation until the body is sent or dropped.
struct ReservedBytes(Arc<Reservation>);

impl AsRef<[u8]> for ReservedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.0.entry.bytes
    }
}

/// The owner of a response body that is small.
struct SmallBody {
    entry: Arc<Entry>,
    small_bytes: Arc<AtomicUsize>,
}

impl AsRef<[u8]> for SmallBody {
    fn as_ref(&self) -> &[u8] {
        &self.entry.bytes
    }
}

impl Drop for SmallBody {
    fn drop(&mut self) {
        self.small_bytes.fetch_sub(self.entry.bytes.len(), Relaxed);
    }
}

impl ResponseBudget {
    /// Creates a budget of `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        let small_limit = limit / SMALL_PART_DIVISOR;
        Self { limit: limit - small_limit, usage: Arc::default(), small_limit, small_bytes: Arc::default() }
    }

    /// Returns the bytes in flight.
    pub(crate) fn bytes(&self) -> usize {
        lock(&self.usage).bytes + self.small_bytes.load(Relaxed)
    }

    /// Reserves the bytes of `entry` for a response to `client`; they are released when the body is dropped.
    ///
    /// Returns `None` when the total or a share of the client would be exceeded. A user or a network with nothing in
    /// flight may read one entry of any size while the total allows it, and an entry of any size may be sent while
    /// nothing else is in flight.
    pub fn reserve(&self, client: Client, entry: &Arc<Entry>) -> Option<Bytes> {
        let (address, size) = (entry_address(entry), entry.bytes.len());
        if size <= UNCOUNTED_BYTES {
            return Some(entry.bytes.clone());
        }
        if size <= SMALL_ENTRY_BYTES
            && let Some(bytes) = self.reserve_small(entry)
        {
            return Some(bytes);
        }
        let mut usage = lock(&self.usage);
        let existing = usage.reservations.get(&(client, address)).and_then(Weak::upgrade);
        if let Some(reservation) = existing {
            return Some(Bytes::from_owner(ReservedBytes(reservation)));
        }
        if usage.exceeds(self.limit, client, address, size) {
            return None;
        }
        usage.add(client, address, size);
        let reservation = Arc::new(Reservation { client, entry: Arc::clone(entry), usage: Arc::clone(&self.usage) });
        usage.reservations.insert((client, address), Arc::downgrade(&reservation));
        Some(Bytes::from_owner(ReservedBytes(reservation)))
    }

    /// Reserves the bytes of a small entry, or returns `None` when the part for small entries is exhausted.
    fn reserve_small(&self, entry: &Arc<Entry>) -> Option<Bytes> {
        let size = entry.bytes.len();
        if self.small_bytes.fetch_add(size, Relaxed) + size > self.small_limit {
            self.small_bytes.fetch_sub(size, Relaxed);
            return None;
        }
        Some(Bytes::from_owner(SmallBody { entry: Arc::clone(entry), small_bytes: Arc::clone(&self.small_bytes) }))
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::versions::Version;

    fn entry(bytes: usize) -> Arc<Entry> {
        let version = Version { number: 1, token: Uuid::nil() };
        Arc::new(Entry::identity(version, vec![b' '; bytes].into(), Arc::default()))
    }

    /// A user whose network no share counts.
    fn user(id: i64) -> Client {
        Client::new(id, None)
    }

    #[test]
    fn user_share_is_limited_and_shared_entries_count_once() {
        let budget = ResponseBudget::new(1_333_333);
        let [first, second, third, small] = [300_000, 300_000, 500_000, UNCOUNTED_BYTES].map(entry);
        let held = [1, 1, 2, 3].map(|id| budget.reserve(user(id), &first));
        assert!(held.iter().all(|bytes| bytes.as_ref().is_some_and(|bytes| *bytes == first.bytes)));
        assert!(budget.reserve(user(1), &second).is_none(), "more than the user's share");
        assert!(budget.reserve(user(1), &small).is_some());
        let of_another = budget.reserve(user(4), &second);
        assert!(of_another.is_some());
        assert!(budget.reserve(user(5), &third).is_none(), "more than the total");
        drop(of_another);
        assert!(budget.reserve(user(5), &third).is_some());
        drop(held);
        let slice = budget.reserve(user(1), &third).map(|mut bytes| bytes.split_off(100));
        assert!(slice.is_some() && budget.reserve(user(1), &second).is_none(), "a slice holds the whole reservation");
        drop(slice);
        assert!(budget.reserve(user(1), &entry(2_000_000)).is_some(), "one entry of any size");
        assert_empty(&budget);
    }

    #[test]
    fn accounts_of_one_network_leave_half_to_others() {
        let budget = ResponseBudget::new(1_333_333);
        let at = |address: &str, id| Client::new(id, Some(address.parse().unwrap()));
        let entries: Vec<_> = (0..30).map(|_| entry(40_000)).collect();
        let reserve = |id: usize| budget.reserve(at("192.0.2.1", i64::try_from(id).unwrap()), &entries[id]);
        let held: Vec<_> = (0..30).filter_map(reserve).collect();
        assert_eq!((held.len(), budget.bytes()), (12, 480_000));
        let others: Vec<_> =
            entries[12..24].iter().map_while(|entry| budget.reserve(at("192.0.2.2", 99), entry)).collect();
        assert_eq!(others.len(), 12, "another network has the other half");
        // an account at two addresses has one share
        assert!(budget.reserve(at("192.0.2.3", 99), &entries[29]).is_none());
        drop((held, others));
        assert_empty(&budget);
    }

    #[test]
    fn small_entries_have_a_part_without_shares_and_then_count_like_others() {
        let budget = ResponseBudget::new(400_000);
        let entries: Vec<_> = (0..20).map(|_| entry(20_000)).collect();
        let held: Vec<_> = entries.iter().map_while(|entry| budget.reserve(user(1), entry)).collect();
        assert_eq!(held.len(), 5 + 7, "a quarter of the budget, then half of the rest");
        assert!(budget.reserve(user(2), &entries[19]).is_some());
        drop(held);
        assert_empty(&budget);
    }

    fn assert_empty(budget: &ResponseBudget) {
        assert_eq!(budget.bytes(), 0);
        let usage = lock(&budget.usage);
        assert_eq!((usage.bytes, usage.counts.len(), usage.reservations.len()), (0, 0, 0), "everything is released");
        assert!(usage.users.is_empty() && usage.networks.is_empty());
    }
}
