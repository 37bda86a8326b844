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

/// A username and a password for a token. Unknown user, wrong password, inactive account and unusable hash are one
/// answer after one time.
pub(crate) async fn login(app: &App, request: Request, _: Anonymous) -> Result<Response> {
    let address = rate_limit::address(app.client_address(&request));
    let fields = request.fields(AcceptedBody::JsonOrForm, input::BODY_BYTES).await?;
    let (username, password) = input::credentials(Fields::new(fields))?;
    let password = SecretString::from(password);
    let place = app.passwords.place()?;
    let row = place.lookup(app.database.row(&statements::USERS_CREDENTIALS, &[&username])).await??;
    let row = row.ok_or_else(|| Error::internal("users/credentials gave no row"))?;
    let user: Option<i64> = row.get(0);
    // as the database folds the letters: whoever changes their case must not learn from the throttle whether it found somebody
    let account = user.map_or_else(|| rate_limit::nobody(row.get(4)), rate_limit::account);
    let subject = app.throttle.account_at(&account, &address).await;
    let buckets = [(rate_limit::LOGIN_ACCOUNT, subject.clone()), (rate_limit::LOGIN_ADDRESS, address.clone())];
    app.throttle.take(&buckets).await?;
    let stored: Option<String> = row.get(1);
    let verdict = place.verify(password.clone(), stored.clone()).await?;
    let (Some(user), Some(stored)) = (user, stored) else { return Err(Error::WrongCredentials) };
    let is_active: bool = row.get(2);
    if verdict == Check::Wrong || !is_active {
        return Err(Error::WrongCredentials);
    }
    app.throttle.entered(&account, &address, &subject).await;
    let reply = session::open(app, user, row.get(3)).await?;
    if verdict == Check::RightButOutdated {
        renew(app, user, stored, password).await;
    }
    Ok(reply)
}

/// Stores the password with the iterations that are configured now. The login is good either way.
async fn renew(app: &App, user: i64, stored: String, password: SecretString) {
    let renewed = async {
        let text = app.passwords.hash(password).await?;
        app.database.rows(&statements::USERS_REHASH_PASSWORD, &[&user, &stored, &text]).await.map_err(Error::from)
    };
    if let Err(error) = renewed.await {
        tracing::warn!(%error, user, "an outdated password hash could not be renewed");
    }
}
