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

/// Registers an account.
pub(crate) async fn register(app: &App, request: Request, _: Anonymous) -> Result<Response> {
    let address = app.client_network(&request).to_string();
    let mut fields = Fields::new(request.fields(AcceptedBody::JsonOrForm, input::BODY_BYTES).await?);
    let account = input::validate_new_account(&mut fields);
    if account.username.is_some() || account.email.is_some() {
        // the response reveals whether a username or an email is in use
        app.rate_limiter.check(&[(rate_limit::REGISTER_ADDRESS, address)]).await?;
    }
    // before the hashing, which costs a hundred thousand times as much
    check_uniqueness(&app.database, &account, &mut fields).await?;
    fields.finish()?;
    let change_password = app.password_hasher.hash(account.password.clone().unwrap_or_default().into()).await?;
    match create(&app.database, &account, &change_password, false).await {
        Ok(_) => Ok(response::json(StatusCode::CREATED, &json!({ "message": "User registered successfully." }))),
        // a concurrent registration took the username or the email
        Err(error) if is_unique_violation(&error) => {
            let mut fields = Fields::new(Map::new());
            check_uniqueness(&app.database, &account, &mut fields).await?;
            fields.finish()?;
            Err(error.into())
        }
        Err(error) => Err(error.into()),
    }
}

/// Stores a valid account. Returns its id.
pub(crate) async fn create(
    database: &Database,
    account: &NewAccount,
    password: &str,
    is_staff: bool,
) -> Result<i64, DbError> {
    let row =
        database.row(&statements::USERS_CREATE, &[&account.username, &account.email, &password, &is_staff]).await?;
    Ok(row.map_or(0, |row| row.get("id")))
}

fn is_unique_violation(error: &DbError) -> bool {
    matches!(error.constraint(), Some("users_username_key" | "users_email_key"))
}

/// Adds an error for a username or an email that is in use.
pub(crate) async fn check_uniqueness(database: &Database, account: &NewAccount, fields: &mut Fields) -> Result<()> {
    if account.username.is_none() && account.email.is_none() {
        return Ok(());
    }
    let row = database.row(&statements::USERS_AVAILABILITY, &[&account.username, &account.email]).await?;
    let row = row.ok_or_else(|| Error::internal("users/availability returned no row"))?;
    if row.get("username") {
        fields.add_error("username", "A user with that username already exists.");
    }
    if row.get("email") {
        fields.add_error("email", "A user with that email already exists.");
    }
    Ok(())
}
