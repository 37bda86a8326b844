//! What categories and tags have in common: an id, a unique name, and five things to do with them. A handler is
//! `named::list::<Category>` in the route table.

use hyper::{StatusCode, header};
use serde::Serialize;
use serde_json::{Map, Value};
use tokio_postgres::Row;

use crate::{
    app::App,
    auth::{Staff, User},
    db::{OnConstraint, Statement},
    error::{Error, Result},
    http::{Request, Response, request::AcceptedBody, response},
    validation::{Fields, text},
};

/// A model of named rows.
pub(crate) trait NamedResource: 'static {
    /// What is particular about it.
    const KIND: ResourceDef;
}

/// What is particular about a model of named rows.
pub(crate) struct ResourceDef {
    /// The model, as error messages call it.
    pub(crate) model: &'static str,
    /// The path of the list.
    pub(crate) path: &'static str,
    /// The constraint that keeps names unique.
    pub(crate) unique: &'static str,
    /// All rows.
    pub(crate) list: Statement,
    /// One row.
    pub(crate) one: Statement,
    /// A new row.
    pub(crate) create: Statement,
    /// Another name.
    pub(crate) rename: Statement,
}

#[derive(Serialize)]
struct NamedView<'a> {
    id: i64,
    name: &'a str,
}

impl<'a> From<&'a Row> for NamedView<'a> {
    fn from(row: &'a Row) -> Self {
        Self { id: row.get(0), name: row.get(1) }
    }
}

/// All of them, by id.
pub(crate) async fn list<N: NamedResource>(app: &App, _: Request, _: User) -> Result<Response> {
    let rows = app.database.rows(&N::KIND.list, &[]).await?;
    Ok(response::json(StatusCode::OK, &rows.iter().map(NamedView::from).collect::<Vec<_>>()))
}

/// One of them.
pub(crate) async fn get<N: NamedResource>(app: &App, request: Request, _: User) -> Result<Response> {
    let row = app.database.row(&N::KIND.one, &[&request.path_id()]).await?;
    Ok(response::json(StatusCode::OK, &NamedView::from(&row.ok_or(Error::RowNotFound(N::KIND.model))?)))
}

/// A new one.
pub(crate) async fn create<N: NamedResource>(app: &App, request: Request, _: Staff) -> Result<Response> {
    let mut fields = Fields::new(request.fields(AcceptedBody::Json, usize::MAX).await?);
    let name = fields.text("name", text(100));
    fields.finish()?;
    let row = app.database.row(&N::KIND.create, &[&name]).await;
    let row = row.on_constraint(N::KIND.unique, taken::<N>)?.ok_or(Error::RowNotFound(N::KIND.model))?;
    let mut reply = response::json(StatusCode::CREATED, &NamedView::from(&row));
    let location = format!("{}{}/", N::KIND.path, row.get::<_, i64>(0));
    if let Ok(location) = header::HeaderValue::from_str(&location) {
        reply.headers_mut().insert(header::LOCATION, location);
    }
    Ok(reply)
}

/// Another name.
pub(crate) async fn update<N: NamedResource>(app: &App, request: Request, _: Staff) -> Result<Response> {
    rename::<N>(app, request, Fields::new).await
}

/// Another name, or none.
pub(crate) async fn partial_update<N: NamedResource>(app: &App, request: Request, _: Staff) -> Result<Response> {
    rename::<N>(app, request, Fields::partial).await
}

async fn rename<N: NamedResource>(
    app: &App,
    request: Request,
    read: fn(Map<String, Value>) -> Fields,
) -> Result<Response> {
    let id = request.path_id();
    let missing = || Error::RowNotFound(N::KIND.model);
    let mut fields = read(request.fields(AcceptedBody::Json, usize::MAX).await?);
    let name = fields.text("name", text(100));
    if let Err(faults) = fields.finish() {
        // a row that is not there is said first
        app.database.row(&N::KIND.one, &[&id]).await?.ok_or_else(missing)?;
        return Err(faults);
    }
    let row = app.database.row(&N::KIND.rename, &[&id, &name]).await;
    let row = row.on_constraint(N::KIND.unique, taken::<N>)?;
    Ok(response::json(StatusCode::OK, &NamedView::from(&row.ok_or_else(missing)?)))
}

fn taken<N: NamedResource>() -> Error {
    Error::field("name", format!("{} with this name already exists.", N::KIND.model.to_lowercase()))
}
