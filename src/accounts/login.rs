//! `POST /api/login/`

use secrecy::SecretString;
use tokio_postgres::Row;

use super::{input, session};
use crate::{
    app::App,
    auth::{
        Anonymous,
        password_hashing::{Check, StoredPassword},
    },
    db::{pool::Params, statements},
    error::{Error, Result},
    http::{Request, Response, request::AcceptedBody},
    limits::{RateLimiter, rate_limit},
    validation::Fields,
};

/// Exchanges a username and a password for a pair of tokens.
///
/// An unknown user, a wrong password, an inactive account and an unusable hash get the same response after the same
/// time.
pub(crate) async fn login(app: &App, request: Request, _: Anonymous) -> Result<Response> {
    let address = app.client_network(&request).to_string();
    let fields = request.fields(AcceptedBody::JsonOrForm, input::BODY_BYTES).await?;
    let (username, password) = input::validate_credentials(Fields::new(fields))?;
    let password = SecretString::from(password);
    let slot = app.password_hasher.enqueue()?;
    let macs = app.rate_limiter.address_macs(&address);
    let params: Params<'_> = &[&username, &macs, &rate_limit::TRUSTED_ADDRESS_TTL.as_secs_f64()];
    let row = slot.run_lookup(app.database.row(&statements::USERS_CREDENTIALS, params)).await??;
    let row = row.ok_or_else(|| Error::internal("users/credentials returned no row"))?;
    let user: Option<i64> = row.get("id");
    // in the database's lower case: otherwise the limits of two spellings would reveal whether the account exists
    let account = user.map_or_else(|| rate_limit::unknown_account(row.get("lowercase_username")), rate_limit::account);
    let subject = RateLimiter::login_key(&account, &address, row.get("is_trusted_address"));
    app.rate_limiter
        .check(&[(rate_limit::LOGIN_ACCOUNT, subject.clone()), (rate_limit::LOGIN_ADDRESS, address.clone())])
        .await?;
    let stored = stored_password(&row);
    let check = slot.verify(password.clone(), stored.clone()).await?;
    let (Some(user), Some(stored)) = (user, stored.text) else { return Err(Error::WrongCredentials) };
    let is_active: bool = row.get("is_active");
    if check == Check::Mismatch || !is_active {
        return Err(Error::WrongCredentials);
    }
    app.rate_limiter.reset(rate_limit::LOGIN_ACCOUNT, &subject).await;
    let address_mac = app.rate_limiter.address_mac(&address);
    let response = session::create(app, user, row.get("token_generation"), address_mac).await?;
    if check == Check::MatchNeedsRehash {
        rehash(app, user, stored, password).await;
    }
    Ok(response)
}

/// Returns what a password is compared with, from a row of `users/credentials` or `users/password`.
pub(super) fn stored_password(row: &Row) -> StoredPassword {
    let max_iterations: i32 = row.get("max_iterations");
    StoredPassword { text: row.get("password"), max_iterations: max_iterations.unsigned_abs() }
}

/// Stores the password with the configured number of iterations. The login succeeds even if this fails.
async fn rehash(app: &App, user: i64, stored: String, password: SecretString) {
    let rehash = async {
        let hash = app.password_hasher.hash(password).await?;
        app.database.rows(&statements::USERS_REHASH_PASSWORD, &[&user, &stored, &hash]).await.map_err(Error::from)
    };
    if let Err(error) = rehash.await {
        tracing::warn!(%error, user, "rehashing a password failed");
    }
}
