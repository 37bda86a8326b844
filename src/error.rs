//! Every error that a client can see, with its status and message.
//!
//! The causes of errors are logged once, where the response is created, and never reach a client.

use std::{error::Error as StdError, fmt, sync::Arc, time::Duration};

use hyper::StatusCode;
use serde::Serialize;
use serde_json::{Map, Value, json};

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// The cause of an error, for the log only. Shared, because many requests may wait for one fill that fails.
pub(crate) type Cause = Arc<dyn StdError + Send + Sync>;

/// One variant per outcome that a client can distinguish. The messages are Django REST framework's where it has one.
#[derive(Debug, Clone)]
pub enum Error {
    /// 400: invalid fields.
    Invalid(FieldErrors),
    /// 400: the request or its body cannot be parsed.
    Malformed(String),
    /// 401: no credentials, or not a bearer token.
    NotAuthenticated,
    /// 401: an `Authorization` header that does not have two parts.
    BadAuthorizationHeader,
    /// 401: a token that is forged or revoked, or whose account is inactive.
    InvalidToken,
    /// 401: a token past its `exp`.
    ExpiredToken,
    /// 401: wrong username or password. The response does not reveal which.
    WrongCredentials,
    /// 403.
    Forbidden,
    /// 404: no route has this path.
    RouteNotFound,
    /// 404: the named model has no such row.
    RowNotFound(&'static str),
    /// 404: a page number beyond the last page.
    InvalidPage,
    /// 404: a cursor that is damaged or belongs to another list.
    InvalidCursor,
    /// 405.
    MethodNotAllowed {
        /// The method as sent.
        method: String,
        /// The value of `Allow`.
        allow: Arc<str>,
    },
    /// 408: the body did not arrive in time.
    BodyTimeout,
    /// 409: the resource is in use; with the message.
    Conflict(String),
    /// 410: a sync token whose changes are not known.
    SyncTokenExpired,
    /// 412.
    PreconditionFailed,
    /// 413.
    BodyTooLarge,
    /// 415, with the media type that was sent.
    UnsupportedMediaType(String),
    /// 415: the body has a `Content-Encoding`, which is not decoded; with the coding.
    UnsupportedContentCoding(String),
    /// 422: the idempotency key was used with another request body.
    IdempotencyKeyReused,
    /// 429, with the time until the next attempt may succeed.
    Throttled(Duration),
    /// 431.
    HeadTooLarge,
    /// 500.
    Internal(Cause),
    /// 501: the request has a transfer coding other than `chunked`.
    UnsupportedTransferCoding,
    /// 503: the server is overloaded or a dependency is unavailable; with the value of `Retry-After` in seconds.
    Unavailable(Cause, u64),
}

/// What an error contributes to its response.
pub(crate) struct ErrorResponse {
    pub(crate) status: StatusCode,
    /// The JSON body.
    pub(crate) body: Value,
    /// A header besides the common ones.
    pub(crate) header: Option<(&'static str, String)>,
}

const RETRY_AFTER_UNAVAILABLE_SECONDS: u64 = 1;

impl Error {
    /// Returns a 500 with the cause for the log.
    pub(crate) fn internal(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Internal(Arc::from(cause.into()))
    }

    /// Returns a 503 with the cause for the log.
    pub(crate) fn unavailable(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::overloaded(cause, RETRY_AFTER_UNAVAILABLE_SECONDS)
    }

    /// Returns a 503 with the cause for the log and the value of `Retry-After` in seconds.
    pub(crate) fn overloaded(cause: impl Into<Box<dyn StdError + Send + Sync>>, retry_after: u64) -> Self {
        Self::Unavailable(Arc::from(cause.into()), retry_after)
    }

    /// Returns a validation error with one message about one field.
    pub(crate) fn field(name: &str, message: impl Into<String>) -> Self {
        Self::Invalid(FieldErrors::single(name, message))
    }

    pub(crate) fn response(&self) -> ErrorResponse {
        ErrorResponse { status: self.status(), body: self.body(), header: self.header() }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Invalid(_) | Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::NotAuthenticated
            | Self::BadAuthorizationHeader
            | Self::InvalidToken
            | Self::ExpiredToken
            | Self::WrongCredentials => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::RouteNotFound | Self::RowNotFound(_) | Self::InvalidPage | Self::InvalidCursor => {
                StatusCode::NOT_FOUND
            }
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::SyncTokenExpired => StatusCode::GONE,
            Self::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType(_) | Self::UnsupportedContentCoding(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::IdempotencyKeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Throttled(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::UnsupportedTransferCoding => StatusCode::NOT_IMPLEMENTED,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable(..) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn body(&self) -> Value {
        match self {
            Self::Invalid(errors) => Value::Object(errors.0.clone()),
            Self::Malformed(message) | Self::Conflict(message) => detail(message),
            Self::NotAuthenticated => detail("Authentication credentials were not provided."),
            Self::BadAuthorizationHeader => json!({
                "detail": "Authorization header must contain two space-delimited values",
                "code": "bad_authorization_header",
            }),
            Self::InvalidToken => token_not_valid_body("Token is invalid"),
            Self::ExpiredToken => token_not_valid_body("Token is expired"),
            Self::WrongCredentials => detail("No active account found with the given credentials"),
            Self::Forbidden => detail("You do not have permission to perform this action."),
            Self::RouteNotFound => detail("Not found."),
            Self::RowNotFound(model) => detail(&format!("No {model} matches the given query.")),
            Self::InvalidPage => detail("Invalid page."),
            Self::InvalidCursor => detail("Invalid cursor"),
            Self::MethodNotAllowed { method, .. } => detail(&format!("Method \"{method}\" not allowed.")),
            Self::BodyTimeout => detail("Request body did not arrive in time."),
            Self::SyncTokenExpired => json!({
                "detail": "The sync token has expired. Load the whole list again.",
                "code": "sync_token_expired",
            }),
            Self::PreconditionFailed => detail("Precondition failed."),
            Self::BodyTooLarge => detail("Request body too large."),
            Self::UnsupportedMediaType(media_type) => {
                detail(&format!("Unsupported media type \"{media_type}\" in request."))
            }
            Self::UnsupportedContentCoding(coding) => {
                detail(&format!("Unsupported content coding \"{coding}\" in request."))
            }
            Self::UnsupportedTransferCoding => detail("Unsupported transfer coding."),
            Self::IdempotencyKeyReused => detail("This Idempotency-Key was used with another request body."),
            Self::Throttled(wait) => {
                let seconds = retry_after_seconds(*wait);
                let unit = if seconds > 1.0 { "seconds" } else { "second" };
                detail(&format!("Request was throttled. Expected available in {seconds} {unit}."))
            }
            Self::HeadTooLarge => detail("Request header fields too large."),
            Self::Internal(_) => detail("Internal server error."),
            Self::Unavailable(..) => detail("Service temporarily unavailable."),
        }
    }

    /// Returns the header that a response to this error has besides the common ones.
    fn header(&self) -> Option<(&'static str, String)> {
        match self {
            Self::NotAuthenticated
            | Self::BadAuthorizationHeader
            | Self::InvalidToken
            | Self::ExpiredToken
            | Self::WrongCredentials => Some(("www-authenticate", "Bearer realm=\"api\"".to_owned())),
            Self::MethodNotAllowed { allow, .. } => Some(("allow", allow.to_string())),
            // RFC 9110, 12.5.3
            Self::UnsupportedContentCoding(_) => Some(("accept-encoding", "identity".to_owned())),
            Self::Throttled(wait) => Some(("retry-after", retry_after_seconds(*wait).to_string())),
            Self::Unavailable(_, seconds) => Some(("retry-after", seconds.to_string())),
            _ => None,
        }
    }

    /// Returns the message for the command line: the cause if there is one, otherwise the text of the response body.
    pub(crate) fn cli_message(&self) -> String {
        if let Some(cause) = self.cause() {
            return cause.to_string();
        }
        if let Self::Invalid(errors) = self {
            let fields = errors.0.iter().map(|(field, messages)| format!("{field}: {messages}"));
            return fields.collect::<Vec<_>>().join("; ");
        }
        match &self.response().body["detail"] {
            Value::String(message) => message.clone(),
            other => other.to_string(),
        }
    }

    /// Returns the cause to log, if there is one.
    pub(crate) fn cause(&self) -> Option<&Cause> {
        match self {
            Self::Internal(cause) | Self::Unavailable(cause, _) => Some(cause),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let response = self.response();
        write!(f, "{} {}", response.status.as_u16(), response.body)?;
        self.cause().map_or(Ok(()), |cause| write!(f, " ({cause})"))
    }
}

impl StdError for Error {}

fn detail(message: &str) -> Value {
    json!({ "detail": message })
}

/// Returns SimpleJWT's body for an invalid or expired token.
fn token_not_valid_body(message: &str) -> Value {
    json!({
        "detail": "Given token not valid for any token type",
        "code": "token_not_valid",
        "messages": [{ "token_class": "AccessToken", "token_type": "access", "message": message }],
    })
}

/// Returns `wait` in whole seconds, rounded up, at least 1.
fn retry_after_seconds(wait: Duration) -> f64 {
    wait.as_secs_f64().ceil().max(1.0)
}

impl From<FieldErrors> for Error {
    fn from(errors: FieldErrors) -> Self {
        Self::Invalid(errors)
    }
}

/// Validation errors keyed by field: `{"name": ["This field is required."], "tags": {"1": [...]}}`.
#[derive(Debug, Clone, Default, Serialize)]
pub struct FieldErrors(Map<String, Value>);

impl FieldErrors {
    pub(crate) fn single(field: &str, message: impl Into<String>) -> Self {
        let mut errors = Self::default();
        errors.add(field, message);
        errors
    }

    /// Adds a message about a field.
    pub(crate) fn add(&mut self, field: &str, message: impl Into<String>) {
        let messages = self.0.entry(field).or_insert_with(|| json!([]));
        if let Value::Array(messages) = messages {
            messages.push(Value::String(message.into()));
        }
    }

    /// Adds a message about an item of a list; `index` counts from 0.
    pub(crate) fn add_item(&mut self, field: &str, index: usize, message: impl Into<String>) {
        let items = self.0.entry(field).or_insert_with(|| json!({}));
        if let Value::Object(items) = items
            && let Value::Array(messages) = items.entry(index.to_string()).or_insert_with(|| json!([]))
        {
            messages.push(Value::String(message.into()));
        }
    }

    /// Whether there is a message about this field.
    pub(crate) fn has(&self, field: &str) -> bool {
        self.0.contains_key(field)
    }

    /// Adds the messages of `others`. They replace those about the same fields.
    pub(crate) fn merge(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns an error if there is any message.
    pub(crate) fn into_result(self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(Error::Invalid(self)) }
    }
}
