//! Reads a page of changes from one snapshot.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join;

use super::params::DEFAULT_LIMIT;
use crate::{
    app::App,
    cache::{ChangePage, Collection, FillLimit, FillPermit, FoundPage, List, ListBuffer},
    db::{Database, Transaction, TxError, statements::PRODUCTS_CHANGED},
    error::{Error, Result},
    limits::{Client, PERMIT_TIMEOUT},
    lists::snapshot::BEGIN_SNAPSHOT_SQL,
    products::changed::{ChangeRange, ChangedProducts, Changes},
    versions::{PageEnd, SyncToken, Version, VersionRead},
};

/// A page ends before the product with which its JSON would be larger than this. One product may be.
const MAX_PAGE_BYTES: usize = 4 << 20;

/// Reads the page after `since` of at most `max_products` products from the primary. Returns `None` if the log of changes does
/// not know them.
///
/// The pages of one client come from snapshots in the order in which it asks. A replica may show an earlier one.
pub(super) async fn read_page(
    app: &App,
    client: Client,
    since: SyncToken,
    max_products: i64,
) -> Result<Option<(ChangePage, Option<FillPermit>)>> {
    let permit = app.fill_permits.acquire(client, PERMIT_TIMEOUT).await;
    let _permit = permit.ok_or_else(|| Error::unavailable("too many concurrent reads of changes"))?;
    app.change_pages.counters.pages.inc();
    let limit = app.cache.fill_limit(&List { collection: Collection::Products, query: "changes".into() });
    let range = ChangeRange {
        since: since.since,
        until: since.page.map(|page| page.until),
        after_id: since.page.map_or(i64::MIN, |page| page.after_id),
        max_products,
        is_page: true,
    };
    let database = &app.database;
    let read = match read_range(database, range, limit.clone()).await {
        Err(TxError::Db(error)) if database.should_retry(&error) => read_range(database, range, limit).await?,
        outcome => outcome?,
    };
    Ok(read.map(|read| read.into_page(since)))
}

/// Returns the page after `since` as all listeners get it, see [`read_verified_page`].
pub(super) async fn shared_page(app: &App, client: Client, since: SyncToken) -> Result<FoundPage> {
    let read = || {
        let app = app.shared();
        async move { read_verified_page(&app, client, since, DEFAULT_LIMIT).await }
    };
    app.change_pages.get_or_read(since, read).await
}

/// Reads the page after `since`, and then the versions: revocations that were committed before any change in the page are
/// known when this returns.
pub(super) async fn read_verified_page(
    app: &App,
    client: Client,
    since: SyncToken,
    max_products: i64,
) -> Result<FoundPage> {
    let page = read_page(app, client, since, max_products).await?;
    match app.authenticator.version_reader.current().await? {
        VersionRead::Verified(_) => Ok(page.map(|(page, _)| Arc::new(page))),
        VersionRead::Stale(_) => Err(Error::unavailable("revocations cannot be verified")),
    }
}

/// The changes of a part of a range.
struct ReadRange {
    range: ChangeRange,
    /// The version that the snapshot shows.
    current: Version,
    /// The JSON of products, with commas between them.
    changed: ListBuffer,
    deleted: Vec<i64>,
    /// The part has the changes up to this id, if the range has changed further products.
    last_id: Option<i64>,
}

async fn read_range(database: &Database, range: ChangeRange, limit: FillLimit) -> Result<Option<ReadRange>, TxError> {
    let transaction = Transaction::acquire(database, &[&PRODUCTS_CHANGED]).await?;
    // pipelined: one round trip
    let reading = Changes::read(transaction.connection(), range);
    let (begun, changes) = join(transaction.run_command(BEGIN_SNAPSHOT_SQL), reading).await;
    begun?;
    let Changes { current, products } = changes?;
    let mut read =
        ReadRange { range, current, changed: limit.buffer(MAX_PAGE_BYTES), deleted: Vec::new(), last_id: None };
    let is_known = products.is_some();
    if let Some(products) = products
        && !read.read_products(products).await?
    {
        // the transaction is dropped, which closes the connection: reading the remaining rows costs more
        return Ok(Some(read));
    }
    transaction.end_read();
    Ok(is_known.then_some(read))
}

impl ReadRange {
    /// Reads the products. Returns whether all of them are within the limit.
    async fn read_products(&mut self, mut products: ChangedProducts) -> Result<bool, TxError> {
        while let Some(changed) = products.next().await? {
            if products.has_more {
                self.last_id = Some(changed.id());
            }
            let Some(product) = changed.product() else {
                self.deleted.push(changed.id());
                continue;
            };
            let start = self.changed.json.len();
            if start > 0 {
                self.changed.json.push(b',');
            }
            product.write_json(&mut self.changed.json);
            if !self.changed.fits().await? && start > 0 {
                self.changed.json.truncate(start);
                self.last_id = Some(product.id - 1);
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns the page, with the permit of a large one.
    fn into_page(self, since: SyncToken) -> (ChangePage, Option<FillPermit>) {
        let until = self.range.until.unwrap_or(self.current);
        let token = match self.last_id {
            Some(after_id) => SyncToken { since: self.range.since, page: Some(PageEnd { until, after_id }) },
            None => SyncToken::of(until),
        };
        let has_more = token != SyncToken::of(self.current);
        // a mutant for the tests: like most feeds of changes, it knows only the rows that are there
        #[cfg(feature = "forgetful-feed")]
        let deleted = &[];
        #[cfg(not(feature = "forgetful-feed"))]
        let deleted = &self.deleted;
        let page = render_page(since, token, &self.changed.json, deleted, has_more);
        (page, self.changed.into_permit())
    }
}

/// Returns the page of a client that has the present state.
pub(super) fn empty_page(token: SyncToken) -> ChangePage {
    render_page(token, token, b"", &[], false)
}

/// Renders the page as an event, whose data is the JSON object.
fn render_page(since: SyncToken, token: SyncToken, changed: &[u8], deleted: &[i64], has_more: bool) -> ChangePage {
    let text = token.encode();
    let mut event = Vec::with_capacity(changed.len() + deleted.len() * 8 + 512);
    event.extend_from_slice(format!("id: {text}\nevent: changes\ndata: ").as_bytes());
    let start = event.len();
    event.extend_from_slice(format!("{{\"token\":\"{text}\",\"changed\":[").as_bytes());
    event.extend_from_slice(changed);
    event.extend_from_slice(b"],\"deleted\":[");
    let mut number = itoa::Buffer::new();
    for (index, id) in deleted.iter().enumerate() {
        if index > 0 {
            event.push(b',');
        }
        event.extend_from_slice(number.format(*id).as_bytes());
    }
    event.push(b']');
    if has_more {
        event.extend_from_slice(b",\"more\":true");
    }
    event.push(b'}');
    let end = event.len();
    event.extend_from_slice(b"\n\n");
    let event = Bytes::from(event);
    let (json, is_empty) = (event.slice(start..end), changed.is_empty() && deleted.is_empty());
    ChangePage { since, token, has_more, is_empty, json, event }
}
