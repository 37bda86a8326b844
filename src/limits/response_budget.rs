//! Lists on their way to clients: what is being read stays in memory though the cache has dropped it. So much in all, and
//! only a share of it for one user, so that no number of slow readers takes all memory.

use std::sync::{Arc, Mutex, Weak};

use bytes::Bytes;
use foldhash::HashMap;

use crate::{cache::Entry, sync::lock};

/// Lists up to this size are not counted: at 8,192 connections they are 256 MiB at most.
const SMALL_BYTES: usize = 32 * 1024;
/// What one user has at most of all of it: a half.
const PARTS: usize = 2;

/// The lists that somebody is reading just now.
#[derive(Debug)]
pub struct ResponseBudget {
    bound: usize,
    books: Arc<Mutex<Usage>>,
}

#[derive(Debug, Default)]
struct Usage {
    /// Bytes of all lists; what several users read is in memory once.
    all: usize,
    /// How many loans there are of a list, by its place in memory.
    lists: HashMap<usize, usize>,
    users: HashMap<i64, UserUsage>,
}

#[derive(Debug, Default)]
struct UserUsage {
    /// Bytes of what they are reading, each list once, however often they read it.
    bytes: usize,
    loans: HashMap<usize, Weak<Reservation>>,
}

/// A list that a user is reading, on one connection or several.
#[derive(Debug)]
struct Reservation {
    user: i64,
    entry: Arc<Entry>,
    books: Arc<Mutex<Usage>>,
}

impl Reservation {
    /// No other entry is there as long as this is lent.
    fn place(entry: &Arc<Entry>) -> usize {
        Arc::as_ptr(entry) as usize
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let (place, size) = (Self::place(&self.entry), self.entry.bytes.len());
        let mut books = lock(&self.books);
        if let Some(count) = books.lists.get_mut(&place) {
            *count -= 1;
            if *count == 0 {
                books.lists.remove(&place);
                books.all -= size;
            }
        }
        if let Some(reader) = books.users.get_mut(&self.user) {
            reader.bytes -= size;
            // they may have come back for it meanwhile
            if reader.loans.get(&place).is_some_and(|loan| loan.strong_count() == 0) {
                reader.loans.remove(&place);
            }
            if reader.bytes == 0 {
                books.users.remove(&self.user);
            }
        }
    }
}

/// The body of a reply, which holds the loan until it is sent or dropped.
struct ReservedBytes(Arc<Reservation>);

impl AsRef<[u8]> for ReservedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.0.entry.bytes
    }
}

impl ResponseBudget {
    /// None are read yet; at most so many bytes may be at a time.
    pub(crate) fn new(bound: usize) -> Self {
        Self { bound, books: Arc::default() }
    }

    /// The bytes of an entry, to be sent to this user; nothing while too much is on its way to them or to all. One list of
    /// any size a user may always read while there is room for all.
    pub fn lend(&self, user: i64, entry: &Arc<Entry>) -> Option<Bytes> {
        let (place, size) = (Reservation::place(entry), entry.bytes.len());
        if size <= SMALL_BYTES {
            return Some(entry.bytes.clone());
        }
        let mut books = lock(&self.books);
        let reader = books.users.get(&user);
        if let Some(loan) = reader.and_then(|reader| reader.loans.get(&place)).and_then(Weak::upgrade) {
            return Some(Bytes::from_owner(ReservedBytes(loan)));
        }
        let own = reader.map_or(0, |reader| reader.bytes);
        let more = if books.lists.contains_key(&place) { 0 } else { size };
        if (own > 0 && own + size > self.bound / PARTS) || (books.all > 0 && books.all + more > self.bound) {
            return None;
        }
        books.all += more;
        *books.lists.entry(place).or_default() += 1;
        let reader = books.users.entry(user).or_default();
        reader.bytes += size;
        let loan = Arc::new(Reservation { user, entry: Arc::clone(entry), books: Arc::clone(&self.books) });
        reader.loans.insert(place, Arc::downgrade(&loan));
        Some(Bytes::from_owner(ReservedBytes(loan)))
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::versions::Version;

    fn list(bytes: usize) -> Arc<Entry> {
        let version = Version { number: 1, token: Uuid::nil() };
        Arc::new(Entry::identity(version, vec![b' '; bytes].into(), Arc::default()))
    }

    #[test]
    fn one_user_has_a_share_and_what_many_read_counts_once() {
        let lent = ResponseBudget::new(1_000_000);
        let [first, second, third, small] = [300_000, 300_000, 500_000, SMALL_BYTES].map(list);
        let held = [lent.lend(1, &first), lent.lend(1, &first), lent.lend(2, &first), lent.lend(3, &first)];
        assert!(held.iter().all(|bytes| bytes.as_ref().is_some_and(|bytes| *bytes == first.bytes)));
        assert!(lent.lend(1, &second).is_none(), "that were more than a half");
        assert!(lent.lend(1, &small).is_some());
        let of_another = lent.lend(4, &second);
        assert!(of_another.is_some());
        assert!(lent.lend(5, &third).is_none(), "that were more than all");
        drop(of_another);
        assert!(lent.lend(5, &third).is_some());
        drop(held);
        let sending = lent.lend(1, &third).map(|mut bytes| bytes.split_off(100));
        assert!(sending.is_some() && lent.lend(1, &second).is_none(), "a part of it holds all of it");
        drop(sending);
        assert!(lent.lend(1, &list(2_000_000)).is_some(), "one of any size");
        let books = lock(&lent.books);
        assert_eq!((books.all, books.lists.len(), books.users.len()), (0, 0, 0), "nothing is left of it");
    }
}
