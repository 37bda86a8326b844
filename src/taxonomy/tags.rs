//! `/api/tags/`

use super::named::{NamedResource, ResourceDef};
use crate::{
    app::App,
    auth::Staff,
    db::statements,
    error::{Error, Result},
    http::{Request, Response, response},
};

pub(crate) struct Tag;

impl NamedResource for Tag {
    const DEF: ResourceDef = ResourceDef {
        model: "Tag",
        path: "/api/tags/",
        unique_constraint: "tags_name_key",
        list: statements::TAGS_LIST,
        by_id: statements::TAGS_BY_ID,
        create: statements::TAGS_CREATE,
        rename: statements::TAGS_RENAME,
    };
}

/// Deletes a tag and its links to products.
pub(crate) async fn delete(app: &App, request: Request, _: Staff) -> Result<Response> {
    let deleted = app.database.row(&statements::TAGS_DELETE, &[&request.path_id()]).await?;
    deleted.map(|_| response::no_content()).ok_or(Error::RowNotFound(Tag::DEF.model))
}
