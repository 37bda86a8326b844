//! `POST /api/password/`

use super::input;
use crate::{
    app::App,
    auth::{User, password_hashing::Check},
    db::statements,
    error::{Error, Result},
    http::{Request, Response, request::AcceptedBody, response},
    limits::rate_limit,
    validation::Fields,
};

/// Changes the user's own password. Every token issued before is revoked, including the one of this request.
pub(crate) async fn change_password(app: &App, request: Request, user: User) -> Result<Response> {
    let address = app.client_network(&request).to_string();
    let mut fields = Fields::new(request.fields(AcceptedBody::Json, input::BODY_BYTES).await?);
    let old = fields.text("old_password", input::PASSWORD_RULE);
    let new = fields.text("new_password", input::PASSWORD_RULE);
    let row = app.database.row(&statements::USERS_PASSWORD, &[&user.id]).await?.ok_or(Error::InvalidToken)?;
    let (username, stored): (String, String) = (row.get("username"), row.get("password"));
    if let Some(Err(errors)) = new.as_deref().map(|new| input::validate_new_password(new, &username)) {
        errors.into_iter().for_each(|message| fields.add_error("new_password", message));
    }
    // attempts count as login attempts: a stolen token must not allow more guesses
    let subject = app.rate_limiter.login_key(&rate_limit::account(user.id), &address).await;
    if let Some(old) = old {
        app.rate_limiter.check(&[(rate_limit::LOGIN_ACCOUNT, subject.clone())]).await?;
        if app.password_hasher.verify(old.into(), Some(stored.clone())).await? == Check::Mismatch {
            fields.add_error("old_password", "Invalid password.");
        } else {
            // even if the new password is invalid
            app.rate_limiter.reset(rate_limit::LOGIN_ACCOUNT, &subject).await;
        }
    }
    fields.finish()?;
    let new = new.ok_or_else(|| Error::internal("a missing field passed validation"))?;
    let hash = app.password_hasher.hash(new.into()).await?;
    let changed = app.database.row(&statements::USERS_CHANGE_PASSWORD, &[&user.id, &stored, &hash]).await?;
    // no row: the password was changed concurrently, which revoked this token
    changed.ok_or(Error::InvalidToken)?;
    Ok(response::no_content())
}
