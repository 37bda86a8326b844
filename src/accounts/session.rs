//! Sessions and refresh tokens.
//!
//! A session begins with a login. It has one current refresh token, which each refresh replaces (RFC 9700, 4.14.2), and
//! the access tokens that were issued with them. A token that was replaced within `REFRESH_GRACE` is accepted as well:
//! browser tabs that share a login may refresh it at once.
//!
//! A refresh token is `<session>.<secret>`; the database stores its SHA-256 only. The secret ends with a MAC, which
//! distinguishes a token that was used before from a forged one: a forged token must not end a session.

use std::time::{Duration, SystemTime};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use hyper::{
    StatusCode,
    header::{self, HeaderValue},
};
use jiff::Timestamp;
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::json;
use tokio_postgres::Row;
use uuid::Uuid;

use super::input;
use crate::{
    app::App,
    auth::{Anonymous, User},
    db::{pool::Params, statements},
    digest::sha256,
    error::{Error, Result},
    http::{Request, Response, request::AcceptedBody, response},
    validation::Fields,
};

/// How long a revocation outlives its tokens, since the clocks of instances may differ.
const REVOCATION_MARGIN: Duration = Duration::from_secs(3600);

/// Replaced refresh tokens that a session records for the grace: more than a browser has tabs. It bounds the size of a
/// row (10 KiB) when a client refreshes without a pause.
const MAX_SPENT_TOKENS: i32 = 256;

/// Random bytes of a secret; the MAC follows them.
const RANDOM_BYTES: usize = 32;

/// Creates a session, trusts the address with this MAC, and returns the first pair of tokens.
pub(crate) async fn create(app: &App, user: i64, generation: i32, address_mac: Option<Vec<u8>>) -> Result<Response> {
    let session = Uuid::new_v4();
    let (refresh, hash) = refresh_token(app, session)?;
    let (expires, access_expires) = (refresh_expiry(app)?, access_token_expiry(app, 0)?);
    let params: Params<'_> = &[&session, &user, &hash, &expires, &generation, &access_expires, &address_mac];
    let created = app.database.row(&statements::SESSIONS_CREATE, params).await?;
    // no row: the password was changed or the account was deactivated since the password check
    created.ok_or(Error::WrongCredentials)?;
    token_response(app, user, session, generation, &refresh)
}

/// `POST /api/token/refresh/`: replaces the refresh token, and returns the next pair of tokens.
///
/// A token that was replaced longer ago than the grace has been copied, by the client or by an attacker, so its session
/// ends. A token that has expired without being used ends nothing.
pub(crate) async fn refresh(app: &App, request: Request, _: Anonymous) -> Result<Response> {
    let mut fields = Fields::new(request.fields(AcceptedBody::Json, input::BODY_BYTES).await?);
    let presented = fields.text("refresh", input::REFRESH_TOKEN_RULE);
    fields.finish()?;
    let presented = presented.unwrap_or_default();
    let (session, secret) = presented.split_once('.').ok_or(Error::InvalidToken)?;
    let session: Uuid = session.parse().map_err(|_| Error::InvalidToken)?;

    let (next, next_hash) = refresh_token(app, session)?;
    let (hash, expires) = (sha256(&[presented.as_bytes()]).to_vec(), refresh_expiry(app)?);
    let (session_ttl, grace) = (app.config.accounts.session_ttl.as_secs_f64(), refresh_grace(app));
    let access_expires = access_token_expiry(app, 0)?;
    let params: Params<'_> =
        &[&session, &hash, &next_hash, &expires, &session_ttl, &access_expires, &grace, &MAX_SPENT_TOKENS];
    if let Some(row) = app.database.row(&statements::SESSIONS_ROTATE, params).await? {
        return token_response(app, row.get("id"), session, row.get("token_generation"), &next);
    }
    if mac_is_valid(app, session, secret) {
        revoke_reused(app, session, &hash).await?;
    }
    Err(Error::InvalidToken)
}

/// Ends a session if the refresh token with this hash is neither its current one nor one within the grace, which may
/// merely have expired.
async fn revoke_reused(app: &App, session: Uuid, hash: &[u8]) -> Result<()> {
    let sid = session.simple().to_string();
    let (access_expires, unrecorded, grace) =
        (access_token_expiry(app, 0)?, unrecorded_expiry(app)?, refresh_grace(app));
    let params: Params<'_> = &[&session, &sid, &access_expires, &hash, &unrecorded, &grace];
    if let Some(row) = app.database.row(&statements::SESSIONS_REVOKE, params).await? {
        app.authenticator.revocation_hints.record_ids(&[&sid]).await;
        app.refresh_token_reuse.inc();
        tracing::warn!(user = row.get::<_, i64>("user_id"), "refresh token reused, session revoked");
    }
    Ok(())
}

/// `POST /api/logout/`: revokes the access token and its session on all instances.
pub(crate) async fn logout(app: &App, _: Request, user: User) -> Result<Response> {
    let session = user.claims.sid.as_deref().and_then(|sid| sid.parse::<Uuid>().ok());
    let ids: Vec<&str> = [Some(user.claims.jti.as_str()), user.claims.sid.as_deref()].into_iter().flatten().collect();
    let expires = access_token_expiry(app, user.claims.exp)?;
    let params: Params<'_> = &[&ids, &expires, &session, &unrecorded_expiry(app)?];
    app.database.rows(&statements::REVOCATIONS_REVOKE, params).await?;
    app.authenticator.revocation_hints.record_ids(&ids).await;
    Ok(response::no_content())
}

/// `POST /api/logout/all/`: revokes all tokens and sessions of the user.
pub(crate) async fn logout_all(app: &App, _: Request, user: User) -> Result<Response> {
    // no row: the account has been deleted, which revoked its tokens
    if let Some(row) = app.database.row(&statements::USERS_REVOKE_ALL_TOKENS, &[&user.id]).await? {
        record_previous_generation(app, &row).await;
    }
    Ok(response::no_content())
}

/// Records a hint for the tokens that a new token generation has revoked. `row` has the columns `id` and
/// `token_generation`.
pub(super) async fn record_previous_generation(app: &App, row: &Row) {
    let generation: i32 = row.get("token_generation");
    app.authenticator.revocation_hints.record_generation(row.get("id"), generation.saturating_sub(1)).await;
}

fn token_response(app: &App, user: i64, session: Uuid, generation: i32, refresh: &str) -> Result<Response> {
    let mut response = response::json(
        StatusCode::OK,
        &json!({
            "token": app.authenticator.tokens.issue(user, session, generation)?,
            "refresh": refresh,
            "expires_in": app.authenticator.tokens.ttl().as_secs(),
        }),
    );
    response.headers_mut().insert(header::CACHE_CONTROL, const { HeaderValue::from_static("no-store") });
    Ok(response)
}

/// Returns a new refresh token of a session, and its SHA-256.
fn refresh_token(app: &App, session: Uuid) -> Result<(String, Vec<u8>)> {
    let mut random = [0; RANDOM_BYTES];
    let filled = SystemRandom::new().fill(&mut random);
    filled.map_err(|_| Error::internal("no random bytes from the operating system"))?;
    let mac = app.authenticator.tokens.mac(&[session.as_bytes(), &random[..]].concat());
    let secret = BASE64_URL_SAFE_NO_PAD.encode([&random[..], &mac].concat());
    let token = format!("{}.{secret}", session.simple());
    let hash = sha256(&[token.as_bytes()]).to_vec();
    Ok((token, hash))
}

/// Returns whether this program issued the secret for this session.
fn mac_is_valid(app: &App, session: Uuid, secret: &str) -> bool {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(secret).unwrap_or_default();
    let Some((random, mac)) = bytes.split_at_checked(RANDOM_BYTES) else { return false };
    app.authenticator.tokens.verify_mac(&[session.as_bytes(), random].concat(), mac)
}

/// Returns for how many seconds a refresh token is accepted after it has been replaced.
fn refresh_grace(app: &App) -> f64 {
    app.config.accounts.refresh_grace.as_secs_f64()
}

fn refresh_expiry(app: &App) -> Result<Timestamp> {
    let accounts = &app.config.accounts;
    let ttl = accounts.refresh_token_ttl.min(accounts.session_ttl);
    Timestamp::try_from(SystemTime::now() + ttl).map_err(Error::internal)
}

/// Returns a time at which an access token that is being issued now has expired.
///
/// `known_expiry` (seconds since 1970) is that of another token, which may have been issued under a longer
/// `ACCESS_TOKEN_TTL`.
fn access_token_expiry(app: &App, known_expiry: i64) -> Result<Timestamp> {
    let newest = SystemTime::now() + app.authenticator.tokens.ttl();
    let known = SystemTime::UNIX_EPOCH + Duration::from_secs(known_expiry.unsigned_abs());
    Timestamp::try_from(newest.max(known) + REVOCATION_MARGIN).map_err(Error::internal)
}

/// Returns a time at which the access tokens have expired of a session that does not record it: no configuration that
/// makes sense lets them outlive the session.
fn unrecorded_expiry(app: &App) -> Result<Timestamp> {
    let ttl = app.config.accounts.session_ttl.max(app.authenticator.tokens.ttl());
    Timestamp::try_from(SystemTime::now() + ttl + REVOCATION_MARGIN).map_err(Error::internal)
}
