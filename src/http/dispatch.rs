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
};
use tokio::{sync::mpsc, task::JoinError};

use super::{
    connection::ConnectionState,
    protocol_error::ErrorResponder,
    request::{BodyLimits, Request},
    request_id::{RequestIds, X_REQUEST_ID},
    response::{self, CLOSE, Response},
    router::{RouteMatch, Router},
    tracked_body::TrackedBody,
};
use crate::error::{Error, Result};

/// Limit of the request target plus the names and values of all headers.
pub(crate) const MAX_HEAD_BYTES: usize = 16 * 1024;

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

/// Turns requests into responses by means of a route table and the state `S`.
pub(crate) struct Dispatch<S> {
    state: Arc<S>,
    router: Router<S>,
    body_limits: BodyLimits,
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
        body_limits: BodyLimits,
        observer: Arc<dyn RequestObserver>,
    ) -> (Self, mpsc::Receiver<Infallible>) {
        let (write_guard, writes) = mpsc::channel(1);
        (Self { state, router, body_limits, observer, request_ids: RequestIds::new(), write_guard }, writes)
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
        let method = request.method().clone();
        let uri = request.uri().clone();
        let request_id = self.request_ids.get_or_generate(&request);
        let (route, outcome) = match self.route(&request) {
            Ok(RouteMatch::Options(allow)) => (None, Ok(options(&allow))),
            Ok(RouteMatch::Route(route, id)) => {
                let request = Request::new(request, id, peer, self.body_limits);
                (Some(route), self.call_handler(route, request, connection).await)
            }
            Err(error) => (None, Err(error)),
        };
        let (mut response, error) = match outcome {
            Ok(response) => (response, None),
            Err(error) => (response::error(&error), Some(error)),
        };
        set_common_headers(&mut response, request_id.clone());
        if matches!(error, Some(Error::BodyTooLarge | Error::BodyTimeout | Error::HeadTooLarge)) {
            // closing the connection is cheaper than reading the rest of the body
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

    fn route(&self, request: &hyper::Request<Incoming>) -> Result<RouteMatch> {
        let headers: usize = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        if headers + request.uri().path_and_query().map_or(0, |target| target.as_str().len()) > MAX_HEAD_BYTES {
            return Err(Error::HeadTooLarge);
        }
        self.router.find(request.method(), request.uri().path())
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
