//! The latest chunked list: the list of all products. The next version is built from it.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering::SeqCst},
};

use hyper::header::HeaderValue;

use super::{
    chunks::ChunkedList,
    entry::{Entry, Headers},
};
use crate::{
    http::{Representation, etag::etag},
    sync::lock,
    versions::{SyncToken, Version},
};

/// A chunked list of one version.
#[derive(Debug)]
pub(crate) struct ChunkedEntry {
    pub(crate) version: Version,
    pub(crate) list: Arc<ChunkedList>,
    identity_etag: HeaderValue,
    gzip_etag: HeaderValue,
    /// The value of `X-Sync-Token`.
    pub(crate) sync_token: HeaderValue,
}

impl ChunkedEntry {
    pub(crate) fn new(version: Version, list: Arc<ChunkedList>) -> Self {
        let etag = |representation| etag(&list.content_id, representation);
        let (identity_etag, gzip_etag) = (etag(Representation::Identity), etag(Representation::Gzip));
        Self { version, list, identity_etag, gzip_etag, sync_token: SyncToken::of(version).header_value() }
    }

    pub(crate) fn etag(&self, representation: Representation) -> &HeaderValue {
        match representation {
            Representation::Identity => &self.identity_etag,
            Representation::Gzip => &self.gzip_etag,
        }
    }

    /// Returns the entry with the compressed chunks only.
    pub(super) fn without_json(&self) -> Self {
        Self::new(self.version, Arc::new(ChunkedList::new(self.list.chunks().to_vec(), 0)))
    }

    /// Whether the list is one chunk with its JSON, so that one piece of memory can hold its body.
    pub(crate) fn is_small(&self) -> bool {
        self.list.chunks().len() <= 1 && self.list.has_json()
    }

    /// Returns the memory that the cache needs for the list: that of the chunks, and that of the entries of a small one.
    pub(super) fn memory_bytes(&self) -> usize {
        if self.is_small() { self.list.memory_bytes() * 2 } else { self.list.memory_bytes() }
    }

    /// Returns a small list as an entry, with its bytes in one piece.
    pub(crate) fn to_entry(&self, representation: Representation) -> Entry {
        let chunks = self.list.body_chunks(representation).into_iter().cloned().collect();
        let parts: Vec<_> = self.list.body(representation, chunks).filter_map(Result::ok).collect();
        let bytes = parts.concat().into();
        Entry::new(self.version, representation, self.list.content_id, bytes, Headers::default())
    }
}

/// The latest list, and the order of its fills.
#[derive(Debug, Default)]
pub(super) struct LatestList {
    filled: Mutex<Option<Filled>>,
    /// Held by the fill that runs: the next one starts from its result.
    fill: tokio::sync::Mutex<()>,
    /// Incremented by each request that waits for a fill.
    requests: AtomicU64,
}

/// The result of a fill.
#[derive(Debug, Clone)]
struct Filled {
    entry: Arc<ChunkedEntry>,
    /// The number of requests that waited when the fill began.
    requests: u64,
    /// Whether the list shows the state of the primary when the fill began, or a later one.
    is_current: bool,
}

/// The result of [`LatestList::begin_fill`].
pub(super) enum Turn<'a> {
    /// Another fill has loaded the list.
    Filled(Arc<ChunkedEntry>),
    /// The caller fills the list while it holds this.
    Fill(FillTurn<'a>),
}

/// The right to fill the list.
pub(super) struct FillTurn<'a> {
    latest: &'a LatestList,
    requests: u64,
    _guard: tokio::sync::MutexGuard<'a, ()>,
}

impl LatestList {
    /// Returns the latest list, whatever its version.
    pub(super) fn get(&self) -> Option<Arc<ChunkedEntry>> {
        lock(&self.filled).as_ref().map(|filled| Arc::clone(&filled.entry))
    }

    /// Returns the list of exactly this version.
    pub(super) fn get_version(&self, version: Version) -> Option<Arc<ChunkedEntry>> {
        self.get().filter(|entry| entry.version == version)
    }

    /// Waits for its turn to fill the list, one fill at a time. A request that reads `version` from the database before
    /// this call accepts a list of exactly this version, and every list that a later fill read from the primary.
    pub(super) async fn begin_fill(&self, version: Version) -> Turn<'_> {
        let request = self.requests.fetch_add(1, SeqCst);
        let guard = self.fill.lock().await;
        let filled = lock(&self.filled).clone();
        let is_fresh =
            |filled: &Filled| filled.entry.version == version || (filled.is_current && filled.requests > request);
        match filled.filter(is_fresh) {
            Some(filled) => Turn::Filled(filled.entry),
            None => Turn::Fill(FillTurn { latest: self, requests: self.requests.load(SeqCst), _guard: guard }),
        }
    }
}

impl FillTurn<'_> {
    /// Stores the list. `is_current` states that its snapshot was opened on the primary during this turn.
    pub(super) fn store(self, entry: Arc<ChunkedEntry>, is_current: bool) {
        *lock(&self.latest.filled) = Some(Filled { entry, requests: self.requests, is_current });
    }

    /// Drops the list that is stored.
    pub(super) fn clear(self) {
        *lock(&self.latest.filled) = None;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use uuid::Uuid;

    use super::*;

    fn version(number: u8) -> Version {
        Version { number: number.into(), token: Uuid::from_u128(number.into()) }
    }

    fn entry(number: u8) -> Arc<ChunkedEntry> {
        Arc::new(ChunkedEntry::new(version(number), Arc::new(ChunkedList::new(Vec::new(), usize::MAX))))
    }

    fn begin(latest: &LatestList, number: u8) -> Turn<'_> {
        latest.begin_fill(version(number)).now_or_never().expect("no other fill runs")
    }

    fn turn(turn: Turn<'_>) -> FillTurn<'_> {
        match turn {
            Turn::Fill(turn) => turn,
            Turn::Filled(entry) => panic!("version {} instead of a turn", entry.version.number),
        }
    }

    fn filled(turn: Turn<'_>) -> i64 {
        match turn {
            Turn::Filled(entry) => entry.version.number,
            Turn::Fill(_) => panic!("another fill"),
        }
    }

    #[test]
    fn a_fill_serves_the_requests_that_waited_when_it_began() {
        let latest = LatestList::default();
        let first = turn(begin(&latest, 1));
        let waiting: Vec<_> = [2, 2, 3].map(|number| Box::pin(latest.begin_fill(version(number)))).into();
        let mut waiting = waiting
            .into_iter()
            .map(|mut request| {
                assert!(request.as_mut().now_or_never().is_none(), "one fill at a time");
                request
            })
            .collect::<Vec<_>>()
            .into_iter();
        // the first fill began before these requests: its list may lack what they must see
        first.store(entry(1), true);
        let second = turn(waiting.next().unwrap().now_or_never().unwrap());
        let late = &mut Box::pin(latest.begin_fill(version(4)));
        assert!(late.now_or_never().is_none());
        second.store(entry(3), true);
        assert_eq!(waiting.map(|request| filled(request.now_or_never().unwrap())).collect::<Vec<_>>(), [3, 3]);
        let late = turn(late.now_or_never().unwrap());
        late.store(entry(4), false);
        assert_eq!(filled(begin(&latest, 4)), 4, "exactly the version that the request read");
        drop(turn(begin(&latest, 5)));
    }

    #[test]
    fn a_list_of_a_replica_serves_its_version_only() {
        let latest = LatestList::default();
        let first = turn(begin(&latest, 1));
        let [second, third] = [2, 3].map(|number| Box::pin(latest.begin_fill(version(number))));
        let mut waiting = [second, third];
        assert!(waiting.iter_mut().all(|request| request.as_mut().now_or_never().is_none()));
        drop(first);
        let [second, third] = waiting;
        turn(second.now_or_never().unwrap()).store(entry(2), false);
        drop(turn(third.now_or_never().unwrap()));
        assert_eq!(latest.get_version(version(2)).map(|entry| entry.version.number), Some(2));
        assert!(latest.get_version(version(3)).is_none());
    }
}
