//! `/api/tags/`

use crate::{
    app::App,
    auth::Staff,
    db::statements,
    error::{Error, Result},
    http::{Reply, Request, reply},
    named::{Kind, Named},
};

/// The model.
pub struct Tag;

impl Named for Tag {
    const KIND: Kind = Kind {
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
pub async fn delete(app: &App, request: Request, _: Staff) -> Result<Reply> {
    request.no_parameters()?;
    let gone = app.database.row(&statements::TAGS_DELETE, &[&request.path_id()]).await?;
    gone.map(|_| reply::no_content()).ok_or(Error::NoSuchRow(Tag::KIND.model))
}
