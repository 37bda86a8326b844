//! A budget for response bytes in flight.
//!
//! A body stays in memory until its client has read it, even after the cache has evicted the entry, so slow readers
//! could hold any amount of memory. The budget limits the bytes of all responses in flight and the share of each user.
//! An entry that several connections send counts once.

use std::sync::{Arc, Mutex, Weak};

use bytes::Bytes;
use foldhash::HashMap;

use crate::{cache::Entry, sync::lock};

/// Bodies up to this size are not counted; at 8,192 connections they take at most 256 MiB.
const UNCOUNTED_BYTES: usize = 32 * 1024;
/// A user may hold `1 / USER_SHARE_DIVISOR` of the budget.
const USER_SHARE_DIVISOR: usize = 2;

#[derive(Debug)]
pub struct ResponseBudget {
    limit: usize,
    usage: Arc<Mutex<Usage>>,
}

#[derive(Debug, Default)]
struct Usage {
    /// Bytes of all entries in flight; an entry that several users read counts once.
    bytes: usize,
    /// Reservations per entry, keyed by its address.
    entries: HashMap<usize, usize>,
    users: HashMap<i64, UserUsage>,
}

#[derive(Debug, Default)]
struct UserUsage {
    /// Bytes of the user's entries in flight, each counted once.
    bytes: usize,
    reservations: HashMap<usize, Weak<Reservation>>,
}

/// An entry in flight to a user, on one or several connections.
#[derive(Debug)]
struct Reservation {
    user: i64,
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
        if let Some(count) = usage.entries.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                usage.entries.remove(&address);
                usage.bytes -= size;
            }
        }
        if let Some(user) = usage.users.get_mut(&self.user) {
            user.bytes -= size;
            // the user may have reserved the same entry again since the last reference was dropped
            if user.reservations.get(&address).is_some_and(|reservation| reservation.strong_count() == 0) {
                user.reservations.remove(&address);
            }
            if user.bytes == 0 {
                usage.users.remove(&self.user);
            }
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

impl ResponseBudget {
    /// Creates a budget of `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, usage: Arc::default() }
    }

    /// Reserves the bytes of `entry` for a response to `user`; they are released when the body is dropped.
    ///
    /// Returns `None` when the total or the user's share would be exceeded. A user with nothing in flight may read one
    /// entry of any size while the total allows it, and an entry of any size may be sent while nothing else is in
    /// flight.
    pub fn reserve(&self, user: i64, entry: &Arc<Entry>) -> Option<Bytes> {
        let (address, size) = (entry_address(entry), entry.bytes.len());
        if size <= UNCOUNTED_BYTES {
            return Some(entry.bytes.clone());
        }
        let mut usage = lock(&self.usage);
        let of_user = usage.users.get(&user);
        let existing = of_user.and_then(|usage| usage.reservations.get(&address)).and_then(Weak::upgrade);
        if let Some(reservation) = existing {
            return Some(Bytes::from_owner(ReservedBytes(reservation)));
        }
        let user_bytes = of_user.map_or(0, |usage| usage.bytes);
        let additional = if usage.entries.contains_key(&address) { 0 } else { size };
        let exceeds_share = user_bytes > 0 && user_bytes + size > self.limit / USER_SHARE_DIVISOR;
        if exceeds_share || (usage.bytes > 0 && usage.bytes + additional > self.limit) {
            return None;
        }
        usage.bytes += additional;
        *usage.entries.entry(address).or_default() += 1;
        let of_user = usage.users.entry(user).or_default();
        of_user.bytes += size;
        let reservation = Arc::new(Reservation { user, entry: Arc::clone(entry), usage: Arc::clone(&self.usage) });
        of_user.reservations.insert(address, Arc::downgrade(&reservation));
        Some(Bytes::from_owner(ReservedBytes(reservation)))
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

    #[test]
    fn user_share_is_limited_and_shared_entries_count_once() {
        let budget = ResponseBudget::new(1_000_000);
        let [first, second, third, small] = [300_000, 300_000, 500_000, UNCOUNTED_BYTES].map(entry);
        let held = [1, 1, 2, 3].map(|user| budget.reserve(user, &first));
        assert!(held.iter().all(|bytes| bytes.as_ref().is_some_and(|bytes| *bytes == first.bytes)));
        assert!(budget.reserve(1, &second).is_none(), "more than the user's share");
        assert!(budget.reserve(1, &small).is_some());
        let of_another = budget.reserve(4, &second);
        assert!(of_another.is_some());
        assert!(budget.reserve(5, &third).is_none(), "more than the total");
        drop(of_another);
        assert!(budget.reserve(5, &third).is_some());
        drop(held);
        let slice = budget.reserve(1, &third).map(|mut bytes| bytes.split_off(100));
        assert!(slice.is_some() && budget.reserve(1, &second).is_none(), "a slice holds the whole reservation");
        drop(slice);
        assert!(budget.reserve(1, &entry(2_000_000)).is_some(), "one entry of any size");
        let usage = lock(&budget.usage);
        assert_eq!((usage.bytes, usage.entries.len(), usage.users.len()), (0, 0, 0), "everything is released");
    }
}
