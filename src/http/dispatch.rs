//! One request from its head to its reply: look-up, bounds, deadline, panics caught, headers that every answer has.

use std::{
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

/// The most bytes that names and values of a request's head may have together.
pub(crate) const HEAD_BYTES: usize = 16 * 1024;

/// One finished exchange, for log and metrics.
#[derive(Debug)]
pub(crate) struct RequestRecord<'a> {
    /// The row of the route table, if the request reached one.
    pub(crate) row: Option<usize>,
    /// The method as sent; `-` where no request could be read.
    pub(crate) method: &'a Method,
    /// The path as sent, without the query.
    pub(crate) path: &'a str,
    /// The status of the reply.
    pub(crate) status: StatusCode,
    /// From the end of the head to the beginning of the reply.
    pub(crate) elapsed: Duration,
    /// Bytes of the body, where they are known beforehand.
    pub(crate) bytes: Option<u64>,
    /// The id of the request.
    pub(crate) request_id: &'a str,
    /// The address at the other end.
    pub(crate) peer: IpAddr,
    /// What the log should know of an error.
    pub(crate) error: Option<&'a Error>,
}

/// Hears of each exchange once.
pub(crate) trait RequestObserver: Send + Sync {
    /// Must be quick: the client waits for it.
    fn observe(&self, exchange: &RequestRecord<'_>);
}

/// Hears nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NoopObserver;

impl RequestObserver for NoopObserver {
    fn observe(&self, _: &RequestRecord<'_>) {}
}

/// Everything that turns a request into a reply.
pub(crate) struct Dispatch<S> {
    state: Arc<S>,
    router: Router<S>,
    limits: BodyLimits,
    observer: Arc<dyn RequestObserver>,
    ids: RequestIds,
    /// Held by each running write, so that a stop can wait for those whose client has left.
    running: mpsc::Sender<std::convert::Infallible>,
}

impl<S: Send + Sync + 'static> Dispatch<S> {
    /// With the route table, the shared state, the bounds of bodies and whoever counts. The receiver ends when no write runs any more
    /// and the dispatch itself is gone.
    pub(crate) fn new(
        state: Arc<S>,
        router: Router<S>,
        limits: BodyLimits,
        observer: Arc<dyn RequestObserver>,
    ) -> (Self, mpsc::Receiver<std::convert::Infallible>) {
        let (running, ended) = mpsc::channel(1);
        (Self { state, router, limits, observer, ids: RequestIds::new(), running }, ended)
    }

    /// The reply to one request, whatever happens.
    pub(crate) async fn answer(
        &self,
        request: hyper::Request<Incoming>,
        peer: IpAddr,
        connection: &Arc<ConnectionState>,
    ) -> hyper::Response<TrackedBody> {
        let began = Instant::now();
        connection.request_began();
        let method = request.method().clone();
        let uri = request.uri().clone();
        let request_id = self.ids.of(&request);
        let target = self.admit(&request);
        let (row, outcome) = match target {
            Ok(RouteMatch::Options(allow)) => (None, Ok(options(&allow))),
            Ok(RouteMatch::Row(row, id)) => {
                let request = Request::new(request, id, peer, self.limits);
                (Some(row), self.run(row, request, connection).await)
            }
            Err(error) => (None, Err(error)),
        };
        let (mut reply, error) = match outcome {
            Ok(reply) => (reply, None),
            Err(error) => (response::error(&error), Some(error)),
        };
        stamp(&mut reply, request_id.clone());
        if matches!(error, Some(Error::BodyTooLarge | Error::BodyTimeout | Error::HeadTooLarge)) {
            // what is left of the body is not worth reading
            reply.headers_mut().insert(header::CONNECTION, CLOSE);
        }
        self.observer.observe(&RequestRecord {
            row,
            method: &method,
            path: uri.path(),
            status: reply.status(),
            elapsed: began.elapsed(),
            bytes: reply.body().len(),
            request_id: request_id.to_str().unwrap_or_default(),
            peer,
            error: error.as_ref(),
        });
        reply.map(|body| TrackedBody::new(body, Arc::clone(connection)))
    }

    fn admit(&self, request: &hyper::Request<Incoming>) -> Result<RouteMatch> {
        let head: usize = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        if head + request.uri().path_and_query().map_or(0, |path| path.as_str().len()) > HEAD_BYTES {
            return Err(Error::HeadTooLarge);
        }
        self.router.find(request.method(), request.uri().path())
    }

    /// Runs a row's endpoint within its deadline. A write runs in a task of its own: hyper drops the handler of a
    /// client that leaves, and a write that began must not stop half way.
    async fn run(&self, row: usize, request: Request, connection: &ConnectionState) -> Result<Response> {
        let route = &self.router.routes()[row];
        let mut answering = (route.endpoint)(Arc::clone(&self.state), request);
        if !route.method.is_safe() {
            let running = self.running.clone();
            let task = tokio::spawn(async move {
                let outcome = answering.await;
                drop(running);
                outcome
            });
            answering = Box::pin(async { task.await.unwrap_or_else(|failed| Err(ended(failed))) });
        }
        match connection.within(route.deadline, AssertUnwindSafe(answering).catch_unwind()).await {
            Some(Ok(outcome)) => outcome,
            Some(Err(panic)) => Err(panicked(panic.as_ref())),
            None => Err(Error::unavailable(format!("no answer within {:?}", route.deadline))),
        }
    }
}

impl<S: Send + Sync + 'static> ErrorResponder for Dispatch<S> {
    fn refuse(&self, error: &Error, peer: IpAddr) -> Response {
        let (mut reply, request_id) = (response::error(error), self.ids.fresh());
        stamp(&mut reply, request_id.clone());
        reply.headers_mut().insert(header::CONNECTION, CLOSE);
        self.observer.observe(&RequestRecord {
            row: None,
            method: &Method::from_bytes(b"-").unwrap_or_default(),
            path: "-",
            status: reply.status(),
            elapsed: Duration::ZERO,
            bytes: reply.body().len(),
            request_id: request_id.to_str().unwrap_or_default(),
            peer,
            // whoever comes by the thousand would write a second line for each
            error: None,
        });
        reply
    }
}

/// What every answer carries.
fn stamp(reply: &mut Response, request_id: HeaderValue) {
    let headers = reply.headers_mut();
    headers.insert(X_REQUEST_ID, request_id);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, const { HeaderValue::from_static("nosniff") });
    headers.insert(header::X_FRAME_OPTIONS, const { HeaderValue::from_static("DENY") });
    headers.insert(header::REFERRER_POLICY, const { HeaderValue::from_static("same-origin") });
}

fn ended(task: JoinError) -> Error {
    match task.try_into_panic() {
        Ok(panic) => panicked(panic.as_ref()),
        Err(gone) => Error::internal(gone),
    }
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> Error {
    let words = panic
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without words".to_owned());
    Error::internal(format!("panic: {words}"))
}

fn options(allow: &str) -> Response {
    let mut reply = response::no_content();
    if let Ok(allow) = HeaderValue::from_str(allow) {
        reply.headers_mut().insert(header::ALLOW, allow);
    }
    reply
}
