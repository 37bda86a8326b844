//! Waits for the next changes, for at most the time that the client prefers.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{
    page::{empty_page, read_verified_page, shared_page},
    params::DEFAULT_LIMIT,
};
use crate::{
    app::App,
    auth::User,
    cache::{ChangePage, FoundPage},
    error::Result,
    limits::Client,
    versions::{SyncToken, Version},
};

/// A request that waits for changes.
pub(super) struct Waiting<'a> {
    pub(super) app: &'a App,
    pub(super) user: &'a User,
    pub(super) client: Client,
    /// The state of a version.
    pub(super) since: SyncToken,
    pub(super) limit: i64,
}

impl Waiting<'_> {
    /// Returns the next page that names a product; after `wait`, and when the server stops, an empty one. Returns `None`
    /// if the changes are not known.
    pub(super) async fn next_page(mut self, wait: Duration) -> Result<FoundPage> {
        let app = self.app;
        let _permit = app.listener_permit(self.client)?;
        let mut accounts = self.user.versions.versions().accounts;
        let (mut updates, mut stop) = (app.version_watch.subscribe(), app.stop_signal());
        let deadline = Instant::now() + wait.min(self.user.claims.remaining_lifetime());
        loop {
            let versions = *updates.borrow_and_update();
            if let Some(versions) = versions
                && versions.accounts != accounts
            {
                app.authenticator.check_again(self.user).await?;
                accounts = versions.accounts;
            }
            if versions.is_some_and(|versions| is_later(versions.catalogue, self.since.since)) {
                let page = self.read().await?;
                app.authenticator.check_again(self.user).await?;
                match page {
                    Some(page) if page.is_empty => self.since = page.token,
                    page => return Ok(page),
                }
                continue;
            }
            tokio::select! {
                _ = updates.changed() => {}
                () = stopped(&mut stop) => return Ok(Some(self.unchanged())),
                () = sleep_until(deadline) => {
                    app.authenticator.check_again(self.user).await?;
                    return Ok(Some(self.unchanged()));
                }
            }
        }
    }

    async fn read(&self) -> Result<FoundPage> {
        if self.limit >= DEFAULT_LIMIT {
            return shared_page(self.app, self.client, self.since).await;
        }
        read_verified_page(self.app, self.client, self.since, self.limit).await
    }

    fn unchanged(&self) -> Arc<ChangePage> {
        Arc::new(empty_page(self.since))
    }
}

/// Completes when the server stops.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Returns whether a version that has been read shows changes after `known`. A version that was read before `known` was
/// committed does not.
pub(super) fn is_later(version: Version, known: Version) -> bool {
    version.number > known.number || (version.number == known.number && version.token != known.token)
}
