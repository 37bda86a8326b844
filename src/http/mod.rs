//! HTTP/1.1 directly on hyper: accept loop, connection limits, dispatch, requests, responses, streamed bodies.
//!
//! The module contains no domain terms: routes and state are type parameters.

pub(crate) mod body;
pub(crate) mod connection;
pub(crate) mod connections;
pub(crate) mod cors;
pub(crate) mod dispatch;
pub(crate) mod etag;
pub(crate) mod forwarded;
mod head;
mod linger;
pub(crate) mod listener;
mod live;
mod monitored_stream;
mod protocol_error;
pub(crate) mod public_url;
pub(crate) mod request;
mod request_body;
pub(crate) mod request_budget;
mod request_id;
pub(crate) mod response;
pub mod router;
pub(crate) mod serve;
pub(crate) mod slices;
pub(crate) mod static_asset;
mod tracked_body;

pub(crate) use self::{body::Body, etag::Representation, request::Request, response::Response};
