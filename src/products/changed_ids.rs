//! The products that differ between two versions of the catalogue, from the log of its changes.

use crate::{
    db::{TxError, pool::Queryable, statements::PRODUCTS_CHANGED_IDS},
    error::{Error, Result},
    versions::Version,
};

/// What to read from the log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChangeRange {
    /// The version before the changes.
    pub(crate) since: Version,
    /// The last version of the range; `None` is that of the snapshot.
    pub(crate) until: Option<Version>,
    /// Only products with larger ids.
    pub(crate) after_id: i64,
    pub(crate) max_ids: i64,
}

/// The products that a range of versions has changed or deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ChangedIds {
    /// Ordered, at most [`ChangeRange::max_ids`].
    pub(crate) ids: Vec<i64>,
    /// Whether the range has changed further products.
    pub(crate) has_more: bool,
}

/// Reads the changes of a range in the open snapshot. Returns `None` if the log does not know them: it has been pruned,
/// it is of another history, or too much has changed at once.
pub(crate) async fn read_changed_ids(
    connection: &impl Queryable,
    range: ChangeRange,
) -> Result<Option<ChangedIds>, TxError> {
    #[cfg(feature = "trust-pruned-log")]
    let range = ChangeRange { since: oldest_known(connection, range.since).await?, ..range };
    let ChangeRange { since, until, after_id, max_ids } = range;
    let (until_number, until_token) = (until.map(|version| version.number), until.map(|version| version.token));
    let rows = connection
        .rows(
            &PRODUCTS_CHANGED_IDS,
            // one more shows whether there are any
            &[&since.number, &since.token, &until_number, &until_token, &after_id, &(max_ids + 1)],
        )
        .await?;
    let row = rows.first().ok_or_else(|| Error::internal("products/changed_ids returned no row"))?;
    if !row.get::<_, bool>("is_known") {
        return Ok(None);
    }
    let mut ids: Vec<i64> = row.get("ids");
    let max_ids = usize::try_from(max_ids).unwrap_or(usize::MAX);
    let has_more = ids.len() > max_ids;
    ids.truncate(max_ids);
    Ok(Some(ChangedIds { ids, has_more }))
}

/// A mutant for the tests: a version that is missing from the log counts as the oldest one in it, so the changes of
/// pruned versions are missed.
#[cfg(feature = "trust-pruned-log")]
async fn oldest_known(connection: &impl Queryable, version: Version) -> Result<Version, TxError> {
    let sql = "select version, token from catalogue_versions where version >= $1 order by version limit 1";
    let row = connection.client().query_one(sql, &[&version.number]).await.map_err(Error::internal)?;
    Ok(Version { number: row.get(0), token: row.get(1) })
}
