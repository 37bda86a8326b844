//! `/api/tags/`

use crate::{
    app::App,
    auth::{Staff, User},
    db::statements,
    error::{Error, Result},
    http::{Reply, Request, reply},
    named::Kind,
};

const KIND: Kind = Kind {
    model: "Tag",
    path: "/api/tags/",
    unique: "tags_name_key",
    list: statements::TAGS_LIST,
    one: statements::TAGS_ONE,
    create: statements::TAGS_CREATE,
    rename: statements::TAGS_RENAME,
};

/// All tags.
pub async fn list(app: &App, request: Request, _: User) -> Result<Reply> {
    KIND.list(app, &request).await
}

/// One tag.
pub async fn one(app: &App, request: Request, _: User) -> Result<Reply> {
    KIND.one(app, &request).await
}

/// A new tag.
pub async fn create(app: &App, request: Request, _: Staff) -> Result<Reply> {
    KIND.create(app, request).await
}

/// Another name.
pub async fn replace(app: &App, request: Request, _: Staff) -> Result<Reply> {
    KIND.rename(app, request, false).await
}

/// Another name, or none.
pub async fn change(app: &App, request: Request, _: Staff) -> Result<Reply> {
    KIND.rename(app, request, true).await
}

/// One tag less; it comes off its products.
pub async fn delete(app: &App, request: Request, _: Staff) -> Result<Reply> {
    request.no_parameters()?;
    let gone = app.database.row(&statements::TAGS_DELETE, &[&request.path_id()]).await?;
    gone.map(|_| reply::no_content()).ok_or(Error::NoSuchRow(KIND.model))
}
