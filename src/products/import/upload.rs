//! A file to import, with the conditions of its request.

use std::sync::Arc;

use super::content::Content;
use crate::{http::response::IfMatch, limits::ImportPool, products::idempotency::Key};

/// A file to import.
pub(crate) struct Upload {
    pub(crate) content: Content,
    /// Entity tags of exports. The import fails with 412 if the catalogue has changed since. `*` is always true.
    pub(crate) if_match: Option<IfMatch>,
    /// The key with which a repetition of the request gets the first response again.
    pub(crate) key: Option<Key>,
    /// The memory that this import shares with the others of the process.
    pub(crate) memory: Arc<ImportPool>,
}
