//! Pages of changes: what a client with a sync token does not have yet.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use prometheus_client::metrics::counter::Counter;

use super::single_flight::SingleFlight;
use crate::{error::Result, sync::lock, versions::SyncToken};

/// A page of changes.
#[derive(Debug)]
pub(crate) struct ChangePage {
    /// What the client has before it applies the page.
    pub(crate) since: SyncToken,
    /// What the client has afterwards.
    pub(crate) token: SyncToken,
    /// Whether there are changes after this page.
    pub(crate) has_more: bool,
    /// Whether the page names no product.
    pub(crate) is_empty: bool,
    /// The JSON object, a part of `event`.
    pub(crate) json: Bytes,
    /// The page as an event of a stream.
    pub(crate) event: Bytes,
}

/// A page, or `None` if the changes since the token are not known.
pub(crate) type FoundPage = Option<Arc<ChangePage>>;

/// The pages that listeners share: those being read, and the latest one.
#[derive(Debug, Default)]
pub(crate) struct ChangePages {
    in_flight: SingleFlight<SyncToken, FoundPage>,
    latest: Arc<Mutex<FoundPage>>,
    pub(crate) counters: ChangeCounters,
}

#[derive(Debug, Default)]
pub(crate) struct ChangeCounters {
    /// Pages read from the database.
    pub(crate) pages: Counter,
    /// Requests and streams with a token whose changes are not known.
    pub(crate) expired_tokens: Counter,
    /// Events sent with changes.
    pub(crate) events: Counter,
}

impl ChangePages {
    /// Returns the page after `since`: the latest one, one that is being read, or a new one that `read` returns.
    ///
    /// The page need not reach the present version.
    pub(crate) async fn get_or_read<F>(&self, since: SyncToken, read: impl FnOnce() -> F) -> Result<FoundPage>
    where
        F: Future<Output = Result<FoundPage>> + Send + 'static,
    {
        if let Some(page) = self.latest(since) {
            return Ok(Some(page));
        }
        let latest = Arc::clone(&self.latest);
        let work = || {
            let reading = read();
            async move {
                let page = reading.await?;
                if let Some(page) = &page {
                    replace_if_later(&latest, page);
                }
                Ok(page)
            }
        };
        self.in_flight.run(since, work).await
    }

    /// Returns the latest page, if it begins at `since`.
    pub(crate) fn latest(&self, since: SyncToken) -> FoundPage {
        lock(&self.latest).clone().filter(|page| page.since == since)
    }
}

/// Stores a page that reaches a later version. A page of a client that is behind replaces none that the others need.
fn replace_if_later(latest: &Mutex<FoundPage>, page: &Arc<ChangePage>) {
    let mut latest = lock(latest);
    let is_complete = page.token.page.is_none();
    if is_complete && latest.as_ref().is_none_or(|latest| latest.token.since != page.token.since) {
        *latest = Some(Arc::clone(page));
    }
}
