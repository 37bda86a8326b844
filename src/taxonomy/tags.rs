//! `/api/tags/`

use super::named::{NamedResource, ResourceDef};
use crate::{
    app::App,
    auth::Staff,
    db::statements,
    error::{Error, Result},
    http::{Request, Response, response},
};

/// The model.
pub(crate) struct Tag;

impl NamedResource for Tag {
    const KIND: ResourceDef = ResourceDef {
        model: "Tag",
        path: "/api/tags/",
        unique: "tags_name_key",
        list: statements::TAGS_LIST,
        one: statements::TAGS_BY_ID,
        create: statements::TAGS_CREATE,
        rename: statements::TAGS_RENAME,
    };
}

/// One tag less; it comes off its products.
pub(crate) async fn delete(app: &App, request: Request, _: Staff) -> Result<Response> {
    let gone = app.database.row(&statements::TAGS_DELETE, &[&request.path_id()]).await?;
    gone.map(|_| response::no_content()).ok_or(Error::RowNotFound(Tag::KIND.model))
}
