//! The kinds of callers. A handler that takes a [`Staff`] can only stand in a row of the route table that admits
//! nobody else.

use std::{future::Future, sync::Arc};

use hyper::header::{self, HeaderValue};

use super::tokens::{Claims, Tokens};
use crate::{
    db::{Database, statements},
    error::{Error, Result},
    http::Request,
    versions::{AccountStatus, Revocations, VersionRead, VersionReader},
};

/// What admission needs.
pub struct Authenticator {
    /// Verifies tokens.
    pub(crate) tokens: Tokens,
    /// Tells the present versions.
    pub(crate) freshness: Arc<VersionReader>,
    /// Knows dead tokens and accounts.
    pub revocations: Arc<Revocations>,
    /// Knows the accounts that are not yet known.
    pub(crate) database: Database,
}

/// Somebody whom a row of the route table lets in.
pub(crate) trait Principal: Sized + Send {
    /// The word in the route table.
    const ACCESS: &'static str;

    /// Lets the request in or refuses it, before its query and body are looked at.
    fn admit(gate: &Authenticator, request: &Request) -> impl Future<Output = Result<Self>> + Send;
}

/// Whoever calls; nothing is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Anonymous;

/// The bearer of a token that is in force, of an account that is active.
#[derive(Debug, Clone)]
pub(crate) struct User {
    /// The account.
    pub(crate) id: i64,
    /// The token's claims.
    pub(crate) claims: Arc<Claims>,
    /// The versions as the request must see them.
    pub(crate) reading: VersionRead,
}

/// A user who reads what may be served, labelled, while the database cannot be reached: their token was in force when it could.
/// All other callers wait until it tells that it still is.
#[derive(Debug, Clone)]
pub(crate) struct UserAllowStale(pub(crate) User);

/// A user who may keep the catalogue.
#[derive(Debug, Clone)]
pub(crate) struct Staff(pub(crate) User);

impl Principal for Anonymous {
    const ACCESS: &'static str = "anyone";

    async fn admit(_: &Authenticator, _: &Request) -> Result<Self> {
        Ok(Self)
    }
}

impl Principal for User {
    const ACCESS: &'static str = "user";

    async fn admit(gate: &Authenticator, request: &Request) -> Result<Self> {
        gate.verified(request).await.map(|(user, _)| user)
    }
}

impl Principal for UserAllowStale {
    const ACCESS: &'static str = User::ACCESS;

    async fn admit(gate: &Authenticator, request: &Request) -> Result<Self> {
        gate.user(request).await.map(|(user, _)| Self(user))
    }
}

impl Principal for Staff {
    const ACCESS: &'static str = "staff";

    async fn admit(gate: &Authenticator, request: &Request) -> Result<Self> {
        let (user, account) = gate.verified(request).await?;
        if account.is_staff { Ok(Self(user)) } else { Err(Error::Forbidden) }
    }
}

impl Authenticator {
    /// A user whose token is in force now.
    async fn verified(&self, request: &Request) -> Result<(User, AccountStatus)> {
        let (user, account) = self.user(request).await?;
        match user.reading {
            VersionRead::Current(_) => Ok((user, account)),
            VersionRead::Unverified(_) => {
                Err(Error::unavailable("nobody can tell whether the token is still in force"))
            }
        }
    }

    /// A user whose token is in force, or was when the database was last heard of.
    async fn user(&self, request: &Request) -> Result<(User, AccountStatus)> {
        let token = bearer(request)?;
        let claims = match self.tokens.verified(token) {
            Some(verdict) => verdict?,
            // only one that is not known yet is looked at closely
            None if token.is_empty() || token.iter().any(u8::is_ascii_whitespace) => {
                return Err(Error::BadAuthorizationHeader);
            }
            None => self.tokens.verify(token)?,
        };
        let id: i64 = claims.sub.parse().map_err(|_| Error::InvalidToken)?;
        // begins after the request has arrived: what was revoked before is known when it ends
        let reading = self.freshness.now().await?;
        if self.revocations.any_revoked([claims.jti.as_str()].into_iter().chain(claims.sid.as_deref())) {
            return Err(Error::InvalidToken);
        }
        let account = match self.revocations.known(id) {
            Some(account) => account,
            // boxed: a known account does not pay for the room that a statement needs
            None => Box::pin(self.look_up(id)).await?.ok_or(Error::InvalidToken)?,
        };
        if !account.is_active || account.generation != claims.generation {
            return Err(Error::InvalidToken);
        }
        Ok((User { id, claims, reading }, account))
    }

    async fn look_up(&self, id: i64) -> Result<Option<AccountStatus>> {
        let row = self.database.row(&statements::USERS_STATUS, &[&id]).await?;
        Ok(row.map(|row| {
            let account = AccountStatus { is_active: row.get(0), is_staff: row.get(1), generation: row.get(2) };
            self.revocations.remember(id, account, row.get(3));
            account
        }))
    }
}

/// What follows `Bearer` in `Authorization`: most likely a token.
fn bearer(request: &Request) -> Result<&[u8]> {
    let value = request.headers().get(header::AUTHORIZATION).map_or(&b""[..], HeaderValue::as_bytes).trim_ascii();
    match value.strip_prefix(b"Bearer") {
        Some(rest) if rest.first().is_none_or(|&byte| byte == b' ') => Ok(rest.trim_ascii_start()),
        _ => Err(Error::NotAuthenticated),
    }
}
