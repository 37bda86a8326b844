//! The header that names the state of the catalogue that a list shows.

use crate::{
    cache::List,
    http::Response,
    versions::{SyncToken, Version, X_SYNC_TOKEN},
};

/// Adds the sync token of `version` to a response that shows the list of all products. Clients ask for the changes since
/// with it.
pub(super) fn set_sync_token(response: &mut Response, list: &List, version: Version) {
    if list.is_chunked() {
        response.headers_mut().insert(X_SYNC_TOKEN, SyncToken::of(version).header_value());
    }
}
