//! What the cache and the stream need of a list.

use std::time::Duration;

use super::{
    load::{RowList, WriteRow},
    snapshot::{ReadSources, Snapshot},
};
use crate::{
    cache::{FillLimit, FillResult, Previous},
    db::{Database, TxError},
    error::Result,
    versions::Version,
};

/// A list that [`serve`](super::serve) can serve.
pub(crate) trait ListSource: Clone + Send + Sync + 'static {
    /// The statement and the rendering of its rows.
    fn rows(&self) -> RowList<impl WriteRow>;

    /// Loads the list at `version` or, from the primary, at a later version.
    ///
    /// `previous` is the latest version of a list that is kept in chunks.
    fn load(
        self,
        sources: ReadSources,
        version: Version,
        limit: FillLimit,
        previous: Previous,
    ) -> impl Future<Output = Result<FillResult>> + Send + 'static;

    /// Opens a snapshot of the current state, to stream the rows of a list that is larger than the limit. `timeout`
    /// limits the statement.
    fn open(&self, database: &Database, timeout: Duration) -> impl Future<Output = Result<Snapshot, TxError>> + Send;
}
