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
struct Me<'a> {
    id: i64,
    username: &'a str,
    email: &'a str,
    is_staff: bool,
    date_joined: String,
}

/// The caller's own account.
pub(crate) async fn me(app: &App, _: Request, user: User) -> Result<Response> {
    let row = app.database.row(&statements::USERS_PROFILE, &[&user.id]).await?.ok_or(Error::InvalidToken)?;
    let me = Me {
        id: row.get(0),
        username: row.get(1),
        email: row.get(2),
        is_staff: row.get(3),
        date_joined: iso8601(row.get(4)),
    };
    let mut reply = response::json(StatusCode::OK, &me);
    reply.headers_mut().insert(header::CACHE_CONTROL, const { header::HeaderValue::from_static("private, no-store") });
    Ok(reply)
}
