//! A listener: the state of one event stream.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{
    page::{empty_page, shared_page},
    wait::{is_later, stopped},
};
use crate::{
    app::App,
    auth::User,
    error::{Error, Result},
    http::body::LiveStream,
    limits::{Client, Permit},
    versions::{SyncToken, Version, Versions},
};

/// Proxies and clients take a connection without any byte for broken.
const COMMENT_INTERVAL: Duration = Duration::from_secs(15);
const COMMENT: &[u8] = b":\n\n";
/// After how many milliseconds a client connects again.
const RETRY: &str = "retry: 2000\n";
/// The pause before another attempt when the changes could not be read.
const ATTEMPT_INTERVAL: Duration = Duration::from_secs(1);
/// A version read that shows an earlier version than the client has began before that version was committed. After this
/// time it shows another history.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a stream begins.
#[derive(Debug, Clone, Copy)]
pub(super) enum Start {
    /// At the version that was read for the request.
    AtPresent,
    After(SyncToken),
    /// The client sent a token that names no state.
    Expired,
}

pub(super) struct Listener {
    app: Arc<App>,
    user: User,
    client: Client,
    /// What the client has.
    position: SyncToken,
    position_since: Instant,
    /// The version of the accounts at which the caller was last checked.
    accounts: Version,
    updates: watch::Receiver<Option<Versions>>,
    stop: watch::Receiver<bool>,
    next_comment: Instant,
    next_attempt: Option<Instant>,
    /// What to send next.
    queued: Option<Bytes>,
    is_expired: bool,
    _permit: Permit,
}

impl Listener {
    pub(super) fn new(app: Arc<App>, user: User, client: Client, start: Start, permit: Permit) -> Self {
        let versions = *user.versions.versions();
        let present = SyncToken::of(versions.catalogue);
        let first = match start {
            // its token is that of the state from which the stream continues
            Start::AtPresent => [RETRY.as_bytes(), &empty_page(present).event].concat(),
            Start::After(_) => [RETRY.as_bytes(), b"\n"].concat(),
            Start::Expired => [RETRY.as_bytes(), b"\n", &expired_event(&app)].concat(),
        };
        let now = Instant::now();
        Self {
            updates: app.version_watch.subscribe(),
            stop: app.stop_signal(),
            position: if let Start::After(token) = start { token } else { present },
            position_since: now,
            accounts: versions.accounts,
            next_comment: now + COMMENT_INTERVAL,
            next_attempt: None,
            queued: Some(first.into()),
            is_expired: matches!(start, Start::Expired),
            app,
            user,
            client,
            _permit: permit,
        }
    }

    /// Returns the bytes of the stream as they are due. The stream ends when the caller's token does, when the server
    /// stops, and after the event `expired`.
    pub(super) fn into_stream(self) -> LiveStream {
        Box::pin(stream::unfold(self, |mut listener| async move {
            let bytes = listener.next().await?;
            listener.next_comment = Instant::now() + COMMENT_INTERVAL;
            Some((bytes, listener))
        }))
    }

    async fn next(&mut self) -> Option<Bytes> {
        if let Some(bytes) = self.queued.take() {
            return Some(bytes);
        }
        while !self.is_expired {
            if *self.stop.borrow() || self.user.claims.remaining_lifetime().is_zero() {
                return None;
            }
            let latest = self.updates.borrow_and_update().unwrap_or(*self.user.versions.versions());
            // boxed: an idle listener does not hold the state of a read
            match Box::pin(self.next_event(latest)).await {
                Ok(Some(bytes)) => return Some(bytes),
                Ok(None) => {}
                Err(Error::InvalidToken | Error::ExpiredToken) => return None,
                Err(_) => self.next_attempt = Some(Instant::now() + ATTEMPT_INTERVAL),
            }
            if let Some(comment) = self.idle().await {
                return Some(comment);
            }
        }
        None
    }

    /// Returns the next event, if there is one at the versions that were read last.
    async fn next_event(&mut self, latest: Versions) -> Result<Option<Bytes>> {
        if latest.accounts != self.accounts {
            self.app.authenticator.check_again(&self.user).await?;
            self.accounts = latest.accounts;
        }
        if !self.is_behind(latest.catalogue) {
            return Ok(None);
        }
        let Some(page) = shared_page(&self.app, self.client, self.position).await? else {
            self.is_expired = true;
            return Ok(Some(expired_event(&self.app)));
        };
        // a revocation that was committed before a change of this page is known now
        self.app.authenticator.check_again(&self.user).await?;
        let event = if page.is_empty { id_only(page.token) } else { page.event.clone() };
        let event = self.app.response_budget.reserve(self.client, &event);
        let event = event.ok_or_else(|| Error::unavailable("response budget exhausted"))?;
        self.position = page.token;
        self.position_since = Instant::now();
        if !page.is_empty {
            self.app.change_pages.counters.events.inc();
        }
        Ok(Some(event))
    }

    /// Returns whether the client lacks changes at this version.
    fn is_behind(&self, version: Version) -> bool {
        self.position.page.is_some()
            || is_later(version, self.position.since)
            || (version != self.position.since && self.position_since.elapsed() > READ_TIMEOUT)
    }

    /// Waits until there may be something to do. Returns a comment if nothing has been sent for long.
    async fn idle(&mut self) -> Option<Bytes> {
        let now = Instant::now();
        let expiry = now + self.user.claims.remaining_lifetime();
        let attempt = self.next_attempt.take().unwrap_or(expiry);
        tokio::select! {
            // an attempt that failed is not repeated at once
            _ = self.updates.changed(), if attempt == expiry => {}
            () = stopped(&mut self.stop) => {}
            () = sleep_until(self.next_comment.min(expiry).min(attempt)) => {}
        }
        (Instant::now() >= self.next_comment).then(|| Bytes::from_static(COMMENT))
    }
}

/// Returns the token of a version that changed no product. A client stores it without an event: it survives longer than
/// the one before.
fn id_only(token: SyncToken) -> Bytes {
    format!("id: {}\n\n", token.encode()).into()
}

fn expired_event(app: &App) -> Bytes {
    app.change_pages.counters.expired_tokens.inc();
    format!("event: expired\ndata: {}\n\n", Error::SyncTokenExpired.response().body).into()
}
