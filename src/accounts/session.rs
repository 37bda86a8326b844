//! A login that can be renewed: a family of refresh tokens, of which one is in force at a time (RFC 9700, 4.14.2), and
//! the access tokens that were issued with them.
//!
//! A refresh token is `<session>.<secret>`; the database knows its SHA-256 only. The secret ends with a mark of ours, which tells
//! one that was spent from one that somebody made up: the latter ends nobody's login.

use std::time::{Duration, SystemTime};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use hyper::{
    StatusCode,
    header::{self, HeaderValue},
};
use jiff::Timestamp;
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::json;
use uuid::Uuid;

use super::input;
use crate::{
    app::App,
    auth::{Anonymous, User},
    db::statements,
    digest::sha256,
    error::{Error, Result},
    http::{Request, Response, request::AcceptedBody, response},
    validation::Fields,
};

/// Instances' clocks may differ; a revocation outlives its tokens by this.
const MARGIN: Duration = Duration::from_secs(3600);

/// Random bytes of a secret.
const RANDOM_BYTES: usize = 32;

/// Starts a session, with its first pair of tokens.
pub(crate) async fn open(app: &App, user: i64, generation: i32) -> Result<Response> {
    let session = Uuid::new_v4();
    let (refresh, hash) = refresh_token(app, session)?;
    let expires = refresh_expires(app)?;
    let params: crate::db::pool::Params<'_> = &[&session, &user, &hash, &expires, &generation];
    let started = app.database.row(&statements::SESSIONS_CREATE, params).await?;
    // meanwhile the password was changed, or the account deactivated
    started.ok_or(Error::WrongCredentials)?;
    pair(app, user, session, generation, &refresh)
}

/// `POST /api/token/refresh/`: the next pair of tokens; the refresh token that was presented is spent. One that was spent
/// before has been copied: nobody knows by whom, so its whole family ends.
pub(crate) async fn refresh(app: &App, request: Request, _: Anonymous) -> Result<Response> {
    let mut fields = Fields::new(request.fields(AcceptedBody::Json, input::BODY_BYTES).await?);
    let presented = fields.text("refresh", input::TOKEN);
    fields.finish()?;
    let presented = presented.unwrap_or_default();
    let (session, secret) = presented.split_once('.').ok_or(Error::InvalidToken)?;
    let session: Uuid = session.parse().map_err(|_| Error::InvalidToken)?;

    let (next, hash) = refresh_token(app, session)?;
    let (spent, expires) = (sha256(&[presented.as_bytes()]).to_vec(), refresh_expires(app)?);
    let most = app.config.session_ttl.as_secs_f64();
    let params: crate::db::pool::Params<'_> = &[&session, &spent, &hash, &expires, &most];
    let renewed = app.database.row(&statements::SESSIONS_ROTATE, params).await?;
    if let Some(row) = renewed {
        return pair(app, row.get(0), session, row.get(1), &next);
    }
    let (name, last) = (session.simple().to_string(), last_expiry(app, 0)?);
    let ours = was_issued(app, session, secret);
    let ended = app.database.row(&statements::SESSIONS_REVOKE, &[&session, &name, &last, &spent, &ours]).await?;
    if let Some(row) = ended.filter(|row| row.get(1)) {
        app.sessions_copied.inc();
        tracing::warn!(user = row.get::<_, i64>(0), "a spent refresh token came again: its session has ended");
    }
    Err(Error::InvalidToken)
}

/// `POST /api/logout/`: the token, and everything of the login it belongs to, is refused from now on by every instance.
pub(crate) async fn logout(app: &App, _: Request, user: User) -> Result<Response> {
    let session = user.claims.sid.as_deref().and_then(|sid| sid.parse::<Uuid>().ok());
    let ids: Vec<&str> = [Some(user.claims.jti.as_str()), user.claims.sid.as_deref()].into_iter().flatten().collect();
    let expires = last_expiry(app, user.claims.exp)?;
    app.database.rows(&statements::REVOCATIONS_REVOKE, &[&ids, &expires, &session]).await?;
    Ok(response::no_content())
}

/// `POST /api/logout/all/`: the same for every login of this user.
pub(crate) async fn logout_all(app: &App, _: Request, user: User) -> Result<Response> {
    app.database.rows(&statements::USERS_REVOKE_ALL_TOKENS, &[&user.id]).await?;
    Ok(response::no_content())
}

fn pair(app: &App, user: i64, session: Uuid, generation: i32, refresh: &str) -> Result<Response> {
    let mut reply = response::json(
        StatusCode::OK,
        &json!({
            "token": app.gate.tokens.issue(user, session, generation)?,
            "refresh": refresh,
            "expires_in": app.gate.tokens.lifetime().as_secs(),
        }),
    );
    reply.headers_mut().insert(header::CACHE_CONTROL, const { HeaderValue::from_static("no-store") });
    Ok(reply)
}

/// A fresh refresh token of a session, and what the database may know of it.
fn refresh_token(app: &App, session: Uuid) -> Result<(String, Vec<u8>)> {
    let mut random = [0; RANDOM_BYTES];
    SystemRandom::new().fill(&mut random).map_err(|_| Error::internal("the system gives no random bytes"))?;
    let mark = app.gate.tokens.mark(&[session.as_bytes(), &random[..]].concat());
    let secret = BASE64_URL_SAFE_NO_PAD.encode([&random[..], &mark].concat());
    let token = format!("{}.{secret}", session.simple());
    let hash = sha256(&[token.as_bytes()]).to_vec();
    Ok((token, hash))
}

/// Whether we have issued this secret to this session at some time.
fn was_issued(app: &App, session: Uuid, secret: &str) -> bool {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(secret).unwrap_or_default();
    let Some((random, mark)) = bytes.split_at_checked(RANDOM_BYTES) else { return false };
    app.gate.tokens.is_marked(&[session.as_bytes(), random].concat(), mark)
}

fn refresh_expires(app: &App) -> Result<Timestamp> {
    Timestamp::try_from(SystemTime::now() + app.config.refresh_token_ttl.min(app.config.session_ttl))
        .map_err(Error::internal)
}

/// When the last access token of a session has expired: one may have been issued this very moment, and one may have been
/// issued under a longer `ACCESS_TOKEN_TTL` (`known`, in seconds since 1970).
fn last_expiry(app: &App, known: i64) -> Result<Timestamp> {
    let youngest = SystemTime::now() + app.gate.tokens.lifetime();
    let known = SystemTime::UNIX_EPOCH + Duration::from_secs(known.unsigned_abs());
    Timestamp::try_from(youngest.max(known) + MARGIN).map_err(Error::internal)
}
