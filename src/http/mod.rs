//! HTTP/1.1 straight on hyper: accept loop, connection guards, dispatch, request, reply, streaming body, refusals.
//!
//! It has never heard of a shop: routes and state come in as type parameters.

pub mod body;
pub mod connection;
pub mod dispatch;
pub mod fields;
mod refusal;
pub mod reply;
pub mod request;
pub mod router;
pub mod serve;

pub use body::Body;
pub use reply::Reply;
pub use request::Request;
