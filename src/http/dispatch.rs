//! One request from its head to its reply: look-up, bounds, deadline, panics caught, headers that every answer has.

use std::{
    net::IpAddr,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use hyper::{
    Method, Response, StatusCode,
    body::Incoming,
    header::{self, HeaderName, HeaderValue},
};
use tokio::{sync::mpsc, task::JoinError};

use super::{
    Reply, Request,
    body::TrackedBody,
    connection::ConnectionState,
    refusal::Refuse,
    reply,
    request::BodyLimits,
    router::{Router, Target},
};
use crate::error::{Error, Result};

/// The header that carries the id of a request.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The most bytes that names and values of a request's head may have together.
pub const HEAD_BYTES: usize = 16 * 1024;
const MAX_REQUEST_ID_BYTES: usize = 128;
/// The connection ends with this reply.
pub(super) const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// One finished exchange, for log and metrics.
#[derive(Debug)]
pub struct Exchange<'a> {
    /// The row of the route table, if the request reached one.
    pub row: Option<usize>,
    /// The method as sent; `-` where no request could be read.
    pub method: &'a Method,
    /// The path as sent, without the query.
    pub path: &'a str,
    /// The status of the reply.
    pub status: StatusCode,
    /// From the end of the head to the beginning of the reply.
    pub elapsed: Duration,
    /// Bytes of the body, where they are known beforehand.
    pub bytes: Option<u64>,
    /// The id of the request.
    pub request_id: &'a str,
    /// The address at the other end.
    pub peer: IpAddr,
    /// What the log should know of an error.
    pub error: Option<&'a Error>,
}

/// Hears of each exchange once.
pub trait Observe: Send + Sync {
    /// Must be quick: the client waits for it.
    fn observe(&self, exchange: &Exchange<'_>);
}

/// Hears nothing.
#[derive(Debug, Clone, Copy)]
pub struct Unobserved;

impl Observe for Unobserved {
    fn observe(&self, _: &Exchange<'_>) {}
}

/// Gives out one id a request: some random digits of this process, then a counter.
struct RequestIds {
    process: u32,
    next: AtomicU32,
}

/// Everything that turns a request into a reply.
pub struct Dispatch<S> {
    state: Arc<S>,
    router: Router<S>,
    limits: BodyLimits,
    observer: Arc<dyn Observe>,
    ids: RequestIds,
    /// Held by each running write, so that a stop can wait for those whose client has left.
    running: mpsc::Sender<std::convert::Infallible>,
}

impl<S: Send + Sync + 'static> Dispatch<S> {
    /// With the route table, the shared state, the bounds of bodies and whoever counts. The receiver ends when no write runs any more
    /// and the dispatch itself is gone.
    pub fn new(
        state: Arc<S>,
        router: Router<S>,
        limits: BodyLimits,
        observer: Arc<dyn Observe>,
    ) -> (Self, mpsc::Receiver<std::convert::Infallible>) {
        let (running, ended) = mpsc::channel(1);
        let ids = RequestIds { process: random_u32(), next: AtomicU32::new(0) };
        (Self { state, router, limits, observer, ids, running }, ended)
    }

    /// The route table.
    pub fn router(&self) -> &Router<S> {
        &self.router
    }

    /// The reply to one request, whatever happens.
    pub(super) async fn answer(
        &self,
        request: hyper::Request<Incoming>,
        peer: IpAddr,
        connection: &Arc<ConnectionState>,
    ) -> Response<TrackedBody> {
        let began = Instant::now();
        connection.request_began();
        let method = request.method().clone();
        let uri = request.uri().clone();
        let request_id = self.ids.of(&request);
        let target = self.admit(&request);
        let (row, outcome) = match target {
            Ok(Target::Options(allow)) => (None, Ok(options(&allow))),
            Ok(Target::Row(row, id)) => {
                let request = Request::new(request, id, peer, self.limits);
                (Some(row), self.run(row, request, connection).await)
            }
            Err(error) => (None, Err(error)),
        };
        let (mut reply, error) = match outcome {
            Ok(reply) => (reply, None),
            Err(error) => (reply::error(&error), Some(error)),
        };
        stamp(&mut reply, request_id.clone());
        if matches!(error, Some(Error::BodyTooLarge | Error::BodyTimeout | Error::HeadTooLarge)) {
            // what is left of the body is not worth reading
            reply.headers_mut().insert(header::CONNECTION, CLOSE);
        }
        self.observer.observe(&Exchange {
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

    fn admit(&self, request: &hyper::Request<Incoming>) -> Result<Target> {
        let head: usize = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        if head + request.uri().path_and_query().map_or(0, |path| path.as_str().len()) > HEAD_BYTES {
            return Err(Error::HeadTooLarge);
        }
        self.router.find(request.method(), request.uri().path())
    }

    /// Runs a row's endpoint within its deadline. A write runs in a task of its own: hyper drops the handler of a
    /// client that leaves, and a write that began must not stop half way.
    async fn run(&self, row: usize, request: Request, connection: &ConnectionState) -> Result<Reply> {
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

impl<S: Send + Sync + 'static> Refuse for Dispatch<S> {
    fn refuse(&self, error: &Error, peer: IpAddr) -> Reply {
        let (mut reply, request_id) = (reply::error(error), self.ids.fresh());
        stamp(&mut reply, request_id.clone());
        reply.headers_mut().insert(header::CONNECTION, CLOSE);
        self.observer.observe(&Exchange {
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
fn stamp(reply: &mut Reply, request_id: HeaderValue) {
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

fn options(allow: &str) -> Reply {
    let mut reply = reply::no_content();
    if let Ok(allow) = HeaderValue::from_str(allow) {
        reply.headers_mut().insert(header::ALLOW, allow);
    }
    reply
}

fn random_u32() -> u32 {
    use std::hash::{BuildHasher, RandomState};
    // seeded by the system once a process: unpredictable enough to tell two processes' logs apart
    #[expect(clippy::cast_possible_truncation, reason = "any 32 of the 64 bits will do")]
    let bits = RandomState::new().hash_one(Instant::now()) as u32;
    bits
}

impl RequestIds {
    /// The caller's own id if it is a sane one, or a new one.
    fn of(&self, request: &hyper::Request<Incoming>) -> HeaderValue {
        if let Some(value) = request.headers().get(X_REQUEST_ID)
            && value.to_str().is_ok_and(is_sane)
        {
            return value.clone();
        }
        self.fresh()
    }

    fn fresh(&self) -> HeaderValue {
        let number = u64::from(self.process) << 32 | u64::from(self.next.fetch_add(1, Relaxed));
        let mut id = [0; 16];
        for (place, digit) in id.iter_mut().enumerate() {
            *digit = b"0123456789abcdef"[(number >> (60 - 4 * place) & 15) as usize];
        }
        HeaderValue::from_bytes(&id).unwrap_or_else(|error| unreachable!("hexadecimal digits fit a header: {error}"))
    }
}

fn is_sane(id: &str) -> bool {
    !id.is_empty()
        && id.len() <= MAX_REQUEST_ID_BYTES
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte))
}
