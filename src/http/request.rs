//! A request as handlers see it: head, number in the path, caller's address, and a body with bounds.

use std::{net::IpAddr, time::Duration};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::{
    HeaderMap, Uri,
    body::{Body as _, Incoming},
    header::{self, HeaderName},
};
use serde_json::{Map, Value};

use super::router::PathId;
use crate::error::{Error, Result};

/// The bound on the time in which a body has to arrive.
#[derive(Debug, Clone, Copy)]
pub struct BodyLimits {
    /// Bytes of a body, unless the handler asks for less.
    pub bytes: usize,
    /// From the first read to the last byte.
    pub time: Duration,
}

/// One request.
#[derive(Debug)]
pub struct Request {
    uri: Uri,
    headers: HeaderMap,
    body: Incoming,
    id: Option<PathId>,
    peer: IpAddr,
    limits: BodyLimits,
}

/// What a body may be written in, besides JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepts {
    /// `application/json` only.
    Json,
    /// Also `application/x-www-form-urlencoded`.
    JsonOrForm,
}

impl Request {
    pub(super) fn new(request: hyper::Request<Incoming>, id: Option<PathId>, peer: IpAddr, limits: BodyLimits) -> Self {
        let (head, body) = request.into_parts();
        Self { uri: head.uri, headers: head.headers, body, id, peer, limits }
    }

    /// The number in the path. Only rows whose path has one may ask.
    pub fn path_id(&self) -> PathId {
        self.id.unwrap_or(PathId::MAX)
    }

    /// The address at the other end of the connection.
    pub fn peer(&self) -> IpAddr {
        self.peer
    }

    /// All headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// A header as text; one that is not visible ASCII counts as absent.
    pub fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Whether the client accepts a gzip body (RFC 9110, 12.5.3: `q=0` refuses, `*` stands for the unnamed).
    pub fn accepts_gzip(&self) -> bool {
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
    pub fn query(&self) -> impl Iterator<Item = (std::borrow::Cow<'_, str>, std::borrow::Cow<'_, str>)> {
        form_urlencoded::parse(self.uri.query().unwrap_or_default().as_bytes())
    }

    /// Whether there is a query, be it an empty one.
    pub fn has_query(&self) -> bool {
        self.uri.query().is_some()
    }

    /// Refuses a query that has parameters, naming each.
    pub fn no_parameters(&self) -> Result<()> {
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

    /// The body as an object of fields, of at most `limit` bytes (and never more than the server's bound).
    pub async fn fields(self, accepts: Accepts, limit: usize) -> Result<Map<String, Value>> {
        let content_type = self.header(&header::CONTENT_TYPE).unwrap_or_default().to_owned();
        let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let form = accepts == Accepts::JsonOrForm && media_type == "application/x-www-form-urlencoded";
        let no_body = self.body.is_end_stream();
        if !form && media_type != "application/json" && !(no_body && media_type.is_empty()) {
            return Err(Error::UnsupportedMediaType(content_type));
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
                format!("Invalid data. Expected a dictionary, but got {}.", super::fields::type_name(&other)),
            )),
            Err(error) => Err(Error::Malformed(format!("JSON parse error - {error}"))),
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
                // the client left in the middle, or its chunks are no chunks: there is nobody to answer
                let frame = frame.map_err(|error| Error::Malformed(format!("Request body broke off - {error}")))?;
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
