//! `GET /api/me/`

use hyper::{StatusCode, header};
use serde::Serialize;

use crate::{
    app::App,
    auth::User,
    db::statements,
    error::{Error, Result},
    http::{Request, Response, response},
    timestamps::iso8601,
};

#[derive(Serialize)]
struct Profile<'a> {
    id: i64,
    username: &'a str,
    email: &'a str,
    is_staff: bool,
    date_joined: String,
}

/// Returns the profile of the authenticated user.
pub(crate) async fn me(app: &App, _: Request, user: User) -> Result<Response> {
    let row = app.database.row(&statements::USERS_PROFILE, &[&user.id]).await?.ok_or(Error::InvalidToken)?;
    let profile = Profile {
        id: row.get("id"),
        username: row.get("username"),
        email: row.get("email"),
        is_staff: row.get("is_staff"),
        date_joined: iso8601(row.get("date_joined")),
    };
    let mut response = response::json(StatusCode::OK, &profile);
    let no_store = const { header::HeaderValue::from_static("private, no-store") };
    response.headers_mut().insert(header::CACHE_CONTROL, no_store);
    Ok(response)
}
