//! The export: the catalogue, or a part of it, as a file.

mod build;
mod handler;

pub(crate) use self::{
    build::{Output, build},
    handler::export,
};
