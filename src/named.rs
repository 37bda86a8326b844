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
    http::{
        Reply, Request,
        fields::{Fields, text},
        reply,
        request::Accepts,
    },
};

/// A model of named rows.
pub trait Named: 'static {
    /// What is particular about it.
    const KIND: Kind;
}

/// What is particular about a model of named rows.
pub struct Kind {
    /// The model, as error messages call it.
    pub model: &'static str,
    /// The path of the list.
    pub path: &'static str,
    /// The constraint that keeps names unique.
    pub unique: &'static str,
    /// All rows.
    pub list: Statement,
    /// One row.
    pub one: Statement,
    /// A new row.
    pub create: Statement,
    /// Another name.
    pub rename: Statement,
}

#[derive(Serialize)]
struct Shown<'a> {
    id: i64,
    name: &'a str,
}

impl<'a> From<&'a Row> for Shown<'a> {
    fn from(row: &'a Row) -> Self {
        Self { id: row.get(0), name: row.get(1) }
    }
}

/// All of them, by id.
pub async fn list<N: Named>(app: &App, request: Request, _: User) -> Result<Reply> {
    request.no_parameters()?;
    let rows = app.database.rows(&N::KIND.list, &[]).await?;
    Ok(reply::json(StatusCode::OK, &rows.iter().map(Shown::from).collect::<Vec<_>>()))
}

/// One of them.
pub async fn one<N: Named>(app: &App, request: Request, _: User) -> Result<Reply> {
    request.no_parameters()?;
    let row = app.database.row(&N::KIND.one, &[&request.path_id()]).await?;
    Ok(reply::json(StatusCode::OK, &Shown::from(&row.ok_or(Error::NoSuchRow(N::KIND.model))?)))
}

/// A new one.
pub async fn create<N: Named>(app: &App, request: Request, _: Staff) -> Result<Reply> {
    request.no_parameters()?;
    let mut fields = Fields::new(request.fields(Accepts::Json, usize::MAX).await?);
    let name = fields.text("name", text(100));
    fields.finish()?;
    let row = app.database.row(&N::KIND.create, &[&name]).await;
    let row = row.on_constraint(N::KIND.unique, taken::<N>)?.ok_or(Error::NoSuchRow(N::KIND.model))?;
    let mut reply = reply::json(StatusCode::CREATED, &Shown::from(&row));
    let location = format!("{}{}/", N::KIND.path, row.get::<_, i64>(0));
    if let Ok(location) = header::HeaderValue::from_str(&location) {
        reply.headers_mut().insert(header::LOCATION, location);
    }
    Ok(reply)
}

/// Another name.
pub async fn replace<N: Named>(app: &App, request: Request, _: Staff) -> Result<Reply> {
    rename::<N>(app, request, Fields::new).await
}

/// Another name, or none.
pub async fn change<N: Named>(app: &App, request: Request, _: Staff) -> Result<Reply> {
    rename::<N>(app, request, Fields::partial).await
}

async fn rename<N: Named>(app: &App, request: Request, read: fn(Map<String, Value>) -> Fields) -> Result<Reply> {
    request.no_parameters()?;
    let id = request.path_id();
    let missing = || Error::NoSuchRow(N::KIND.model);
    let mut fields = read(request.fields(Accepts::Json, usize::MAX).await?);
    let name = fields.text("name", text(100));
    if let Err(faults) = fields.finish() {
        // a row that is not there is said first
        app.database.row(&N::KIND.one, &[&id]).await?.ok_or_else(missing)?;
        return Err(faults);
    }
    let row = app.database.row(&N::KIND.rename, &[&id, &name]).await;
    let row = row.on_constraint(N::KIND.unique, taken::<N>)?;
    Ok(reply::json(StatusCode::OK, &Shown::from(&row.ok_or_else(missing)?)))
}

fn taken<N: Named>() -> Error {
    Error::field("name", format!("{} with this name already exists.", N::KIND.model.to_lowercase()))
}
