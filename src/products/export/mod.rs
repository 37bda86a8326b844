//! The export: products as a file, over HTTP and on the command line.

mod build;
mod etag;
mod handler;

pub(crate) use self::{
    build::{Layout, Output, build},
    etag::is_etag_of_version,
    handler::export,
};
