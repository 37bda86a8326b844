//! `GET /api/products/events/`: changes as they are committed, as server-sent events (HTML standard, 9.2).

use hyper::{
    StatusCode,
    header::{self, HeaderName, HeaderValue},
};

use super::{
    listener::{Listener, Start},
    params::continued_token,
};
use crate::{
    app::App,
    auth::User,
    error::Result,
    http::{Body, Request, Response, response},
    versions::SyncToken,
};

const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
/// Makes nginx forward each event at once.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

pub(crate) async fn events(app: &App, request: Request, user: User) -> Result<Response> {
    let start = match continued_token(&request)? {
        Some(text) => SyncToken::parse(&text).map_or(Start::Expired, Start::After),
        None => Start::AtPresent,
    };
    let client = app.client(&user, &request);
    let permit = app.listener_permit(client)?;
    let listener = Listener::new(app.shared(), user, client, start, permit);
    let mut response = response::new(StatusCode::OK, Body::Live(listener.into_stream()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, EVENT_STREAM);
    headers.insert(header::CACHE_CONTROL, NO_STORE);
    headers.insert(X_ACCEL_BUFFERING, const { HeaderValue::from_static("no") });
    Ok(response)
}
