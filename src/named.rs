//! What categories and tags have in common: an id, a unique name, and five things to do with them.

use hyper::{StatusCode, header};
use serde::Serialize;
use tokio_postgres::Row;

use crate::{
    app::App,
    db::{OnConstraint, Statement},
    error::{Error, Result},
    http::{
        Reply, Request,
        fields::{Fields, text},
        reply,
        request::Accepts,
    },
};

/// One kind of named row.
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
struct Named<'a> {
    id: i64,
    name: &'a str,
}

impl<'a> From<&'a Row> for Named<'a> {
    fn from(row: &'a Row) -> Self {
        Self { id: row.get(0), name: row.get(1) }
    }
}

impl Kind {
    /// All of them, by id.
    pub async fn list(&self, app: &App, request: &Request) -> Result<Reply> {
        request.no_parameters()?;
        let rows = app.database.rows(&self.list, &[]).await?;
        Ok(reply::json(StatusCode::OK, &rows.iter().map(Named::from).collect::<Vec<_>>()))
    }

    /// One of them.
    pub async fn one(&self, app: &App, request: &Request) -> Result<Reply> {
        request.no_parameters()?;
        let row = app.database.row(&self.one, &[&request.path_id()]).await?;
        Ok(reply::json(StatusCode::OK, &Named::from(&row.ok_or(Error::NoSuchRow(self.model))?)))
    }

    /// A new one.
    pub async fn create(&self, app: &App, request: Request) -> Result<Reply> {
        request.no_parameters()?;
        let mut fields = Fields::new(request.fields(Accepts::Json, usize::MAX).await?);
        let name = fields.text("name", text(100));
        fields.finish()?;
        let row = app.database.row(&self.create, &[&name]).await;
        let row = row.on_constraint(self.unique, || self.taken())?.ok_or(Error::NoSuchRow(self.model))?;
        let mut reply = reply::json(StatusCode::CREATED, &Named::from(&row));
        let location = format!("{}{}/", self.path, row.get::<_, i64>(0));
        if let Ok(location) = header::HeaderValue::from_str(&location) {
            reply.headers_mut().insert(header::LOCATION, location);
        }
        Ok(reply)
    }

    /// Another name for one; with `partial` the name may be absent.
    pub async fn rename(&self, app: &App, request: Request, partial: bool) -> Result<Reply> {
        request.no_parameters()?;
        let id = request.path_id();
        let fields = request.fields(Accepts::Json, usize::MAX).await?;
        let mut fields = if partial { Fields::partial(fields) } else { Fields::new(fields) };
        let name = fields.text("name", text(100));
        if let Err(faults) = fields.finish() {
            // a row that is not there is said first
            app.database.row(&self.one, &[&id]).await?.ok_or(Error::NoSuchRow(self.model))?;
            return Err(faults);
        }
        let row = app.database.row(&self.rename, &[&id, &name]).await;
        let row = row.on_constraint(self.unique, || self.taken())?;
        Ok(reply::json(StatusCode::OK, &Named::from(&row.ok_or(Error::NoSuchRow(self.model))?)))
    }

    fn taken(&self) -> Error {
        Error::field("name", format!("{} with this name already exists.", self.model.to_lowercase()))
    }
}
