//! The accounts and tokens that an instance has verified.
//!
//! An instance looks an account and a token up when it sees them for the first time, and caches that they are valid.
//! Every request causes a version read. When a read returns a new version of the accounts, the instance reads the
//! revocations since the last version before any of the waiting requests continues. Revocations from before the
//! instance has looked a token up need not be read, so memory and the time to start do not depend on their number.

use std::{
    future::Future,
    pin::Pin,
    sync::{RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use foldhash::{HashMap, HashSet};
use tokio_postgres::{Client, Row};
use uuid::Uuid;

use super::{connection::AccountObserver, version::Version};
use crate::{
    db::{DbError, pool::Queryable, statements},
    error::Result,
    sync,
};

/// When more accounts or verified tokens than this are cached, all are dropped. A token takes about 80 bytes.
const MAX_ACCOUNTS: usize = 100_000;
const MAX_TOKENS: usize = 200_000;
/// When more revoked ids than this are known, they and all verified tokens are dropped.
const MAX_REVOKED: usize = 100_000;

/// The status of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AccountStatus {
    pub(crate) is_active: bool,
    /// Whether the account may change the catalogue.
    pub(crate) is_staff: bool,
    /// Tokens of another generation are revoked.
    pub(crate) generation: i32,
}

/// The accounts and tokens that were valid at the last version that was read.
#[derive(Debug, Default)]
pub struct Revocations {
    state: RwLock<State>,
    /// Held while revocations are read and applied: an older result must not overwrite a newer one.
    sync_lock: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    synced_version: Option<Version>,
    /// Counts how often everything was dropped: what was read before may belong to another history.
    epoch: u64,
    /// Ids of tokens and of sessions, revoked since the token was verified.
    revoked: HashSet<Box<str>>,
    /// Ids of tokens that were not revoked when they were looked up.
    verified: HashSet<Box<str>>,
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

    /// Returns the account if it is cached and has not changed, and the token has been verified.
    pub(crate) fn cached_account(&self, user: i64, token: &str) -> Option<AccountStatus> {
        let state = self.read();
        if state.verified.contains(token) { state.accounts.get(&user).copied() } else { None }
    }

    /// Returns the epoch for [`Revocations::cache_verified`], before the lookup.
    pub(crate) fn epoch(&self) -> u64 {
        self.read().epoch
    }

    /// Caches an account and a token of it that is not revoked, both looked up at version number `as_of` of the
    /// accounts. What was looked up before the last synced version is not cached, because it may have changed since.
    pub(crate) fn cache_verified(&self, user: i64, token: &str, account: AccountStatus, (as_of, epoch): (i64, u64)) {
        let mut state = self.write();
        if state.epoch != epoch || state.synced_version.is_none_or(|synced| as_of < synced.number) {
            return;
        }
        if state.accounts.len() >= MAX_ACCOUNTS {
            state.accounts.clear();
        }
        if state.verified.len() >= MAX_TOKENS {
            state.verified.clear();
        }
        state.accounts.insert(user, account);
        state.verified.insert(Box::from(token));
    }

    /// Caches that a token is revoked, so that no further request looks it up.
    pub(crate) fn cache_revoked(&self, token: &str) {
        self.write().revoke(token);
    }

    async fn sync_with(&self, client: &Client, accounts: Version, reconnected: bool) -> Result<(), DbError> {
        if !reconnected && self.read().synced_version == Some(accounts) {
            return Ok(());
        }
        let _guard = self.sync_lock.lock().await;
        let synced = self.read().synced_version.filter(|_| !reconnected);
        let (number, token) = synced.map_or((-1, Uuid::nil()), |synced| (synced.number, synced.token));
        let rows = client.rows(&statements::REVOCATIONS_SINCE, &[&number, &token]).await?;
        self.write().apply(&rows);
        Ok(())
    }
}

impl State {
    fn apply(&mut self, rows: &[Row]) {
        let Some(first) = rows.first() else { return };
        let version = Version { number: first.get("version"), token: first.get("token") };
        // with a gap between the last version and the rows, nothing cached is reliable
        if !first.get::<_, bool>("is_continuous") {
            self.epoch += 1;
            self.accounts.clear();
            self.revoked.clear();
            self.verified.clear();
        }
        for row in rows {
            let seq: Option<i64> = row.get("seq");
            if seq.is_none() {
                continue;
            }
            match (row.get::<_, Option<&str>>("token_id"), row.get::<_, Option<i64>>("user_id")) {
                (Some(id), _) => self.revoke(id),
                (None, Some(user)) => drop(self.accounts.remove(&user)),
                (None, None) => self.accounts.clear(),
            }
        }
        self.synced_version = Some(version);
    }

    fn revoke(&mut self, id: &str) {
        if self.revoked.len() >= MAX_REVOKED {
            // every token is looked up again
            self.revoked.clear();
            self.verified.clear();
        }
        self.revoked.insert(Box::from(id));
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
