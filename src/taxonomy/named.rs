//! Handlers that categories and tags share: both have an id and a unique name. The route table instantiates them by
//! type, like `taxonomy::list::<Category>`.

use futures_util::future::join;
use hyper::{StatusCode, header};
use serde_json::{Map, Value};
use tokio_postgres::Row;

use super::{
    resource::{NamedResource, etag_of, is_true_for, to_json},
    source::{AllRows, OneRow},
};
use crate::{
    app::App,
    auth::{Staff, User, UserAllowStale},
    cache::List,
    db::{OnConstraint, Statement, Transaction, TxError, pool::Params},
    error::{Error, Result},
    http::{
        Request, Response,
        request::AcceptedBody,
        response::{self, WriteCondition},
    },
    lists::serve,
    validation::{Fields, text},
};

/// Returns all rows, ordered by id.
pub(crate) async fn list<N: NamedResource>(
    app: &App,
    request: Request,
    UserAllowStale(user): UserAllowStale,
) -> Result<Response> {
    serve(app, request, user, List::complete(N::DEF.collection), AllRows::<N>::new).await
}

pub(crate) async fn get<N: NamedResource>(app: &App, request: Request, user: User) -> Result<Response> {
    let id = request.path_id();
    let one = List { collection: N::DEF.collection, query: format!("id={id}").into() };
    serve(app, request, user, one, || OneRow::<N>::new(id)).await
}

pub(crate) async fn create<N: NamedResource>(app: &App, request: Request, _: Staff) -> Result<Response> {
    let mut fields = Fields::new(request.fields(AcceptedBody::Json, usize::MAX).await?);
    let name = fields.text("name", text(100));
    fields.finish()?;
    let row = app.database.row(&N::DEF.create, &[&name]).await;
    let row = row.on_constraint(N::DEF.unique_constraint, || N::DEF.name_conflict())?;
    let row = row.ok_or_else(|| N::DEF.not_found())?;
    let mut response = row_response(StatusCode::CREATED, &row);
    let location = format!("{}{}/", N::DEF.path, row.get::<_, i64>("id"));
    if let Ok(location) = header::HeaderValue::from_str(&location) {
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
    let (id, condition) = (request.path_id(), WriteCondition::from_request(&request));
    let mut fields = parse(request.fields(AcceptedBody::Json, usize::MAX).await?);
    let name = fields.text("name", text(100));
    if let Err(errors) = fields.finish() {
        // a missing row takes precedence over validation errors
        app.database.row(&N::DEF.by_id, &[&id]).await?.ok_or_else(|| N::DEF.not_found())?;
        return Err(errors);
    }
    let params: Params<'_> = &[&id, &name];
    let row = match condition {
        None => {
            let row = app.database.row(&N::DEF.rename, params).await;
            row.on_constraint(N::DEF.unique_constraint, || N::DEF.name_conflict())?
        }
        Some(condition) => write_conditionally::<N>(app, id, &condition, &N::DEF.rename, params).await?,
    };
    Ok(row_response(StatusCode::OK, &row.ok_or_else(|| N::DEF.not_found())?))
}

fn row_response(status: StatusCode, row: &Row) -> Response {
    let json = to_json(row);
    let etag = etag_of(&json);
    let mut response = response::json_bytes(status, json);
    response.headers_mut().insert(header::ETAG, etag);
    response
}

/// Runs a statement that writes a row, if the condition is true for the row. The row is locked, so it holds until the
/// commit. Retries when the database has rolled the transaction back because of a conflict with another one.
pub(super) async fn write_conditionally<N: NamedResource>(
    app: &App,
    id: i64,
    condition: &WriteCondition,
    statement: &Statement,
    params: Params<'_>,
) -> Result<Option<Row>> {
    let attempt = |transaction: Transaction| async move {
        let outcome = attempt_conditionally::<N>(&transaction, id, condition, statement, params).await;
        (transaction, outcome)
    };
    Transaction::run(&app.database, &[&N::DEF.lock, statement], attempt).await
}

async fn attempt_conditionally<N: NamedResource>(
    transaction: &Transaction,
    id: i64,
    condition: &WriteCondition,
    statement: &Statement,
    params: Params<'_>,
) -> Result<Option<Row>, TxError> {
    let (begun, locked) = join(transaction.run_command("begin"), transaction.rows(&N::DEF.lock, &[&id])).await;
    begun?;
    let locked = locked?;
    let row = locked.first().ok_or_else(|| N::DEF.not_found())?;
    if !is_true_for(condition, row) {
        return Err(Error::PreconditionFailed.into());
    }
    let written = transaction.rows_and_commit(statement, params).await;
    let mut written = written.map_err(|error| match error.constraint() {
        Some(name) if name == N::DEF.unique_constraint => N::DEF.name_conflict().into(),
        _ => TxError::Db(error),
    })?;
    Ok(written.pop())
}
