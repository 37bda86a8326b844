//! Whether the schema of the database works with this program, for `/readyz`.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use super::{Database, migrate, schema::Schema};
use crate::sync::lock;

/// A schema that works with this program is compared again after this time.
const RECHECK_INTERVAL: Duration = Duration::from_secs(60);
/// The time of a comparison with its connection.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Remembers the last comparison with a usable schema, so that a probe usually costs no statement.
#[derive(Debug, Default)]
pub(crate) struct SchemaMonitor {
    usable_since: Mutex<Option<Instant>>,
}

impl SchemaMonitor {
    /// Returns whether the schema works with this program. A schema that cannot be read counts as usable: the version
    /// reads show whether the database is available.
    pub(crate) async fn is_usable(&self, database: &Database) -> bool {
        if lock(&self.usable_since).is_some_and(|since| since.elapsed() < RECHECK_INTERVAL) {
            return true;
        }
        let compared = async {
            let mut client = database.dedicated().await.ok()?;
            migrate::schema(&mut client).await.ok()
        };
        match tokio::time::timeout(TIMEOUT, compared).await {
            Ok(Some(Schema::UpToDate | Schema::Newer(_))) => {
                *lock(&self.usable_since) = Some(Instant::now());
                true
            }
            Ok(Some(_)) => false,
            Ok(None) | Err(_) => true,
        }
    }
}
