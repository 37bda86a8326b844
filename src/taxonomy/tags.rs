//! `/api/tags/`

use super::{
    named::write_conditionally,
    resource::{NamedResource, ResourceDef},
};
use crate::{
    app::App,
    auth::Staff,
    cache::Collection,
    db::{pool::Params, statements},
    error::Result,
    http::{
        Request, Response,
        response::{self, WriteCondition},
    },
};

#[derive(Debug, Clone, Copy)]
pub(crate) struct Tag;

impl NamedResource for Tag {
    const DEF: ResourceDef = ResourceDef {
        model: "Tag",
        collection: Collection::Tags,
        path: "/api/tags/",
        unique_constraint: "tags_name_key",
        list: statements::TAGS_LIST,
        by_id: statements::TAGS_BY_ID,
        lock: statements::TAGS_LOCK,
        create: statements::TAGS_CREATE,
        rename: statements::TAGS_RENAME,
    };
}

/// Deletes a tag and its links to products.
pub(crate) async fn delete(app: &App, request: Request, _: Staff) -> Result<Response> {
    let (id, statement) = (request.path_id(), &statements::TAGS_DELETE);
    let params: Params<'_> = &[&id];
    let deleted = match WriteCondition::from_request(&request) {
        None => app.database.row(statement, params).await?,
        Some(condition) => write_conditionally::<Tag>(app, id, &condition, statement, params).await?,
    };
    deleted.map(|_| response::no_content()).ok_or_else(|| Tag::DEF.not_found())
}
