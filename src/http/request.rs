//! The request that handlers receive: head, id from the path, peer address, and a body with limits.

use std::{
    fs::File,
    io::{self, Write},
    net::IpAddr,
    path::Path,
    sync::OnceLock,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use hyper::{
    HeaderMap, Uri,
    header::{self, HeaderName},
};
use serde_json::{Map, Value};

use super::{request_body::RequestBody, request_budget::RequestReservation};
use crate::{
    error::{Error, FieldErrors, Result},
    validation::type_name,
};

/// The id of a row in a path.
pub(crate) type PathId = i64;

/// What a path has at `{id}` of its route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PathParam {
    /// The route has no `{id}`.
    None,
    Id(PathId),
    /// A number above `i64::MAX`, which no row has.
    OutOfRange,
}

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
    body: RequestBody,
    id: PathParam,
    peer: IpAddr,
    client_address: OnceLock<IpAddr>,
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
    pub(crate) fn new(
        head: hyper::http::request::Parts,
        body: RequestBody,
        id: PathParam,
        peer: IpAddr,
        limits: BodyLimits,
    ) -> Self {
        let client_address = OnceLock::new();
        Self { uri: head.uri, headers: head.headers, body, id, peer, client_address, limits }
    }

    /// Returns the number in the path. The route table lets no handler read one that is absent or out of range.
    pub(crate) fn path_id(&self) -> PathId {
        match self.id {
            PathParam::Id(id) => id,
            PathParam::None | PathParam::OutOfRange => PathId::MAX,
        }
    }

    /// Returns the error for a row of `model` that does not exist, if the number in the path is out of range.
    pub(crate) fn reject_id_out_of_range(&self, model: &'static str) -> Result<()> {
        if self.id == PathParam::OutOfRange { Err(Error::RowNotFound(model)) } else { Ok(()) }
    }

    /// Returns the address at the other end of the connection.
    pub(crate) fn peer(&self) -> IpAddr {
        self.peer
    }

    /// Returns the address of the client, which the first call finds with `find`.
    pub(crate) fn client_address(&self, find: impl FnOnce() -> IpAddr) -> IpAddr {
        *self.client_address.get_or_init(find)
    }

    pub(crate) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Returns a header as text, or `None` if it is absent or not visible ASCII.
    pub(crate) fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Whether the client accepts a gzip body, and does not prefer one without coding (RFC 9110, 12.5.3: `q=0` excludes a
    /// coding, `*` matches codings not listed).
    pub(crate) fn accepts_gzip(&self) -> bool {
        let (mut any, mut gzip, mut identity) = (None, None, None);
        for value in self.headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok()) {
            for part in value.split(',') {
                let (coding, weight) = part.split_once(';').unwrap_or((part, ""));
                let weight = weight
                    .trim()
                    .strip_prefix(['q', 'Q'])
                    .and_then(|q| q.trim_start().strip_prefix('='))
                    .map_or(1.0_f32, |q| q.trim().parse().unwrap_or(0.0));
                match coding.trim() {
                    coding if coding.eq_ignore_ascii_case("gzip") => gzip = Some(weight),
                    coding if coding.eq_ignore_ascii_case("identity") => identity = Some(weight),
                    "*" => any = Some(weight),
                    _ => {}
                }
            }
        }
        let gzip = gzip.or(any).unwrap_or(0.0);
        gzip > 0.0 && identity.or(any).is_none_or(|identity| gzip >= identity)
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

    /// Whether the body is text in UTF-8: `Content-Type` has no `charset`, or that one.
    fn has_utf8_charset(&self) -> bool {
        let content_type = self.header(&header::CONTENT_TYPE).unwrap_or_default();
        content_type.split(';').skip(1).all(|parameter| match parameter.split_once('=') {
            Some((name, value)) if name.trim().eq_ignore_ascii_case("charset") => {
                let charset = value.trim().trim_matches('"');
                ["utf-8", "utf8"].iter().any(|utf8| charset.eq_ignore_ascii_case(utf8))
            }
            _ => true,
        })
    }

    /// Returns an error if there is a body with a `Content-Encoding`, also for a handler that ignores the body.
    pub(crate) fn reject_encoded_body(&self) -> Result<()> {
        if self.body.is_finished() { Ok(()) } else { self.reject_content_coding() }
    }

    /// Returns an error for a `Content-Encoding`: no coding is decoded.
    fn reject_content_coding(&self) -> Result<()> {
        for value in self.headers.get_all(header::CONTENT_ENCODING) {
            let codings = String::from_utf8_lossy(value.as_bytes());
            let codings = codings.trim();
            if !codings.is_empty() && !codings.eq_ignore_ascii_case("identity") {
                return Err(Error::UnsupportedContentCoding(codings.to_owned()));
            }
        }
        Ok(())
    }

    /// Returns the error for a body of an unsupported media type.
    pub(crate) fn unsupported_media_type(&self) -> Error {
        Error::UnsupportedMediaType(self.header(&header::CONTENT_TYPE).unwrap_or_default().to_owned())
    }

    /// Reads the body, and returns its fields. The body is limited to `limit` bytes and to [`BodyLimits::max_bytes`].
    pub(crate) async fn fields(self, accepted: AcceptedBody, limit: usize) -> Result<Map<String, Value>> {
        let media_type = self.media_type();
        let is_form = accepted == AcceptedBody::JsonOrForm && media_type == "application/x-www-form-urlencoded";
        let is_absent = self.body.is_finished() && media_type.is_empty();
        if !is_form && media_type != "application/json" && !is_absent || !self.has_utf8_charset() {
            return Err(self.unsupported_media_type());
        }
        self.reject_content_coding()?;
        let mut reservation = self.body.reservation();
        let bytes = self.read_body(limit, &mut reservation).await?;
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
        self.reject_content_coding()?;
        if self.body.min_length() > limit {
            return Err(Error::BodyTooLarge);
        }
        let mut file = tempfile::tempfile_in(dir).map_err(spool_failed)?;
        let (mut bytes, mut length) = (Vec::with_capacity(SPOOL_BYTES), 0);
        let started = Instant::now();
        loop {
            let deadline = started + self.limits.timeout + Duration::from_secs(length / MIN_UPLOAD_BYTES_PER_SECOND);
            let data = tokio::time::timeout_at(deadline.into(), self.body.read()).await;
            let data = data.map_err(|_| Error::BodyTimeout)?.map_err(body_unreadable)?;
            let is_last = data.is_none();
            if let Some(data) = data {
                length += data.len() as u64;
                if length > limit {
                    return Err(Error::BodyTooLarge);
                }
                bytes.extend_from_slice(&data);
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

    /// Reads the body into memory. Its bytes are reserved in the budget for unfinished requests.
    async fn read_body(mut self, limit: usize, reservation: &mut Option<RequestReservation>) -> Result<BytesMut> {
        let limit = limit.min(self.limits.max_bytes);
        if self.body.min_length() > limit as u64 {
            return Err(Error::BodyTooLarge);
        }
        let mut bytes = BytesMut::new();
        let reading = async {
            while let Some(data) = self.body.read().await.map_err(body_unreadable)? {
                let length = bytes.len() + data.len();
                if length > limit {
                    return Err(Error::BodyTooLarge);
                }
                if !reservation.as_mut().is_none_or(|reservation| reservation.resize(length)) {
                    return Err(Error::unavailable("the budget for unfinished requests is exhausted"));
                }
                bytes.extend_from_slice(&data);
            }
            Ok(())
        };
        match tokio::time::timeout(self.limits.timeout, reading).await {
            Ok(outcome) => outcome.map(|()| bytes),
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
