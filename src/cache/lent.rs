//! Lists on their way to clients: what is being read stays in memory though the cache has dropped it. So much in all, and
//! only a share of it for one user, so that no number of slow readers takes all memory.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, Weak},
};

use bytes::Bytes;

use super::{entry::Entry, lock};

/// Lists up to this size are not counted: the bound of connections bounds them well enough.
const SMALL_BYTES: usize = 64 * 1024;
/// What one user has at most of all of it: a half.
const PARTS: usize = 2;

/// The lists that somebody is reading just now.
#[derive(Debug)]
pub struct Lent {
    bound: usize,
    /// By user; each list once, however often they are reading it.
    users: Mutex<HashMap<i64, Vec<Weak<Loan>>>>,
}

/// A list that a user is reading, on one connection or several.
#[derive(Debug)]
struct Loan(Arc<Entry>);

/// The body of a reply, which holds the loan until it is sent or dropped.
struct Copy(Arc<Loan>);

impl AsRef<[u8]> for Copy {
    fn as_ref(&self) -> &[u8] {
        &self.0.0.bytes
    }
}

impl Lent {
    /// None are read yet; at most so many bytes may be at a time.
    pub fn new(bound: usize) -> Self {
        Self { bound, users: Mutex::default() }
    }

    /// The bytes of an entry, to be sent to this user; nothing while too much is on its way to them or to all. One list of
    /// any size a user may always read while there is room for all.
    pub fn lend(&self, user: i64, entry: &Arc<Entry>) -> Option<Bytes> {
        let size = entry.bytes.len();
        if size <= SMALL_BYTES {
            return Some(entry.bytes.clone());
        }
        let mut users = lock(&self.users);
        let same = |loan: &Arc<Loan>| Arc::ptr_eq(&loan.0, entry);
        let own = users.get(&user).into_iter().flatten().filter_map(Weak::upgrade);
        if let Some(loan) = own.into_iter().find(same) {
            return Some(Bytes::from_owner(Copy(loan)));
        }
        users.retain(|_, loans| {
            loans.retain(|loan| loan.strong_count() > 0);
            !loans.is_empty()
        });
        // what several users read is in memory once
        let (mut own, mut all) = (0, HashMap::new());
        for (reader, loans) in &*users {
            for loan in loans.iter().filter_map(Weak::upgrade) {
                let bytes = loan.0.bytes.len();
                own += if *reader == user { bytes } else { 0 };
                all.insert(Arc::as_ptr(&loan.0), bytes);
            }
        }
        all.insert(Arc::as_ptr(entry), size);
        if (own > 0 && own + size > self.bound / PARTS) || all.values().sum::<usize>() > self.bound.max(size) {
            return None;
        }
        let loan = Arc::new(Loan(Arc::clone(entry)));
        users.entry(user).or_default().push(Arc::downgrade(&loan));
        Some(Bytes::from_owner(Copy(loan)))
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::cache::Version;

    fn list(bytes: usize) -> Arc<Entry> {
        let version = Version { number: 1, token: Uuid::nil() };
        Arc::new(Entry::identity(version, vec![b' '; bytes].into(), Arc::default()))
    }

    #[test]
    fn one_user_has_a_share_and_what_many_read_counts_once() {
        let lent = Lent::new(1_000_000);
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
        assert_eq!(lock(&lent.users).len(), 1, "those who read nothing are forgotten");
    }
}
