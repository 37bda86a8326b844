//! The export: products as a file, over HTTP and on the command line.

mod build;
mod handler;

pub(crate) use self::{
    build::{Output, build},
    handler::export,
};
