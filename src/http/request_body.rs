//! The body of a request as it arrives. The connection learns whether it was read to its end.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};

use super::{connection::ConnectionState, request_budget::RequestReservation};

/// If the unread rest of a body has at most this many bytes and is in memory, hyper discards it and keeps the connection.
const MAX_DISCARDED_BYTES: u64 = 8 * 1024;

/// A request body; empty bodies hold nothing.
#[derive(Debug)]
pub(crate) struct RequestBody(Option<UnfinishedBody>);

#[derive(Debug)]
struct UnfinishedBody {
    incoming: Incoming,
    connection: Arc<ConnectionState>,
}

impl RequestBody {
    pub(crate) fn new(incoming: Incoming, connection: &Arc<ConnectionState>) -> Self {
        let is_empty = incoming.is_end_stream();
        Self((!is_empty).then(|| UnfinishedBody { incoming, connection: Arc::clone(connection) }))
    }

    /// Whether the whole body was read, or has no bytes.
    pub(crate) fn is_finished(&self) -> bool {
        self.0.is_none()
    }

    /// Returns a lower limit of the number of unread bytes: their number if the request has a `Content-Length`.
    pub(crate) fn min_length(&self) -> u64 {
        self.0.as_ref().map_or(0, |body| body.incoming.size_hint().lower())
    }

    /// Whether the connection must end if the rest of the body is not read.
    pub(crate) fn is_too_large_to_discard(&self) -> bool {
        let Some(body) = &self.0 else { return false };
        body.incoming.size_hint().exact().is_none_or(|length| length > MAX_DISCARDED_BYTES)
    }

    /// Returns an empty reservation in the budget for unfinished requests, if there is a body.
    pub(crate) fn reservation(&self) -> Option<RequestReservation> {
        self.0.as_ref().map(|body| body.connection.request_reservation())
    }

    /// Returns the next bytes, or `None` at the end. Trailers are skipped.
    pub(crate) async fn read(&mut self) -> hyper::Result<Option<Bytes>> {
        while let Some(body) = &mut self.0 {
            match body.incoming.frame().await.transpose()? {
                Some(frame) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                None => self.0 = None,
            }
        }
        Ok(None)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let Some(body) = &self.0
            && !body.incoming.is_end_stream()
        {
            body.connection.body_left_unread();
        }
    }
}
