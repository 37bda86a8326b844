//! A budget for response bytes in flight.
//!
//! A body stays in memory until its client has read it, even after the cache has evicted it, so slow readers could hold
//! any amount of memory. The budget limits the bytes of all responses in flight and the shares of each user and each
//! network. Bytes that several connections send count once: a list in chunks costs a slow reader only the chunks that no
//! other reader holds. Small bodies are counted by an addition, as long as all of them together are a small part of the
//! budget: most responses are small, and are read at once.

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
use crate::{network::ClientNetwork, sync::lock};

/// Bodies up to this size are not counted.
pub(crate) const UNCOUNTED_BYTES: usize = 4 * 1024;
/// Bodies up to this size are small.
const SMALL_BODY_BYTES: usize = 32 * 1024;
/// `1 / SMALL_PART_DIVISOR` of the budget is for small bodies, counted once per response and without shares.
const SMALL_PART_DIVISOR: usize = 4;
/// A user may hold `1 / SHARE_DIVISOR` of the budget, and so may all users of one network together.
const SHARE_DIVISOR: usize = 2;

#[derive(Debug)]
pub struct ResponseBudget {
    /// Limit of the bytes in `usage`.
    limit: usize,
    usage: Arc<Mutex<Usage>>,
    /// Limit of the bytes in `small_bytes`.
    small_limit: usize,
    small_bytes: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct Usage {
    /// All bytes in flight, each part counted once.
    bytes: usize,
    /// Bytes in flight to each user; those to the same user at several networks count several times.
    users: HashMap<i64, usize>,
    /// Bytes in flight to each network, each part counted once.
    networks: HashMap<ClientNetwork, usize>,
    /// Reservations by network and address of the bytes, and in total under no network.
    counts: HashMap<(Option<ClientNetwork>, usize), usize>,
    /// By client and address of the bytes.
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
    /// Whether these parts of a body, counted where they are not in flight yet, exceed the limit or a share of the client.
    /// The only body in flight may have any size.
    fn exceeds(&self, limit: usize, client: Client, parts: &[&Bytes]) -> bool {
        let additional = |is_counted: &dyn Fn(usize) -> bool| -> usize {
            parts.iter().filter(|part| !is_counted(address(part))).map(|part| part.len()).sum()
        };
        let additional_of = |network| additional(&|address| self.counts.contains_key(&(network, address)));
        let is_live = |address| self.reservations.get(&(client, address)).is_some_and(|held| held.strong_count() > 0);
        let exceeds = |bytes, additional, limit| bytes > 0 && additional > 0 && bytes + additional > limit;
        let share = limit / SHARE_DIVISOR;
        let of_user = self.users.get(&client.user).copied().unwrap_or_default();
        let of_network = client.network.and_then(|network| self.networks.get(&network)).copied().unwrap_or_default();
        exceeds(of_user, additional(&is_live), share)
            || exceeds(of_network, additional_of(client.network), share)
            || exceeds(self.bytes, additional_of(None), limit)
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

    /// Counts a reservation, and returns whether it is the first one of the bytes.
    fn increment(&mut self, network: Option<ClientNetwork>, address: usize) -> bool {
        let count = self.counts.entry((network, address)).or_default();
        *count += 1;
        *count == 1
    }

    /// Uncounts a reservation, and returns whether it was the last one of the bytes.
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

/// Bytes in flight to a client, on one or several connections.
#[derive(Debug)]
struct Reservation {
    client: Client,
    bytes: Bytes,
    usage: Arc<Mutex<Usage>>,
}

/// Returns the address of bytes. It identifies them as long as a reservation keeps them alive.
fn address(bytes: &Bytes) -> usize {
    bytes.as_ptr().addr()
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let (address, size) = (address(&self.bytes), self.bytes.len());
        let mut usage = lock(&self.usage);
        usage.remove(self.client, address, size);
        // the client may have reserved the same bytes again since the last reference was dropped
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
        &self.0.bytes
    }
}

/// The owner of a response body that is small.
struct SmallBody {
    bytes: Bytes,
    small_bytes: Arc<AtomicUsize>,
}

impl AsRef<[u8]> for SmallBody {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for SmallBody {
    fn drop(&mut self) {
        self.small_bytes.fetch_sub(self.bytes.len(), Relaxed);
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

    /// Reserves a body for a response to `client`; it is released when the returned bytes are dropped.
    ///
    /// Returns `None` when the total or a share of the client would be exceeded. A user or a network with nothing in
    /// flight may read one body of any size while the total allows it, and a body of any size may be sent while nothing
    /// else is in flight.
    pub fn reserve(&self, client: Client, bytes: &Bytes) -> Option<Bytes> {
        let size = bytes.len();
        if size <= UNCOUNTED_BYTES {
            return Some(bytes.clone());
        }
        if size <= SMALL_BODY_BYTES
            && let Some(bytes) = self.reserve_small(bytes)
        {
            return Some(bytes);
        }
        self.reserve_parts(client, &[bytes])?.pop()
    }

    /// Reserves the parts of a body, as [`reserve`](Self::reserve) does. Each part is released on its own.
    pub(crate) fn reserve_parts(&self, client: Client, parts: &[&Bytes]) -> Option<Vec<Bytes>> {
        let mut usage = lock(&self.usage);
        if usage.exceeds(self.limit, client, parts) {
            return None;
        }
        Some(parts.iter().map(|part| self.reserve_part(&mut usage, client, part)).collect())
    }

    fn reserve_part(&self, usage: &mut Usage, client: Client, bytes: &Bytes) -> Bytes {
        let key = (client, address(bytes));
        let existing = usage.reservations.get(&key).and_then(Weak::upgrade);
        let reservation = existing.unwrap_or_else(|| {
            usage.add(client, key.1, bytes.len());
            let reservation = Reservation { client, bytes: bytes.clone(), usage: Arc::clone(&self.usage) };
            let reservation = Arc::new(reservation);
            usage.reservations.insert(key, Arc::downgrade(&reservation));
            reservation
        });
        Bytes::from_owner(ReservedBytes(reservation))
    }

    /// Reserves a small body, or returns `None` when the part for small ones is exhausted.
    fn reserve_small(&self, bytes: &Bytes) -> Option<Bytes> {
        let size = bytes.len();
        if self.small_bytes.fetch_add(size, Relaxed) + size > self.small_limit {
            self.small_bytes.fetch_sub(size, Relaxed);
            return None;
        }
        Some(Bytes::from_owner(SmallBody { bytes: bytes.clone(), small_bytes: Arc::clone(&self.small_bytes) }))
    }
}

#[cfg(test)]
mod tests;
