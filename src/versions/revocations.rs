//! The accounts and revoked tokens that an instance has cached.
//!
//! Every request causes a version read. When a read returns a new version of the accounts, the instance reads the
//! revocations since the last version before any of the waiting requests continues.

use std::{
    future::Future,
    pin::Pin,
    sync::{RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use foldhash::{HashMap, HashSet};
use tokio_postgres::{Client, Row};

use super::{reader::AccountObserver, version::Version};
use crate::{
    db::{DbError, pool::Queryable, statements},
    error::Result,
    sync,
};

/// When more accounts than this are cached, all are dropped.
const MAX_ACCOUNTS: usize = 100_000;

/// The status of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AccountStatus {
    pub(crate) is_active: bool,
    /// Whether the account may change the catalogue.
    pub(crate) is_staff: bool,
    /// Tokens of another generation are revoked.
    pub(crate) generation: i32,
}

/// The revocations up to the last version that was read, and the accounts that have not changed since.
#[derive(Debug, Default)]
pub struct Revocations {
    state: RwLock<State>,
    /// Held while revocations are read and applied: an older result must not overwrite a newer one.
    sync_lock: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    synced_version: Option<Version>,
    /// Ids of tokens and of sessions.
    revoked: HashSet<Box<str>>,
    /// Accounts that have not changed since they were read.
    accounts: HashMap<i64, AccountStatus>,
}

impl Revocations {
    fn read(&self) -> RwLockReadGuard<'_, State> {
        sync::read(&self.state)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        sync::write(&self.state)
    }

    /// Returns whether one of these ids, of a token or of a session, is revoked.
    pub(crate) fn any_revoked<'a>(&self, ids: impl IntoIterator<Item = &'a str>) -> bool {
        let state = self.read();
        !state.revoked.is_empty() && ids.into_iter().any(|id| state.revoked.contains(id))
    }

    /// Returns the account if it is cached and has not changed.
    pub(crate) fn cached_account(&self, user: i64) -> Option<AccountStatus> {
        self.read().accounts.get(&user).copied()
    }

    /// Caches an account that was read at version number `as_of` of the accounts. An account read before the last
    /// synced version is not cached, because it may have changed since.
    pub(crate) fn cache_account(&self, user: i64, account: AccountStatus, as_of: i64) {
        let mut state = self.write();
        if state.synced_version.is_some_and(|synced| as_of >= synced.number) {
            if state.accounts.len() >= MAX_ACCOUNTS {
                state.accounts.clear();
            }
            state.accounts.insert(user, account);
        }
    }

    /// Makes the next version read reload all revocations, which drops the expired ones from memory.
    pub fn invalidate(&self) {
        self.write().synced_version = None;
    }

    async fn sync_with(&self, client: &Client, accounts: Version, reconnected: bool) -> Result<(), DbError> {
        if !reconnected && self.read().synced_version == Some(accounts) {
            return Ok(());
        }
        let _guard = self.sync_lock.lock().await;
        let synced = self.read().synced_version.filter(|_| !reconnected);
        let since = synced.map_or(-1, |synced| synced.number);
        let rows = client.rows(&statements::REVOCATIONS_SINCE, &[&since]).await?;
        self.write().apply(since, &rows);
        Ok(())
    }
}

impl State {
    fn apply(&mut self, since: i64, rows: &[Row]) {
        let Some(first) = rows.first() else { return };
        let version = Version { number: first.get("version"), token: first.get("token") };
        let pruned_through: i64 = first.get("pruned_through");
        // with a gap between `since` and the rows, nothing cached is reliable
        if since < pruned_through || since < 0 {
            self.accounts.clear();
            self.revoked.clear();
        }
        for row in rows {
            let seq: Option<i64> = row.get("seq");
            if seq.is_none() {
                continue;
            }
            match (row.get::<_, Option<&str>>("token_id"), row.get::<_, Option<i64>>("user_id")) {
                (Some(id), _) => drop(self.revoked.insert(Box::from(id))),
                (None, Some(user)) => drop(self.accounts.remove(&user)),
                (None, None) => self.accounts.clear(),
            }
        }
        self.synced_version = Some(version);
    }
}

impl AccountObserver for Revocations {
    fn sync<'a>(
        &'a self,
        client: &'a Client,
        accounts: Version,
        reconnected: bool,
    ) -> Pin<Box<dyn Future<Output = Result<(), DbError>> + Send + 'a>> {
        Box::pin(self.sync_with(client, accounts, reconnected))
    }
}
