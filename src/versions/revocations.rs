//! What an instance knows about accounts and dead tokens, kept exact by the version read that every request makes:
//! when the accounts' version has moved, the feed is read before any of those requests goes on.

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

/// What an account may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AccountStatus {
    /// Whether it may do anything at all.
    pub(crate) is_active: bool,
    /// Whether it may keep the catalogue.
    pub(crate) is_staff: bool,
    /// Tokens of another generation are dead.
    pub(crate) generation: i32,
}

/// The state of the feed as far as it was read.
#[derive(Debug, Default)]
pub struct Revocations {
    state: RwLock<State>,
    /// One at a time asks the feed and applies its answer: a late answer must not undo a later one.
    following: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    applied: Option<Version>,
    /// Ids of tokens and of sessions.
    revoked: HashSet<Box<str>>,
    /// Accounts about which nothing has changed since they were read.
    known: HashMap<i64, AccountStatus>,
}

/// So many accounts are remembered; then all are read anew.
const MAX_KNOWN: usize = 100_000;

impl Revocations {
    fn read(&self) -> RwLockReadGuard<'_, State> {
        sync::read(&self.state)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        sync::write(&self.state)
    }

    /// Whether one of these ids, of a token or a session, was revoked.
    pub(crate) fn any_revoked<'a>(&self, ids: impl IntoIterator<Item = &'a str>) -> bool {
        let state = self.read();
        !state.revoked.is_empty() && ids.into_iter().any(|id| state.revoked.contains(id))
    }

    /// An account that was read before, if nothing has changed about it.
    pub(crate) fn known(&self, user: i64) -> Option<AccountStatus> {
        self.read().known.get(&user).copied()
    }

    /// Remembers an account that was read when the accounts' version was `as_of`; not if the feed has been read further
    /// since then, for it may have told of this very account.
    pub(crate) fn remember(&self, user: i64, account: AccountStatus, as_of: i64) {
        let mut state = self.write();
        if state.applied.is_some_and(|applied| as_of >= applied.number) {
            if state.known.len() >= MAX_KNOWN {
                state.known.clear();
            }
            state.known.insert(user, account);
        }
    }

    /// Reads everything anew at the next occasion: what has expired is forgotten.
    pub fn start_over(&self) {
        self.write().applied = None;
    }

    async fn follow(&self, client: &Client, accounts: Version, reconnected: bool) -> Result<(), DbError> {
        if !reconnected && self.read().applied == Some(accounts) {
            return Ok(());
        }
        let _alone = self.following.lock().await;
        let applied = self.read().applied.filter(|_| !reconnected);
        let since = applied.map_or(-1, |applied| applied.number);
        let rows = client.rows(&statements::REVOCATIONS_SINCE, &[&since]).await?;
        self.write().apply(since, &rows);
        Ok(())
    }
}

impl State {
    fn apply(&mut self, since: i64, rows: &[Row]) {
        let Some(first) = rows.first() else { return };
        let version = Version { number: first.get(0), token: first.get(1) };
        let pruned_through: i64 = first.get(2);
        // without what lies between, nothing that was known can be relied on
        if since < pruned_through || since < 0 {
            self.known.clear();
            self.revoked.clear();
        }
        for row in rows {
            match (row.get::<_, Option<i64>>(3), row.get::<_, Option<&str>>(4), row.get::<_, Option<i64>>(5)) {
                (None, ..) => {}
                (Some(_), Some(id), _) => drop(self.revoked.insert(id.into())),
                (Some(_), None, Some(user)) => drop(self.known.remove(&user)),
                (Some(_), None, None) => self.known.clear(),
            }
        }
        self.applied = Some(version);
    }
}

impl AccountObserver for Revocations {
    fn catch_up<'a>(
        &'a self,
        client: &'a Client,
        accounts: Version,
        reconnected: bool,
    ) -> Pin<Box<dyn Future<Output = Result<(), DbError>> + Send + 'a>> {
        Box::pin(self.follow(client, accounts, reconnected))
    }
}
