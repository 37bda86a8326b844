//! `POST`, `PUT`, `PATCH` and `DELETE` of products. A write is a single statement, or a transaction whose statements
//! are pipelined.

use futures_util::future::{join3, join4};
use hyper::{
    StatusCode,
    header::{self, HeaderValue},
};
use serde_json::{Map, Value};
use tokio_postgres::Row;

use super::{
    idempotency::{self, Key, Outcome},
    input::{self, InvalidInput, ProductInput},
    product::{Product, etag_of},
};
use crate::{
    app::App,
    auth::Staff,
    db::{
        DbError, Statement, Transaction, TxError,
        pool::Params,
        statements::{
            CATEGORIES_BY_ID, CATEGORIES_BY_NAMES, PRODUCTS_BY_ID, PRODUCTS_CREATE, PRODUCTS_DELETE, PRODUCTS_LOCK,
            PRODUCTS_UPDATE, PRODUCTS_UPDATE_WITH_TAGS,
        },
    },
    error::{Error, FieldErrors, Result},
    http::{
        Request, Response,
        request::AcceptedBody,
        response::{self, WriteCondition},
    },
};

const PRODUCT_NOT_FOUND: Error = Error::RowNotFound("Product");

/// Creates a product, and tags that do not exist yet. With an `Idempotency-Key`, repeated requests create it once.
pub(crate) async fn create(app: &App, request: Request, staff: Staff) -> Result<Response> {
    let key = idempotency::key_of(&request)?;
    let body = request.fields(AcceptedBody::Json, usize::MAX).await?;
    let key = key.map(|key| Key::new(staff.0.id, key, &body)).transpose()?;
    let input = match input::parse_full(body) {
        Ok(input) => input,
        Err(invalid) => {
            if let Some(key) = &key
                && key.is_reused_with_other_body(app).await?
            {
                return Err(Error::IdempotencyKeyReused);
            }
            return Err(collect_errors(app, *invalid).await?.into());
        }
    };
    let ProductInput { name, description, price, category_id, category_name, tags } = &input;
    let params: Params<'_> = &[name, description, price, category_id, category_name, tags];
    let Some(key) = key else {
        let row = app.database.row(&PRODUCTS_CREATE, params).await?.ok_or_else(|| input.category_not_found())?;
        return Ok(created_response(Product::from_columns(&row, 0).to_json()));
    };
    let Outcome { json, replayed } = key.create(app, &input, params).await?;
    let mut response = created_response(json);
    if replayed {
        idempotency::mark_replayed(&mut response);
    }
    Ok(response)
}

/// Replaces a product: fields that are absent from the body get their defaults.
pub(crate) async fn update(app: &App, request: Request, _: Staff) -> Result<Response> {
    apply_update(app, request, input::parse_full).await
}

/// Updates the fields in the body and no others.
pub(crate) async fn partial_update(app: &App, request: Request, _: Staff) -> Result<Response> {
    apply_update(app, request, input::parse_partial).await
}

async fn apply_update(
    app: &App,
    request: Request,
    parse: fn(Map<String, Value>) -> Result<ProductInput, Box<InvalidInput>>,
) -> Result<Response> {
    let (id, condition) = (request.path_id(), WriteCondition::from_request(&request));
    let input = match parse(request.fields(AcceptedBody::Json, usize::MAX).await?) {
        Ok(input) => input,
        Err(invalid) => {
            // a missing product takes precedence over validation errors
            app.database.row(&PRODUCTS_BY_ID, &[&id]).await?.ok_or(PRODUCT_NOT_FOUND)?;
            return Err(collect_errors(app, *invalid).await?.into());
        }
    };
    let ProductInput { name, description, price, category_id, category_name, tags } = &input;
    let params: Params<'_> = &[&id, name, description, price, category_id, category_name, tags];
    let (statement, params) = match tags {
        Some(_) => (&PRODUCTS_UPDATE_WITH_TAGS, params),
        None => (&PRODUCTS_UPDATE, &params[..params.len() - 1]),
    };
    let row = write(app, id, condition.as_ref(), statement, params).await?;
    let row = row.ok_or(PRODUCT_NOT_FOUND)?;
    if row.get::<_, Option<i64>>("id").is_some() {
        return Ok(product_response(StatusCode::OK, Product::from_columns(&row, 1).to_json()));
    }
    // nothing was written: either the category or the product does not exist
    let has_category = category_id.is_some() || category_name.is_some();
    if has_category
        && !row.get::<_, bool>("category_found")
        && app.database.row(&PRODUCTS_BY_ID, &[&id]).await?.is_some()
    {
        return Err(input.category_not_found().into());
    }
    Err(PRODUCT_NOT_FOUND)
}

pub(crate) async fn delete(app: &App, request: Request, _: Staff) -> Result<Response> {
    let (id, condition) = (request.path_id(), WriteCondition::from_request(&request));
    let deleted = write(app, id, condition.as_ref(), &PRODUCTS_DELETE, &[&id]).await?;
    deleted.map(|_| response::no_content()).ok_or(PRODUCT_NOT_FOUND)
}

/// Returns the errors of an invalid body, including a category that does not exist.
async fn collect_errors(app: &App, InvalidInput { errors, input }: InvalidInput) -> Result<FieldErrors> {
    let category = match (input.category_id, &input.category_name) {
        (Some(id), None) => app.database.row(&CATEGORIES_BY_ID, &[&id]).await?,
        (None, Some(name)) => app.database.row(&CATEGORIES_BY_NAMES, &[&vec![name]]).await?,
        // neither or both: `errors` contains that already
        _ => return Ok(errors),
    };
    Ok(if category.is_some() { errors } else { errors.merge(input.category_not_found()) })
}

fn created_response(json: Vec<u8>) -> Response {
    // the JSON of a product begins with its id
    let id: String =
        json.iter().skip(b"{\"id\":".len()).take_while(|byte| byte.is_ascii_digit()).copied().map(char::from).collect();
    let mut response = product_response(StatusCode::CREATED, json);
    if let Ok(location) = HeaderValue::from_str(&format!("/api/products/{id}/")) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

fn product_response(status: StatusCode, json: Vec<u8>) -> Response {
    let etag = etag_of(&json);
    let mut response = response::json_bytes(status, json);
    response.headers_mut().insert(header::ETAG, etag);
    response
}

/// Locks a product and runs a statement that writes it, if `If-Match` holds. Retries when the database has rolled the
/// transaction back because of a conflict with another one.
async fn write(
    app: &App,
    id: i64,
    condition: Option<&WriteCondition>,
    statement: &Statement,
    params: Params<'_>,
) -> Result<Option<Row>> {
    let statements = [&PRODUCTS_LOCK, &PRODUCTS_BY_ID, statement];
    let attempt = |transaction: Transaction| async move {
        let outcome = match condition {
            None => write_unconditionally(&transaction, id, statement, params).await.map_err(TxError::Db),
            Some(condition) => write_conditionally(&transaction, id, condition, statement, params).await,
        };
        (transaction, outcome)
    };
    Transaction::run(&app.database, &statements, attempt).await
}

/// Writes in one round trip. The lock is a separate statement, so that the next one sees what the last writer
/// committed.
async fn write_unconditionally(
    transaction: &Transaction,
    id: i64,
    statement: &Statement,
    params: Params<'_>,
) -> Result<Option<Row>, DbError> {
    let (begun, locked, written, committed) = join4(
        transaction.run_command("begin"),
        transaction.rows(&PRODUCTS_LOCK, &[&id]),
        transaction.rows(statement, params),
        transaction.run_command("commit"),
    )
    .await;
    begun?;
    locked?;
    // `commit` after a failed statement succeeds and rolls back, so the statement's error is checked first
    let mut written = written?;
    committed?;
    Ok(written.pop())
}

/// Writes in two round trips if the condition is true for the product. The row is locked, so it holds until the
/// commit. The category and the tags are not locked: a concurrent change of their names counts as later than this
/// write.
async fn write_conditionally(
    transaction: &Transaction,
    id: i64,
    condition: &WriteCondition,
    statement: &Statement,
    params: Params<'_>,
) -> Result<Option<Row>, TxError> {
    let (begun, locked, current) = join3(
        transaction.run_command("begin"),
        transaction.rows(&PRODUCTS_LOCK, &[&id]),
        transaction.rows(&PRODUCTS_BY_ID, &[&id]),
    )
    .await;
    begun?;
    locked?;
    let current = current?;
    let row = current.first().ok_or(PRODUCT_NOT_FOUND)?;
    if !condition.is_true(&[etag_of(&Product::from_columns(row, 0).to_json())]) {
        return Err(Error::PreconditionFailed.into());
    }
    Ok(transaction.rows_and_commit(statement, params).await?.pop())
}
