//! The export: products as a file, over HTTP and on the command line.

mod build;
mod etag;
mod handler;
mod request;

pub(crate) use self::{
    build::{Built, Output, build},
    etag::is_current_etag,
    handler::export,
    request::Layout,
};
