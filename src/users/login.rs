//! `POST /api/login/`

use std::time::SystemTime;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use hyper::StatusCode;
use jiff::Timestamp;
use ring::{
    digest,
    rand::{SecureRandom, SystemRandom},
};
use secrecy::SecretString;
use serde_json::json;
use uuid::Uuid;

use super::input;
use crate::{
    app::App,
    auth::{Anyone, passwords::Verdict, throttle},
    db::statements,
    error::{Error, Result},
    http::{Reply, Request, fields::Fields, reply, request::Accepts},
};

/// A username and a password for a token. Unknown user, wrong password, inactive account and unusable hash are one
/// answer after one time.
pub async fn login(app: &App, request: Request, _: Anyone) -> Result<Reply> {
    let address = throttle::address(app.client_address(&request));
    let fields = request.fields(Accepts::JsonOrForm, input::BODY_BYTES).await?;
    let (username, password) = input::credentials(Fields::new(fields))?;
    let password = SecretString::from(password);
    let row = app.database.row(&statements::USERS_CREDENTIALS, &[&username]).await?;
    // by the account that the database found: it folds some letters' case otherwise than we would
    let account = row.as_ref().map_or_else(|| username.to_lowercase(), |row| row.get::<_, i64>(0).to_string());
    let buckets = [(throttle::LOGIN_ACCOUNT, account.clone()), (throttle::LOGIN_ADDRESS, address)];
    app.throttle.take(&buckets).await?;
    let stored = row.as_ref().map(|row| row.get::<_, String>(1));
    let verdict = app.passwords.verify(password.clone(), stored.clone()).await?;
    let (Some(row), Some(stored)) = (row, stored) else { return Err(Error::WrongCredentials) };
    let (user, is_active): (i64, bool) = (row.get(0), row.get(2));
    if verdict == Verdict::Wrong || !is_active {
        return Err(Error::WrongCredentials);
    }
    app.throttle.forget(throttle::LOGIN_ACCOUNT, &account).await;
    let reply = open_session(app, user, row.get(3)).await?;
    if verdict == Verdict::RightButOutdated {
        renew(app, user, stored, password).await;
    }
    Ok(reply)
}

/// A session with its first pair of tokens.
async fn open_session(app: &App, user: i64, generation: i32) -> Result<Reply> {
    let session = Uuid::new_v4();
    let mut secret = [0; 32];
    SystemRandom::new().fill(&mut secret).map_err(|_| Error::internal("the system gives no random bytes"))?;
    let refresh = format!("{}.{}", session.simple(), BASE64_URL_SAFE_NO_PAD.encode(secret));
    let digest = digest::digest(&digest::SHA256, refresh.as_bytes());
    let expires = SystemTime::now() + app.config.refresh_token_ttl;
    let expires = Timestamp::try_from(expires).map_err(Error::internal)?;
    let started = app
        .database
        .row(&statements::SESSIONS_START, &[&session, &user, &digest.as_ref(), &expires, &generation])
        .await?;
    // meanwhile the password was changed, or the account deactivated
    started.ok_or(Error::WrongCredentials)?;
    Ok(reply::json(
        StatusCode::OK,
        &json!({
            "token": app.gate.tokens.issue(user, session, generation)?,
            "refresh": refresh,
            "expires_in": app.gate.tokens.lifetime().as_secs(),
        }),
    ))
}

/// Stores the password with the iterations that are configured now. The login is good either way.
async fn renew(app: &App, user: i64, stored: String, password: SecretString) {
    let renewed = async {
        let text = app.passwords.hash(password).await?;
        app.database.rows(&statements::USERS_RENEW_PASSWORD, &[&user, &stored, &text]).await.map_err(Error::from)
    };
    if let Err(error) = renewed.await {
        tracing::warn!(%error, user, "an outdated password hash could not be renewed");
    }
}
