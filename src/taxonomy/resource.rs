//! The properties and the representation of a named resource.

use hyper::header::HeaderValue;
use serde::Serialize;
use tokio_postgres::Row;

use crate::{
    cache::Collection,
    db::Statement,
    error::Error,
    http::{
        Representation,
        etag::{content_id, etag},
        response::WriteCondition,
    },
};

/// A resource whose rows have an id and a unique name.
pub(crate) trait NamedResource: Copy + Send + Sync + 'static {
    const DEF: ResourceDef;
}

/// The properties in which named resources differ.
pub(crate) struct ResourceDef {
    /// The model's name in error messages.
    pub(crate) model: &'static str,
    pub(crate) collection: Collection,
    /// The path of the list.
    pub(crate) path: &'static str,
    /// The constraint that keeps names unique.
    pub(crate) unique_constraint: &'static str,
    pub(crate) list: Statement,
    pub(crate) by_id: Statement,
    pub(crate) lock: Statement,
    pub(crate) create: Statement,
    pub(crate) rename: Statement,
}

impl ResourceDef {
    pub(crate) fn not_found(&self) -> Error {
        Error::RowNotFound(self.model)
    }

    pub(crate) fn name_conflict(&self) -> Error {
        Error::field("name", format!("{} with this name already exists.", self.model.to_lowercase()))
    }
}

#[derive(Serialize)]
struct NamedView<'a> {
    id: i64,
    name: &'a str,
}

/// Appends the JSON of a row with the columns `id` and `name`.
pub(super) fn write_json(row: &Row, json: &mut Vec<u8>) {
    let view = NamedView { id: row.get("id"), name: row.get("name") };
    if let Err(error) = serde_json::to_writer(json, &view) {
        unreachable!("writing a name to memory failed: {error}");
    }
}

/// Returns the JSON of a row.
pub(super) fn to_json(row: &Row) -> Vec<u8> {
    let mut json = Vec::new();
    write_json(row, &mut json);
    json
}

/// Returns the entity tag of a row's JSON.
pub(super) fn etag_of(json: &[u8]) -> HeaderValue {
    etag(&content_id(json), Representation::Identity)
}

/// Whether the condition is true for a row. A client knows the tag of the representation that it has read, which may
/// be the compressed one.
pub(super) fn is_true_for(condition: &WriteCondition, row: &Row) -> bool {
    let content = content_id(&to_json(row));
    condition.is_true(&[Representation::Identity, Representation::Gzip].map(|kind| etag(&content, kind)))
}
