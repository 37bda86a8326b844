//! Every outcome of a request that a client can tell apart from success, and the one place that decides its
//! status and its words.
//!
//! It must not know where an error comes from: causes travel along to be logged once, at the boundary, and
//! never reach a client.

use std::{error::Error as StdError, fmt, sync::Arc, time::Duration};

use hyper::StatusCode;
use serde::Serialize;
use serde_json::{Map, Value, json};

/// The result of everything that can answer a request.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// What lies behind an error; for the log only. Shared, since many requests may wait for one fill that fails.
pub(crate) type Cause = Arc<dyn StdError + Send + Sync>;

/// One variant per outcome that a client can tell apart. Wordings are Django REST framework's where it has one.
#[derive(Debug, Clone)]
pub enum Error {
    /// 400: fields that are missing, too long, of a wrong type, taken, ...
    Invalid(FieldErrors),
    /// 400: the body cannot be read at all.
    Malformed(String),
    /// 401: no credentials, or not a bearer token.
    NotAuthenticated,
    /// 401: an `Authorization` header of more or fewer than two parts.
    BadAuthorizationHeader,
    /// 401: forged, revoked, or of an account that is no longer active.
    InvalidToken,
    /// 401: a token past its `exp`.
    ExpiredToken,
    /// 401: the wrong pair of username and password; never says which.
    WrongCredentials,
    /// 403.
    Forbidden,
    /// 404: no such path.
    RouteNotFound,
    /// 404: no such row of the model named.
    RowNotFound(&'static str),
    /// 404: a numbered page beyond the last.
    InvalidPage,
    /// 404: a cursor that is damaged, or of another list.
    InvalidCursor,
    /// 405, with the methods that are allowed.
    MethodNotAllowed {
        /// The method asked for, as sent.
        method: String,
        /// The value of `Allow`.
        allow: Arc<str>,
    },
    /// 408: the body did not arrive in time.
    BodyTimeout,
    /// 409: still in use; the words say by what.
    Conflict(String),
    /// 412.
    PreconditionFailed,
    /// 413.
    BodyTooLarge,
    /// 415, with the media type that was sent.
    UnsupportedMediaType(String),
    /// 422: an idempotency key that stands for another body.
    IdempotencyKeyReused,
    /// 429, with the time until the next attempt may succeed.
    Throttled(Duration),
    /// 431: head of the request over its bound.
    HeadTooLarge,
    /// 500: our fault.
    Internal(Cause),
    /// 503: overloaded, or something we need is away; with the seconds after which to come again.
    Unavailable(Cause, u64),
}

/// The status, the JSON body and the extra header of an error.
pub(crate) struct ErrorResponse {
    /// The status of the answer.
    pub(crate) status: StatusCode,
    /// The JSON body.
    pub(crate) body: Value,
    /// One header besides those that every answer carries.
    pub(crate) header: Option<(&'static str, String)>,
}

const RETRY_AFTER_UNAVAILABLE_SECONDS: u64 = 1;

impl Error {
    /// Our fault, with the cause for the log.
    pub(crate) fn internal(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Internal(Arc::from(cause.into()))
    }

    /// Something we need is away or overloaded, with the cause for the log.
    pub(crate) fn unavailable(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Unavailable(Arc::from(cause.into()), RETRY_AFTER_UNAVAILABLE_SECONDS)
    }

    /// Too much is asked for, with the cause for the log and the seconds after which to come again.
    pub(crate) fn overloaded(cause: impl Into<Box<dyn StdError + Send + Sync>>, seconds: u64) -> Self {
        Self::Unavailable(Arc::from(cause.into()), seconds)
    }

    /// One message about one field.
    pub(crate) fn field(name: &str, message: impl Into<String>) -> Self {
        Self::Invalid(FieldErrors::of(name, message))
    }

    /// What the client hears.
    pub(crate) fn answer(&self) -> ErrorResponse {
        let detail =
            |status: StatusCode, words: &str| ErrorResponse { status, body: json!({ "detail": words }), header: None };
        match self {
            Self::Invalid(errors) => {
                ErrorResponse { status: StatusCode::BAD_REQUEST, body: Value::Object(errors.0.clone()), header: None }
            }
            Self::Malformed(words) => detail(StatusCode::BAD_REQUEST, words),
            Self::NotAuthenticated => {
                unauthorized(json!({ "detail": "Authentication credentials were not provided." }))
            }
            Self::BadAuthorizationHeader => unauthorized(json!({
                "detail": "Authorization header must contain two space-delimited values",
                "code": "bad_authorization_header",
            })),
            Self::InvalidToken => unauthorized(dead_token("Token is invalid")),
            Self::ExpiredToken => unauthorized(dead_token("Token is expired")),
            Self::WrongCredentials => {
                unauthorized(json!({ "detail": "No active account found with the given credentials" }))
            }
            Self::Forbidden => detail(StatusCode::FORBIDDEN, "You do not have permission to perform this action."),
            Self::RouteNotFound => detail(StatusCode::NOT_FOUND, "Not found."),
            Self::RowNotFound(model) => detail(StatusCode::NOT_FOUND, &format!("No {model} matches the given query.")),
            Self::InvalidPage => detail(StatusCode::NOT_FOUND, "Invalid page."),
            Self::InvalidCursor => detail(StatusCode::NOT_FOUND, "Invalid cursor"),
            Self::MethodNotAllowed { method, allow } => {
                let words = format!("Method \"{method}\" not allowed.");
                let answer = detail(StatusCode::METHOD_NOT_ALLOWED, &words);
                ErrorResponse { header: Some(("allow", allow.to_string())), ..answer }
            }
            Self::BodyTimeout => detail(StatusCode::REQUEST_TIMEOUT, "Request body did not arrive in time."),
            Self::Conflict(words) => detail(StatusCode::CONFLICT, words),
            Self::PreconditionFailed => detail(StatusCode::PRECONDITION_FAILED, "Precondition failed."),
            Self::BodyTooLarge => detail(StatusCode::PAYLOAD_TOO_LARGE, "Request body too large."),
            Self::UnsupportedMediaType(media_type) => detail(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                &format!("Unsupported media type \"{media_type}\" in request."),
            ),
            Self::IdempotencyKeyReused => {
                detail(StatusCode::UNPROCESSABLE_ENTITY, "This Idempotency-Key was used with another request body.")
            }
            Self::Throttled(wait) => {
                let seconds = wait.as_secs_f64().ceil().max(1.0);
                let unit = if seconds > 1.0 { "seconds" } else { "second" };
                let words = format!("Request was throttled. Expected available in {seconds} {unit}.");
                let answer = detail(StatusCode::TOO_MANY_REQUESTS, &words);
                ErrorResponse { header: Some(("retry-after", seconds.to_string())), ..answer }
            }
            Self::HeadTooLarge => {
                detail(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "Request header fields too large.")
            }
            Self::Internal(_) => detail(StatusCode::INTERNAL_SERVER_ERROR, "Internal server error."),
            Self::Unavailable(_, seconds) => {
                let answer = detail(StatusCode::SERVICE_UNAVAILABLE, "Service temporarily unavailable.");
                ErrorResponse { header: Some(("retry-after", seconds.to_string())), ..answer }
            }
        }
    }

    /// What somebody at this machine hears: the cause too, and no HTTP.
    pub(crate) fn told_here(&self) -> String {
        match (self, self.cause()) {
            (_, Some(cause)) => cause.to_string(),
            (Self::Invalid(errors), _) => {
                errors.0.iter().map(|(field, words)| format!("{field}: {words}")).collect::<Vec<_>>().join("; ")
            }
            _ => match &self.answer().body["detail"] {
                Value::String(words) => words.clone(),
                other => other.to_string(),
            },
        }
    }

    /// What the log hears, if there is anything to hear.
    pub(crate) fn cause(&self) -> Option<&Cause> {
        match self {
            Self::Internal(cause) | Self::Unavailable(cause, _) => Some(cause),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let answer = self.answer();
        write!(f, "{} {}", answer.status.as_u16(), answer.body)?;
        self.cause().map_or(Ok(()), |cause| write!(f, " ({cause})"))
    }
}

impl StdError for Error {}

fn unauthorized(body: Value) -> ErrorResponse {
    ErrorResponse {
        status: StatusCode::UNAUTHORIZED,
        body,
        header: Some(("www-authenticate", "Bearer realm=\"api\"".to_owned())),
    }
}

/// The words of SimpleJWT for a token that is not, or no longer, good.
fn dead_token(message: &str) -> Value {
    json!({
        "detail": "Given token not valid for any token type",
        "code": "token_not_valid",
        "messages": [{ "token_class": "AccessToken", "token_type": "access", "message": message }],
    })
}

impl From<FieldErrors> for Error {
    fn from(errors: FieldErrors) -> Self {
        Self::Invalid(errors)
    }
}

/// Faults by field, all of them at once: `{"name": ["This field is required."], "tags": {"1": [...]}}`.
#[derive(Debug, Clone, Default, Serialize)]
pub struct FieldErrors(Map<String, Value>);

impl FieldErrors {
    /// One message about one field.
    pub(crate) fn of(field: &str, message: impl Into<String>) -> Self {
        let mut errors = Self::default();
        errors.add(field, message);
        errors
    }

    /// One more message about a field.
    pub(crate) fn add(&mut self, field: &str, message: impl Into<String>) {
        let messages = self.0.entry(field).or_insert_with(|| json!([]));
        if let Value::Array(messages) = messages {
            messages.push(Value::String(message.into()));
        }
    }

    /// One more message about the item of a list, counted from 0.
    pub(crate) fn add_item(&mut self, field: &str, index: usize, message: impl Into<String>) {
        let items = self.0.entry(field).or_insert_with(|| json!({}));
        if let Value::Object(items) = items
            && let Value::Array(messages) = items.entry(index.to_string()).or_insert_with(|| json!([]))
        {
            messages.push(Value::String(message.into()));
        }
    }

    /// Whether anything was said about this field.
    pub(crate) fn has(&self, field: &str) -> bool {
        self.0.contains_key(field)
    }

    /// These and others, about other fields.
    pub(crate) fn and(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }

    /// Whether nothing was said.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Everything in order, or all the faults.
    pub(crate) fn into_result(self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(Error::Invalid(self)) }
    }
}
