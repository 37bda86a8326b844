//! `POST /api/register/`

use hyper::StatusCode;
use serde_json::json;

use super::input;
use crate::{
    app::App,
    auth::{Anyone, throttle},
    db::{Database, Failure, statements},
    error::{Error, FieldErrors, Result},
    http::{Reply, Request, fields::Fields, reply, request::Accepts},
};

const USERNAME_TAKEN: &str = "A user with that username already exists.";
const EMAIL_TAKEN: &str = "A user with that email already exists.";

/// A new account.
pub async fn register(app: &App, request: Request, _: Anyone) -> Result<Reply> {
    let address = throttle::address(app.client_address(&request));
    let fields = request.fields(Accepts::JsonOrForm, input::BODY_BYTES).await?;
    let account = input::new_account(Fields::new(fields))?;
    app.throttle.take(&[(throttle::REGISTER_ADDRESS, address)]).await?;
    // before the hashing, which costs a hundred thousand times as much
    refuse_taken(&app.database, &account.username, &account.email).await?;
    let password = app.passwords.hash(account.password.into()).await?;
    match create(&app.database, &account.username, &account.email, &password, false).await {
        Ok(_) => Ok(reply::json(StatusCode::CREATED, &json!({ "message": "User registered successfully." }))),
        // somebody was faster
        Err(failure) if is_taken(&failure) => {
            refuse_taken(&app.database, &account.username, &account.email).await?;
            Err(failure.into())
        }
        Err(failure) => Err(failure.into()),
    }
}

/// Stores an account and gives its id.
pub(super) async fn create(
    database: &Database,
    username: &str,
    email: &str,
    password: &str,
    is_staff: bool,
) -> Result<i64, Failure> {
    let row = database.row(&statements::USERS_CREATE, &[&username, &email, &password, &is_staff]).await?;
    Ok(row.map_or(0, |row| row.get(0)))
}

/// Whether a row was refused because its username or email is taken.
pub(super) fn is_taken(failure: &Failure) -> bool {
    matches!(failure.constraint(), Some("users_username_key" | "users_email_key"))
}

/// Refuses a username and an email that are taken, both at once.
pub(super) async fn refuse_taken(database: &Database, username: &str, email: &str) -> Result<()> {
    let row = database.row(&statements::USERS_TAKEN, &[&username, &email]).await?;
    let row = row.ok_or_else(|| Error::internal("users/taken gave no row"))?;
    let mut faults = FieldErrors::default();
    if row.get(0) {
        faults.add("username", USERNAME_TAKEN);
    }
    if row.get(1) {
        faults.add("email", EMAIL_TAKEN);
    }
    faults.into_result()
}
