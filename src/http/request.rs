//! The request that handlers receive: head, id from the path, peer address, and a body with limits.

use std::{
    fs::File,
    io::{self, Write},
    net::IpAddr,
    path::Path,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::{
    HeaderMap, Uri,
    body::{Body as _, Incoming},
    header::{self, HeaderName},
};
use serde_json::{Map, Value};

use crate::{
    error::{Error, FieldErrors, Result},
    validation::type_name,
};

/// The number at `{id}` in a path. A number out of range becomes `i64::MAX`, which no row has.
pub(crate) type PathId = i64;

#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyLimits {
    /// Length of a body in memory; a handler may set a lower limit.
    pub(crate) max_bytes: usize,
    /// From the first read to the last byte.
    pub(crate) timeout: Duration,
}

#[derive(Debug)]
pub(crate) struct Request {
    uri: Uri,
    headers: HeaderMap,
    body: Incoming,
    id: Option<PathId>,
    peer: IpAddr,
    limits: BodyLimits,
}

/// Size of the writes to disk, in bytes.
const SPOOL_BYTES: usize = 256 * 1024;
/// Minimum rate at which a spooled body must arrive.
const MIN_UPLOAD_BYTES_PER_SECOND: u64 = 64 * 1024;

/// The media types that a handler accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AcceptedBody {
    /// `application/json`.
    Json,
    /// `application/json` or `application/x-www-form-urlencoded`.
    JsonOrForm,
}

impl Request {
    pub(crate) fn new(request: hyper::Request<Incoming>, id: Option<PathId>, peer: IpAddr, limits: BodyLimits) -> Self {
        let (head, body) = request.into_parts();
        Self { uri: head.uri, headers: head.headers, body, id, peer, limits }
    }

    /// Returns the number in the path; `PathId::MAX` if the path of the route has no `{id}`.
    pub(crate) fn path_id(&self) -> PathId {
        self.id.unwrap_or(PathId::MAX)
    }

    /// Returns the address at the other end of the connection.
    pub(crate) fn peer(&self) -> IpAddr {
        self.peer
    }

    pub(crate) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Returns a header as text, or `None` if it is absent or not visible ASCII.
    pub(crate) fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Whether the client accepts a gzip body (RFC 9110, 12.5.3: `q=0` excludes a coding, `*` matches codings not
    /// listed).
    pub(crate) fn accepts_gzip(&self) -> bool {
        let mut any = None;
        let mut gzip = None;
        for value in self.headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok()) {
            for part in value.split(',') {
                let (coding, weight) = part.split_once(';').unwrap_or((part, ""));
                let weight = weight
                    .trim()
                    .strip_prefix(['q', 'Q'])
                    .and_then(|q| q.trim_start().strip_prefix('='))
                    .map_or(1.0, |q| q.trim().parse().unwrap_or(0.0));
                match coding.trim() {
                    coding if coding.eq_ignore_ascii_case("gzip") => gzip = Some(weight > 0.0_f32),
                    "*" => any = Some(weight > 0.0),
                    _ => {}
                }
            }
        }
        gzip.or(any).unwrap_or(false)
    }

    /// Returns the decoded query parameters in order.
    pub(crate) fn query(&self) -> impl Iterator<Item = (std::borrow::Cow<'_, str>, std::borrow::Cow<'_, str>)> {
        form_urlencoded::parse(self.uri.query().unwrap_or_default().as_bytes())
    }

    /// Whether there is a query, even an empty one.
    pub(crate) fn has_query(&self) -> bool {
        self.uri.query().is_some()
    }

    /// Returns a validation error that names every query parameter, if there are any.
    pub(crate) fn reject_query_params(&self) -> Result<()> {
        if self.uri.query().is_none() {
            return Ok(());
        }
        let mut errors = FieldErrors::default();
        for (name, _) in self.query() {
            if !errors.has(&name) {
                errors.add(&name, "Unknown parameter.");
            }
        }
        errors.into_result()
    }

    /// Returns the media type of the body in lower case, without parameters; empty if there is no `Content-Type`.
    pub(crate) fn media_type(&self) -> String {
        let content_type = self.header(&header::CONTENT_TYPE).unwrap_or_default();
        content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }

    /// Returns the error for a body of an unsupported media type.
    pub(crate) fn unsupported_media_type(&self) -> Error {
        Error::UnsupportedMediaType(self.header(&header::CONTENT_TYPE).unwrap_or_default().to_owned())
    }

    /// Reads the body, and returns its fields. The body is limited to `limit` bytes and to [`BodyLimits::max_bytes`].
    pub(crate) async fn fields(self, accepted: AcceptedBody, limit: usize) -> Result<Map<String, Value>> {
        let media_type = self.media_type();
        let is_form = accepted == AcceptedBody::JsonOrForm && media_type == "application/x-www-form-urlencoded";
        let is_absent = self.body.is_end_stream() && media_type.is_empty();
        if !is_form && media_type != "application/json" && !is_absent {
            return Err(self.unsupported_media_type());
        }
        let bytes = self.read_body(limit).await?;
        if is_form {
            return Ok(form_urlencoded::parse(&bytes)
                .map(|(name, value)| (name.into_owned(), Value::String(value.into_owned())))
                .collect());
        }
        if bytes.is_empty() {
            return Ok(Map::new());
        }
        match serde_json::from_slice(&bytes) {
            Ok(Value::Object(fields)) => Ok(fields),
            Ok(other) => Err(Error::field(
                "non_field_errors",
                format!("Invalid data. Expected a dictionary, but got {}.", type_name(&other)),
            )),
            Err(error) => Err(Error::Malformed(format!("JSON parse error - {error}"))),
        }
    }

    /// Writes the body, of at most `limit` bytes, to an unnamed file in `dir`. The time limit is that of any other body
    /// plus the time that the bytes received take at [`MIN_UPLOAD_BYTES_PER_SECOND`].
    pub(crate) async fn spool_to_file(mut self, dir: &Path, limit: u64) -> Result<File> {
        if self.body.size_hint().lower() > limit {
            return Err(Error::BodyTooLarge);
        }
        let mut file = tempfile::tempfile_in(dir).map_err(spool_failed)?;
        let (mut bytes, mut length) = (Vec::with_capacity(SPOOL_BYTES), 0);
        let started = Instant::now();
        loop {
            let deadline = started + self.limits.timeout + Duration::from_secs(length / MIN_UPLOAD_BYTES_PER_SECOND);
            let frame = tokio::time::timeout_at(deadline.into(), self.body.frame()).await;
            let frame = frame.map_err(|_| Error::BodyTimeout)?.transpose().map_err(body_unreadable)?;
            let is_last = frame.is_none();
            if let Some(data) = frame.as_ref().and_then(|frame| frame.data_ref()) {
                length += data.len() as u64;
                if length > limit {
                    return Err(Error::BodyTooLarge);
                }
                bytes.extend_from_slice(data);
            }
            if is_last || bytes.len() >= SPOOL_BYTES {
                let writing = tokio::task::spawn_blocking(move || file.write_all(&bytes).map(|()| (file, bytes)));
                (file, bytes) = writing.await.map_err(Error::internal)?.map_err(spool_failed)?;
                bytes.clear();
            }
            if is_last {
                return Ok(file);
            }
        }
    }

    async fn read_body(mut self, limit: usize) -> Result<Bytes> {
        let limit = limit.min(self.limits.max_bytes);
        if self.body.size_hint().lower() > limit as u64 {
            return Err(Error::BodyTooLarge);
        }
        let mut bytes = BytesMut::new();
        let reading = async {
            while let Some(frame) = self.body.frame().await {
                let frame = frame.map_err(body_unreadable)?;
                if let Some(data) = frame.data_ref() {
                    if bytes.len() + data.len() > limit {
                        return Err(Error::BodyTooLarge);
                    }
                    bytes.extend_from_slice(data);
                }
            }
            Ok(())
        };
        match tokio::time::timeout(self.limits.timeout, reading).await {
            Ok(outcome) => outcome.map(|()| bytes.freeze()),
            Err(_) => Err(Error::BodyTimeout),
        }
    }
}

/// The client disconnected, or the chunked coding is malformed.
fn body_unreadable(error: hyper::Error) -> Error {
    Error::Malformed(format!("Request body could not be read - {error}"))
}

fn spool_failed(error: io::Error) -> Error {
    Error::unavailable(format!("writing a request body to disk failed: {error}"))
}
