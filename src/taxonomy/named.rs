//! Handlers that categories and tags share: both have an id and a unique name. The route table instantiates them by
//! type, like `taxonomy::list::<Category>`.

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

/// A resource whose rows have an id and a unique name.
pub(crate) trait NamedResource: 'static {
    const DEF: ResourceDef;
}

/// The properties in which named resources differ.
pub(crate) struct ResourceDef {
    /// The model's name in error messages.
    pub(crate) model: &'static str,
    /// The path of the list.
    pub(crate) path: &'static str,
    /// The constraint that keeps names unique.
    pub(crate) unique_constraint: &'static str,
    pub(crate) list: Statement,
    pub(crate) by_id: Statement,
    pub(crate) create: Statement,
    pub(crate) rename: Statement,
}

#[derive(Serialize)]
struct NamedView<'a> {
    id: i64,
    name: &'a str,
}

impl<'a> From<&'a Row> for NamedView<'a> {
    fn from(row: &'a Row) -> Self {
        Self { id: row.get("id"), name: row.get("name") }
    }
}

/// Returns all rows, ordered by id.
pub(crate) async fn list<N: NamedResource>(app: &App, _: Request, _: User) -> Result<Response> {
    let rows = app.database.rows(&N::DEF.list, &[]).await?;
    Ok(response::json(StatusCode::OK, &rows.iter().map(NamedView::from).collect::<Vec<_>>()))
}

pub(crate) async fn get<N: NamedResource>(app: &App, request: Request, _: User) -> Result<Response> {
    let row = app.database.row(&N::DEF.by_id, &[&request.path_id()]).await?;
    Ok(response::json(StatusCode::OK, &NamedView::from(&row.ok_or(Error::RowNotFound(N::DEF.model))?)))
}

pub(crate) async fn create<N: NamedResource>(app: &App, request: Request, _: Staff) -> Result<Response> {
    let mut fields = Fields::new(request.fields(AcceptedBody::Json, usize::MAX).await?);
    let name = fields.text("name", text(100));
    fields.finish()?;
    let row = app.database.row(&N::DEF.create, &[&name]).await;
    let row = row.on_constraint(N::DEF.unique_constraint, name_conflict::<N>)?;
    let view = row.as_ref().map(NamedView::from).ok_or(Error::RowNotFound(N::DEF.model))?;
    let mut response = response::json(StatusCode::CREATED, &view);
    if let Ok(location) = header::HeaderValue::from_str(&format!("{}{}/", N::DEF.path, view.id)) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// Renames a row; the body must contain a name.
pub(crate) async fn update<N: NamedResource>(app: &App, request: Request, _: Staff) -> Result<Response> {
    rename::<N>(app, request, Fields::new).await
}

/// Renames a row; without a name in the body it stays as it is.
pub(crate) async fn partial_update<N: NamedResource>(app: &App, request: Request, _: Staff) -> Result<Response> {
    rename::<N>(app, request, Fields::partial).await
}

async fn rename<N: NamedResource>(
    app: &App,
    request: Request,
    parse: fn(Map<String, Value>) -> Fields,
) -> Result<Response> {
    let id = request.path_id();
    let not_found = || Error::RowNotFound(N::DEF.model);
    let mut fields = parse(request.fields(AcceptedBody::Json, usize::MAX).await?);
    let name = fields.text("name", text(100));
    if let Err(errors) = fields.finish() {
        // a missing row takes precedence over validation errors
        app.database.row(&N::DEF.by_id, &[&id]).await?.ok_or_else(not_found)?;
        return Err(errors);
    }
    let row = app.database.row(&N::DEF.rename, &[&id, &name]).await;
    let row = row.on_constraint(N::DEF.unique_constraint, name_conflict::<N>)?;
    Ok(response::json(StatusCode::OK, &NamedView::from(&row.ok_or_else(not_found)?)))
}

fn name_conflict<N: NamedResource>() -> Error {
    Error::field("name", format!("{} with this name already exists.", N::DEF.model.to_lowercase()))
}
