//! `POST /api/login/`

use secrecy::SecretString;

use super::{input, session};
use crate::{
    app::App,
    auth::{Anonymous, password_hashing::Check},
    db::statements,
    error::{Error, Result},
    http::{Request, Response, request::AcceptedBody},
    limits::rate_limit,
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
    let row = slot.run_lookup(app.database.row(&statements::USERS_CREDENTIALS, &[&username])).await??;
    let row = row.ok_or_else(|| Error::internal("users/credentials returned no row"))?;
    let user: Option<i64> = row.get("id");
    // in the database's lower case: otherwise the limits of two spellings would reveal whether the account exists
    let account = user.map_or_else(|| rate_limit::unknown_account(row.get("lowercase_username")), rate_limit::account);
    let subject = app.rate_limiter.login_key(&account, &address).await;
    let buckets = [(rate_limit::LOGIN_ACCOUNT, subject.clone()), (rate_limit::LOGIN_ADDRESS, address.clone())];
    app.rate_limiter.check(&buckets).await?;
    let stored: Option<String> = row.get("password");
    let check = slot.verify(password.clone(), stored.clone()).await?;
    let (Some(user), Some(stored)) = (user, stored) else { return Err(Error::WrongCredentials) };
    let is_active: bool = row.get("is_active");
    if check == Check::Mismatch || !is_active {
        return Err(Error::WrongCredentials);
    }
    app.rate_limiter.record_login(&account, &address, &subject).await;
    let response = session::create(app, user, row.get("token_generation")).await?;
    if check == Check::MatchNeedsRehash {
        rehash(app, user, stored, password).await;
    }
    Ok(response)
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
