//! A request as handlers see it: head, number in the path, caller's address, and a body with bounds.

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
    error::{Error, Result},
    validation::type_name,
};

/// The number that a path carried in the place of `{id}`. One that no row can have is as good as any other that
/// no row has.
pub(crate) type PathId = i64;

/// The bounds of a body: its bytes, and the time in which it has to arrive.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyLimits {
    /// Bytes of a body, unless the handler asks for less.
    pub(crate) bytes: usize,
    /// From the first read to the last byte.
    pub(crate) time: Duration,
}

/// One request.
#[derive(Debug)]
pub(crate) struct Request {
    uri: Uri,
    headers: HeaderMap,
    body: Incoming,
    id: Option<PathId>,
    peer: IpAddr,
    limits: BodyLimits,
}

/// Bytes of a body that are written to disk at a time.
const SPOOL_BYTES: usize = 256 * 1024;
/// Bytes a second in which a large body has to arrive.
const SLOWEST: u64 = 64 * 1024;

/// What a body may be written in, besides JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AcceptedBody {
    /// `application/json` only.
    Json,
    /// Also `application/x-www-form-urlencoded`.
    JsonOrForm,
}

impl Request {
    pub(crate) fn new(request: hyper::Request<Incoming>, id: Option<PathId>, peer: IpAddr, limits: BodyLimits) -> Self {
        let (head, body) = request.into_parts();
        Self { uri: head.uri, headers: head.headers, body, id, peer, limits }
    }

    /// The number in the path. Only rows whose path has one may ask.
    pub(crate) fn path_id(&self) -> PathId {
        self.id.unwrap_or(PathId::MAX)
    }

    /// The address at the other end of the connection.
    pub(crate) fn peer(&self) -> IpAddr {
        self.peer
    }

    /// All headers.
    pub(crate) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// A header as text; one that is not visible ASCII counts as absent.
    pub(crate) fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Whether the client accepts a gzip body (RFC 9110, 12.5.3: `q=0` refuses, `*` stands for the unnamed).
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

    /// The parameters of the query, decoded, in their order.
    pub(crate) fn query(&self) -> impl Iterator<Item = (std::borrow::Cow<'_, str>, std::borrow::Cow<'_, str>)> {
        form_urlencoded::parse(self.uri.query().unwrap_or_default().as_bytes())
    }

    /// Whether there is a query, be it an empty one.
    pub(crate) fn has_query(&self) -> bool {
        self.uri.query().is_some()
    }

    /// Returns an error that names each parameter of the query, if it has any.
    pub(crate) fn reject_query_params(&self) -> Result<()> {
        if self.uri.query().is_none() {
            return Ok(());
        }
        let mut errors = crate::error::FieldErrors::default();
        for (name, _) in self.query() {
            if !errors.has(&name) {
                errors.add(&name, "Unknown parameter.");
            }
        }
        errors.into_result()
    }

    /// The media type of the body, in lower case and without parameters; empty when the request tells none.
    pub(crate) fn media_type(&self) -> String {
        let content_type = self.header(&header::CONTENT_TYPE).unwrap_or_default();
        content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }

    /// What is said of a body that nobody here reads.
    pub(crate) fn unsupported_media_type(&self) -> Error {
        Error::UnsupportedMediaType(self.header(&header::CONTENT_TYPE).unwrap_or_default().to_owned())
    }

    /// The body as an object of fields, of at most `limit` bytes (and never more than the server's bound).
    pub(crate) async fn fields(self, accepts: AcceptedBody, limit: usize) -> Result<Map<String, Value>> {
        let media_type = self.media_type();
        let form = accepts == AcceptedBody::JsonOrForm && media_type == "application/x-www-form-urlencoded";
        let no_body = self.body.is_end_stream();
        if !form && media_type != "application/json" && !(no_body && media_type.is_empty()) {
            return Err(self.unsupported_media_type());
        }
        let bytes = self.read_body(limit).await?;
        if form {
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

    /// The body in a file without a name in `folder`, of at most `limit` bytes. It has the time of an ordinary body, and
    /// more as more arrives: whoever sends less than [`SLOWEST`] is not waited for.
    pub(crate) async fn into_file(mut self, folder: &Path, limit: u64) -> Result<File> {
        if self.body.size_hint().lower() > limit {
            return Err(Error::BodyTooLarge);
        }
        let mut file = tempfile::tempfile_in(folder).map_err(no_room)?;
        let (mut bytes, mut length) = (Vec::with_capacity(SPOOL_BYTES), 0);
        let began = Instant::now();
        loop {
            let deadline = began + self.limits.time + Duration::from_secs(length / SLOWEST);
            let frame = tokio::time::timeout_at(deadline.into(), self.body.frame()).await;
            let frame = frame.map_err(|_| Error::BodyTimeout)?.transpose().map_err(broken_off)?;
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
                (file, bytes) = writing.await.map_err(Error::internal)?.map_err(no_room)?;
                bytes.clear();
            }
            if is_last {
                return Ok(file);
            }
        }
    }

    async fn read_body(mut self, limit: usize) -> Result<Bytes> {
        let limit = limit.min(self.limits.bytes);
        if self.body.size_hint().lower() > limit as u64 {
            return Err(Error::BodyTooLarge);
        }
        let mut bytes = BytesMut::new();
        let reading = async {
            while let Some(frame) = self.body.frame().await {
                let frame = frame.map_err(broken_off)?;
                if let Some(data) = frame.data_ref() {
                    if bytes.len() + data.len() > limit {
                        return Err(Error::BodyTooLarge);
                    }
                    bytes.extend_from_slice(data);
                }
            }
            Ok(())
        };
        match tokio::time::timeout(self.limits.time, reading).await {
            Ok(outcome) => outcome.map(|()| bytes.freeze()),
            Err(_) => Err(Error::BodyTimeout),
        }
    }
}

/// The client left in the middle, or its chunks are no chunks: there is nobody to answer.
fn broken_off(error: hyper::Error) -> Error {
    Error::Malformed(format!("Request body broke off - {error}"))
}

/// The disk takes no more.
fn no_room(error: io::Error) -> Error {
    Error::unavailable(format!("a request body could not be kept: {error}"))
}
