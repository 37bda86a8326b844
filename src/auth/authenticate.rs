//! Authenticates requests and produces the caller types.
//!
//! A route takes its access level from the [`Principal`] type that its handler takes, so a handler that takes [`Staff`]
//! is reachable by staff only.

use std::{future::Future, sync::Arc};

use hyper::header::{self, HeaderValue};

use super::{
    revocation_hints::RevocationHints,
    tokens::{Claims, Tokens},
};
use crate::{
    db::{Database, statements},
    error::{Error, Result},
    http::Request,
    versions::{AccountStatus, Revocations, VersionRead, VersionReader},
};

/// The state that authentication needs.
pub struct Authenticator {
    pub(crate) tokens: Tokens,
    pub(crate) version_reader: Arc<VersionReader>,
    pub revocations: Arc<Revocations>,
    /// For stale data only.
    pub(crate) revocation_hints: RevocationHints,
    pub(crate) database: Database,
}

/// A caller type: the result of authenticating a request for a route.
pub(crate) trait Principal: Sized + Send {
    /// The access level as the route table shows it.
    const ACCESS: &'static str;

    /// Authenticates and authorizes the request, before its query and body are read.
    fn authenticate(authenticator: &Authenticator, request: &Request) -> impl Future<Output = Result<Self>> + Send;
}

/// Any caller; no credentials are read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Anonymous;

/// The bearer of a valid token of an active account.
#[derive(Debug, Clone)]
pub(crate) struct User {
    pub(crate) id: i64,
    pub(crate) claims: Arc<Claims>,
    /// The result of the version read that authenticated the request; the response must not be older.
    pub(crate) versions: VersionRead,
}

/// A user whose request may be served stale, labelled data while the database is unavailable.
///
/// The token was valid at the last version read. All other caller types require a current one.
#[derive(Debug, Clone)]
pub(crate) struct UserAllowStale(pub(crate) User);

/// A user who may change the catalogue.
#[derive(Debug, Clone)]
pub(crate) struct Staff(pub(crate) User);

impl Principal for Anonymous {
    const ACCESS: &'static str = "anyone";

    async fn authenticate(_: &Authenticator, _: &Request) -> Result<Self> {
        Ok(Self)
    }
}

impl Principal for User {
    const ACCESS: &'static str = "user";

    async fn authenticate(authenticator: &Authenticator, request: &Request) -> Result<Self> {
        authenticator.require_current(request).await.map(|(user, _)| user)
    }
}

impl Principal for UserAllowStale {
    const ACCESS: &'static str = User::ACCESS;

    async fn authenticate(authenticator: &Authenticator, request: &Request) -> Result<Self> {
        authenticator.user(request).await.map(|(user, _)| Self(user))
    }
}

impl Principal for Staff {
    const ACCESS: &'static str = "staff";

    async fn authenticate(authenticator: &Authenticator, request: &Request) -> Result<Self> {
        let (user, account) = authenticator.require_current(request).await?;
        if account.is_staff { Ok(Self(user)) } else { Err(Error::Forbidden) }
    }
}

impl Authenticator {
    /// Returns a user whose token is valid now.
    async fn require_current(&self, request: &Request) -> Result<(User, AccountStatus)> {
        let (user, account) = self.user(request).await?;
        match user.versions {
            VersionRead::Verified(_) => Ok((user, account)),
            VersionRead::Stale(_) => Err(Error::unavailable("revocations cannot be verified")),
        }
    }

    /// Returns a user whose token is valid now or, while the database is unavailable, was valid at the last version
    /// read.
    async fn user(&self, request: &Request) -> Result<(User, AccountStatus)> {
        let token = bearer(request)?;
        let claims = match self.tokens.cached(token) {
            Some(claims) => claims?,
            // a cached token is well-formed; only others need this check
            None if token.is_empty() || token.iter().any(u8::is_ascii_whitespace) => {
                return Err(Error::BadAuthorizationHeader);
            }
            None => self.tokens.verify(token)?,
        };
        let id: i64 = claims.sub.parse().map_err(|_| Error::InvalidToken)?;
        // the version read begins after the request arrived, so it delivers every revocation committed before that
        let versions = self.version_reader.current().await?;
        self.check_not_revoked(&claims)?;
        // boxed: the state of the lookup would enlarge the future of every request
        if matches!(versions, VersionRead::Stale(_)) && Box::pin(self.revocation_hints.is_revoked(id, &claims)).await {
            return Err(Error::InvalidToken);
        }
        let account = self.active_account(id, &claims).await?;
        Ok((User { id, claims, versions }, account))
    }

    /// Checks the caller of a request that is still running: the token may have expired since, and revocations count that
    /// the latest version read has returned.
    pub(crate) async fn check_again(&self, user: &User) -> Result<()> {
        if user.claims.remaining_lifetime().is_zero() {
            return Err(Error::ExpiredToken);
        }
        self.check_not_revoked(&user.claims)?;
        self.active_account(user.id, &user.claims).await.map(drop)
    }

    fn check_not_revoked(&self, claims: &Claims) -> Result<()> {
        let ids = [claims.jti.as_str()].into_iter().chain(claims.sid.as_deref());
        if self.revocations.any_revoked(ids) { Err(Error::InvalidToken) } else { Ok(()) }
    }

    /// Returns the account of a token, if it is active and the token is not revoked.
    async fn active_account(&self, id: i64, claims: &Claims) -> Result<AccountStatus> {
        let account = match self.revocations.cached_account(id, &claims.jti) {
            Some(account) => account,
            // boxed: the statement's state would enlarge the future of every request with a cached account
            None => Box::pin(self.load_account(id, claims)).await?.ok_or(Error::InvalidToken)?,
        };
        if account.is_active && account.generation == claims.generation {
            Ok(account)
        } else {
            Err(Error::InvalidToken)
        }
    }

    /// Looks an account and a token of it up. Returns `None` if the account does not exist or the token is revoked.
    async fn load_account(&self, id: i64, claims: &Claims) -> Result<Option<AccountStatus>> {
        let epoch = self.revocations.epoch();
        let ids: Vec<&str> = [claims.jti.as_str()].into_iter().chain(claims.sid.as_deref()).collect();
        let Some(row) = self.database.row(&statements::USERS_STATUS, &[&id, &ids]).await? else { return Ok(None) };
        if row.get("is_revoked") {
            self.revocations.cache_revoked(&claims.jti);
            return Ok(None);
        }
        let account = AccountStatus {
            is_active: row.get("is_active"),
            is_staff: row.get("is_staff"),
            generation: row.get("token_generation"),
        };
        self.revocations.cache_verified(id, &claims.jti, account, (row.get("version"), epoch));
        Ok(Some(account))
    }
}

/// Returns the credentials of the `Bearer` scheme in `Authorization`; they may be malformed. Two headers are an error:
/// it would be unclear whose request it is.
fn bearer(request: &Request) -> Result<&[u8]> {
    let mut values = request.headers().get_all(header::AUTHORIZATION).iter();
    let value = values.next().map_or(&b""[..], HeaderValue::as_bytes).trim_ascii();
    if values.next().is_some() {
        return Err(Error::BadAuthorizationHeader);
    }
    match value.strip_prefix(b"Bearer") {
        Some(rest) if rest.first().is_none_or(|&byte| byte == b' ') => Ok(rest.trim_ascii_start()),
        _ => Err(Error::NotAuthenticated),
    }
}
