//! Categories and tags: named rows that products refer to.

mod categories;
mod named;
mod resource;
mod source;
mod tags;

pub(crate) use self::{
    categories::{Category, delete as delete_category},
    named::{create, get, list, partial_update, update},
    tags::{Tag, delete as delete_tag},
};
