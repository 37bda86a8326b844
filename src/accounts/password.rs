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

/// Another password for one's own account. Every token issued before is refused from then on, this one too.
pub(crate) async fn password(app: &App, request: Request, user: User) -> Result<Response> {
    let address = rate_limit::address(app.client_address(&request));
    let mut fields = Fields::new(request.fields(AcceptedBody::Json, input::BODY_BYTES).await?);
    let old = fields.text("old_password", input::PASSWORD);
    let new = fields.text("new_password", input::PASSWORD);
    let row = app.database.row(&statements::USERS_PASSWORD, &[&user.id]).await?.ok_or(Error::InvalidToken)?;
    let (username, stored): (String, String) = (row.get(0), row.get(1));
    if let Some(Err(faults)) = new.as_deref().map(|new| input::new_password(new, &username)) {
        faults.into_iter().for_each(|words| fields.fault("new_password", words));
    }
    // a stolen token is no licence to guess: what is guessed here is counted with the guesses at login
    let subject = app.throttle.account_at(&rate_limit::account(user.id), &address).await;
    if let Some(old) = old {
        app.throttle.take(&[(rate_limit::LOGIN_ACCOUNT, subject.clone())]).await?;
        if app.passwords.verify(old.into(), Some(stored.clone())).await? == Check::Wrong {
            fields.fault("old_password", "Invalid password.");
        } else {
            // whatever is wrong with the new one
            app.throttle.forget(rate_limit::LOGIN_ACCOUNT, &subject).await;
        }
    }
    fields.finish()?;
    let new = new.ok_or_else(|| Error::internal("a field without a value has a fault"))?;
    let text = app.passwords.hash(new.into()).await?;
    let changed = app.database.row(&statements::USERS_CHANGE_PASSWORD, &[&user.id, &stored, &text]).await?;
    // somebody else changed it meanwhile, and this token died with it
    changed.ok_or(Error::InvalidToken)?;
    Ok(response::no_content())
}
