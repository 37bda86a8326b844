//! `POST /api/register/`

use hyper::StatusCode;
use serde_json::{Map, json};

use super::input::{self, NewAccount};
use crate::{
    app::App,
    auth::Anonymous,
    db::{Database, DbError, statements},
    error::{Error, Result},
    http::{Request, Response, request::AcceptedBody, response},
    limits::rate_limit,
    validation::Fields,
};

/// A new account.
pub(crate) async fn register(app: &App, request: Request, _: Anonymous) -> Result<Response> {
    let address = rate_limit::address(app.client_address(&request));
    let mut fields = Fields::new(request.fields(AcceptedBody::JsonOrForm, input::BODY_BYTES).await?);
    let account = input::new_account(&mut fields);
    if account.username.is_some() || account.email.is_some() {
        // whoever may ask which names are taken may not ask without end
        app.throttle.take(&[(rate_limit::REGISTER_ADDRESS, address)]).await?;
    }
    // before the hashing, which costs a hundred thousand times as much
    note_taken(&app.database, &account, &mut fields).await?;
    fields.finish()?;
    let password = app.passwords.hash(account.password.clone().unwrap_or_default().into()).await?;
    match create(&app.database, &account, &password, false).await {
        Ok(_) => Ok(response::json(StatusCode::CREATED, &json!({ "message": "User registered successfully." }))),
        // somebody was faster
        Err(failure) if is_taken(&failure) => {
            let mut fields = Fields::new(Map::new());
            note_taken(&app.database, &account, &mut fields).await?;
            fields.finish()?;
            Err(failure.into())
        }
        Err(failure) => Err(failure.into()),
    }
}

/// Stores an account without faults and gives its id.
pub(crate) async fn create(
    database: &Database,
    account: &NewAccount,
    password: &str,
    is_staff: bool,
) -> Result<i64, DbError> {
    let row =
        database.row(&statements::USERS_CREATE, &[&account.username, &account.email, &password, &is_staff]).await?;
    Ok(row.map_or(0, |row| row.get(0)))
}

/// Whether a row was refused because its username or email is taken.
fn is_taken(failure: &DbError) -> bool {
    matches!(failure.constraint(), Some("users_username_key" | "users_email_key"))
}

/// Adds the faults of a username and an email that are taken.
pub(crate) async fn note_taken(database: &Database, account: &NewAccount, fields: &mut Fields) -> Result<()> {
    if account.username.is_none() && account.email.is_none() {
        return Ok(());
    }
    let row = database.row(&statements::USERS_AVAILABILITY, &[&account.username, &account.email]).await?;
    let row = row.ok_or_else(|| Error::internal("users/taken gave no row"))?;
    if row.get(0) {
        fields.fault("username", "A user with that username already exists.");
    }
    if row.get(1) {
        fields.fault("email", "A user with that email already exists.");
    }
    Ok(())
}
