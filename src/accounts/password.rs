//! `POST /api/password/`

use super::{input, login::stored_password, session};
use crate::{
    app::App,
    auth::{User, password_hashing::Check},
    db::{pool::Params, statements},
    error::{Error, Result},
    http::{Request, Response, request::AcceptedBody, response},
    limits::{RateLimiter, rate_limit},
    validation::Fields,
};

/// Changes the user's own password. Every token issued before is revoked, including the one of this request.
pub(crate) async fn change_password(app: &App, request: Request, user: User) -> Result<Response> {
    let address = app.client_network(&request).to_string();
    let mut fields = Fields::new(request.fields(AcceptedBody::Json, input::BODY_BYTES).await?);
    let old = fields.text("old_password", input::PASSWORD_RULE);
    let new = fields.text("new_password", input::PASSWORD_RULE);
    let macs = app.rate_limiter.address_macs(&address);
    let params: Params<'_> = &[&user.id, &macs, &rate_limit::TRUSTED_ADDRESS_TTL.as_secs_f64()];
    let row = app.database.row(&statements::USERS_PASSWORD, params).await?.ok_or(Error::InvalidToken)?;
    let (username, stored): (String, _) = (row.get("username"), stored_password(&row));
    if let Some(Err(errors)) = new.as_deref().map(|new| input::validate_new_password(new, &username)) {
        errors.into_iter().for_each(|message| fields.add_error("new_password", message));
    }
    // attempts count as login attempts: a stolen token must not allow more guesses
    let account = rate_limit::account(user.id);
    let subject = RateLimiter::login_key(&account, &address, row.get("is_trusted_address"));
    if let Some(old) = old {
        app.rate_limiter.check(&[(rate_limit::LOGIN_ACCOUNT, subject.clone())]).await?;
        if app.password_hasher.verify(old.into(), stored.clone()).await? == Check::Mismatch {
            fields.add_error("old_password", "Invalid password.");
        } else {
            // even if the new password is invalid
            app.rate_limiter.reset(rate_limit::LOGIN_ACCOUNT, &subject).await;
        }
    }
    fields.finish()?;
    let new = new.ok_or_else(|| Error::internal("a missing field passed validation"))?;
    let hash = app.password_hasher.hash(new.into()).await?;
    let changed = app.database.row(&statements::USERS_CHANGE_PASSWORD, &[&user.id, &stored.text, &hash]).await?;
    // no row: the password was changed concurrently, which revoked this token
    session::record_previous_generation(app, &changed.ok_or(Error::InvalidToken)?).await;
    Ok(response::no_content())
}
