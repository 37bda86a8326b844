//! Dispatches a request: routing, head limit, timeout, panics, and the headers that every response has.

use std::{
    any::Any,
    convert::Infallible,
    net::IpAddr,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use hyper::{
    Method, StatusCode,
    body::Incoming,
    header::{self, HeaderValue},
    http::request::Parts,
};
use tokio::{sync::mpsc, task::JoinError};

use super::{
    connection::ConnectionState,
    cors::AllowedOrigins,
    head,
    protocol_error::ErrorResponder,
    public_url::PublicUrl,
    request::{BodyLimits, Request},
    request_body::RequestBody,
    request_id::{RequestIds, X_REQUEST_ID},
    response::{self, CLOSE, Response},
    router::{RouteMatch, Router},
    tracked_body::TrackedBody,
};
use crate::error::{Error, Result};

/// A request and its response, for the access log and the metrics.
#[derive(Debug)]
pub(crate) struct RequestRecord<'a> {
    /// Index in the route table, if a route matched.
    pub(crate) route: Option<usize>,
    /// The method as sent; `-` if no request could be parsed.
    pub(crate) method: &'a Method,
    /// The path as sent, without the query; `-` if no request could be parsed.
    pub(crate) path: &'a str,
    pub(crate) status: StatusCode,
    /// From the end of the request head to the start of the response.
    pub(crate) elapsed: Duration,
    /// Length of the body, if it is known before the body is sent.
    pub(crate) bytes: Option<u64>,
    pub(crate) request_id: &'a str,
    /// The address at the other end of the connection.
    pub(crate) peer: IpAddr,
    /// The error, if its cause should be logged.
    pub(crate) error: Option<&'a Error>,
}

/// Receives a record of every request.
pub(crate) trait RequestObserver: Send + Sync {
    /// Runs before the response is sent, so it must be fast.
    fn observe(&self, record: &RequestRecord<'_>);
}

/// An observer that ignores all records.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NoopObserver;

impl RequestObserver for NoopObserver {
    fn observe(&self, _: &RequestRecord<'_>) {}
}

/// Settings of requests and responses that no route changes.
#[derive(Debug, Clone)]
pub(crate) struct DispatchSettings {
    pub(crate) body_limits: BodyLimits,
    /// `None`: scripts of other origins may read no response.
    pub(crate) allowed_origins: Option<AllowedOrigins>,
    /// `None`: URLs in responses are paths.
    pub(crate) public_url: Option<PublicUrl>,
}

/// Turns requests into responses by means of a route table and the state `S`.
pub(crate) struct Dispatch<S> {
    state: Arc<S>,
    router: Router<S>,
    settings: DispatchSettings,
    observer: Arc<dyn RequestObserver>,
    request_ids: RequestIds,
    /// Every running write holds a clone, so that a shutdown can wait for writes whose client has disconnected.
    write_guard: mpsc::Sender<Infallible>,
}

impl<S: Send + Sync + 'static> Dispatch<S> {
    /// Returns the dispatch, and a receiver that ends when the dispatch is dropped and no write is running.
    pub(crate) fn new(
        state: Arc<S>,
        router: Router<S>,
        settings: DispatchSettings,
        observer: Arc<dyn RequestObserver>,
    ) -> (Self, mpsc::Receiver<Infallible>) {
        let (write_guard, writes) = mpsc::channel(1);
        (Self { state, router, settings, observer, request_ids: RequestIds::new(), write_guard }, writes)
    }

    /// Returns the response to a request. Errors and panics become error responses.
    pub(crate) async fn handle(
        &self,
        request: hyper::Request<Incoming>,
        peer: IpAddr,
        connection: &Arc<ConnectionState>,
    ) -> hyper::Response<TrackedBody> {
        let started = Instant::now();
        connection.request_started();
        let (head, body) = request.into_parts();
        let method = head.method.clone();
        let uri = head.uri.clone();
        let request_id = self.request_ids.get_or_generate(&head.headers);
        let cors_grant = self.settings.allowed_origins.as_ref().map(|origins| origins.grant(&head));
        let body = RequestBody::new(body, connection);
        let is_large_body = body.is_too_large_to_discard();
        let (route, outcome) = match self.route(&head) {
            Ok(RouteMatch::Route(route, id)) => {
                let request = Request::new(head, body, id, peer, self.settings.body_limits);
                (Some(route), self.call_handler(route, request, connection).await)
            }
            Ok(RouteMatch::Options(allow)) => {
                drop(body);
                (None, Ok(options(&allow)))
            }
            Err(error) => {
                drop(body);
                (None, Err(error))
            }
        };
        let (mut response, error) = match outcome {
            Ok(response) => (response, None),
            Err(error) => (response::error(&error), Some(error)),
        };
        set_common_headers(&mut response, request_id.clone());
        if let Some(url) = &self.settings.public_url {
            url.apply(response.headers_mut());
        }
        if let Some(grant) = cors_grant {
            grant.apply(response.status(), response.headers_mut());
        }
        let is_left_unread = is_large_body && connection.has_unread_body();
        if is_left_unread || error.as_ref().is_some_and(ends_connection) {
            // the client need not send the rest; what it sends nevertheless is discarded (`http/linger`)
            response.headers_mut().insert(header::CONNECTION, CLOSE);
        }
        self.observer.observe(&RequestRecord {
            route,
            method: &method,
            path: uri.path(),
            status: response.status(),
            elapsed: started.elapsed(),
            bytes: response.body().len(),
            request_id: request_id.to_str().unwrap_or_default(),
            peer,
            error: error.as_ref(),
        });
        response.map(|body| TrackedBody::new(body, Arc::clone(connection)))
    }

    fn route(&self, head: &Parts) -> Result<RouteMatch> {
        head::validate(head)?;
        self.router.find(&head.method, head.uri.path())
    }

    /// Calls a route's endpoint within the route's timeout. A write runs in a task of its own: hyper drops the handler
    /// when the client disconnects, and a write must not stop half way.
    async fn call_handler(&self, route: usize, request: Request, connection: &ConnectionState) -> Result<Response> {
        let route = &self.router.routes()[route];
        let mut response = (route.endpoint)(Arc::clone(&self.state), request);
        if !route.method.is_safe() {
            let write_guard = self.write_guard.clone();
            let task = tokio::spawn(async move {
                let outcome = response.await;
                drop(write_guard);
                outcome
            });
            response = Box::pin(async { task.await.unwrap_or_else(|error| Err(join_error(error))) });
        }
        match connection.with_deadline(route.timeout, AssertUnwindSafe(response).catch_unwind()).await {
            Some(Ok(outcome)) => outcome,
            Some(Err(panic)) => Err(panic_error(panic.as_ref())),
            None => Err(Error::unavailable(format!("no response within {:?}", route.timeout))),
        }
    }
}

impl<S: Send + Sync + 'static> ErrorResponder for Dispatch<S> {
    fn error_response(&self, error: &Error, peer: IpAddr) -> Response {
        let (mut response, request_id) = (response::error(error), self.request_ids.generate());
        set_common_headers(&mut response, request_id.clone());
        if let Some(origins) = &self.settings.allowed_origins {
            origins.grant_without_request().apply(response.status(), response.headers_mut());
        }
        response.headers_mut().insert(header::CONNECTION, CLOSE);
        self.observer.observe(&RequestRecord {
            route: None,
            method: &Method::from_bytes(b"-").unwrap_or_default(),
            path: "-",
            status: response.status(),
            elapsed: Duration::ZERO,
            bytes: response.body().len(),
            request_id: request_id.to_str().unwrap_or_default(),
            peer,
            // these errors come in floods, and the cause would add a second log line to each
            error: None,
        });
        response
    }
}

/// Whether the rest of the request, of unknown length, is not read after this error.
fn ends_connection(error: &Error) -> bool {
    matches!(error, Error::BodyTooLarge | Error::BodyTimeout | Error::HeadTooLarge | Error::UnsupportedTransferCoding)
}

/// Sets the headers that every response has.
fn set_common_headers(response: &mut Response, request_id: HeaderValue) {
    let headers = response.headers_mut();
    headers.insert(X_REQUEST_ID, request_id);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, const { HeaderValue::from_static("nosniff") });
    headers.insert(header::X_FRAME_OPTIONS, const { HeaderValue::from_static("DENY") });
    headers.insert(header::REFERRER_POLICY, const { HeaderValue::from_static("same-origin") });
}

fn join_error(error: JoinError) -> Error {
    match error.try_into_panic() {
        Ok(panic) => panic_error(panic.as_ref()),
        Err(cancelled) => Error::internal(cancelled),
    }
}

fn panic_error(panic: &(dyn Any + Send)) -> Error {
    let message = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    Error::internal(format!("panic: {message}"))
}

fn options(allow: &str) -> Response {
    let mut response = response::no_content();
    if let Ok(allow) = HeaderValue::from_str(allow) {
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response
}
