//! `POST`, `PUT`, `PATCH`, `DELETE` of products. A write is one statement, or one transaction whose statements travel
//! together.

use futures_util::future::{join, join3, join4};
use hyper::{
    StatusCode,
    header::{self, HeaderValue},
};
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
            PRODUCTS_UPDATE,
        },
    },
    error::{Error, FieldErrors, Result},
    http::{
        Request, Response,
        request::AcceptedBody,
        response::{self, IfMatch},
    },
};

const NO_SUCH_PRODUCT: Error = Error::RowNotFound("Product");

/// A new product; its tags are made when they are missing. Under an `Idempotency-Key` it is made once.
pub(crate) async fn create(app: &App, request: Request, staff: Staff) -> Result<Response> {
    let key = idempotency::key_of(&request)?;
    let body = request.fields(AcceptedBody::Json, usize::MAX).await?;
    let key = key.map(|key| Key::new(staff.0.id, key, &body)).transpose()?;
    let input = match input::whole(body) {
        Ok(input) => input,
        Err(faulty) => {
            if let Some(key) = &key
                && key.is_taken(app).await?
            {
                return Err(Error::IdempotencyKeyReused);
            }
            return Err(all_faults(app, faulty).await?.into());
        }
    };
    let ProductInput { name, description, price, category_id, category_name, tags } = &input;
    let params: Params<'_> = &[name, description, price, category_id, category_name, tags];
    let Some(key) = key else {
        let row = app.database.row(&PRODUCTS_CREATE, params).await?.ok_or_else(|| input.no_such_category())?;
        return Ok(created(Product::from_columns(&row, 0).to_json()));
    };
    let Outcome { json, replayed } = key.create(app, &input, params).await?;
    let mut reply = created(json);
    if replayed {
        idempotency::mark(&mut reply);
    }
    Ok(reply)
}

fn created(json: Vec<u8>) -> Response {
    // a product begins with its id
    let id: String =
        json.iter().skip(b"{\"id\":".len()).take_while(|byte| byte.is_ascii_digit()).copied().map(char::from).collect();
    let mut reply = shown(StatusCode::CREATED, json);
    if let Ok(location) = HeaderValue::from_str(&format!("/api/products/{id}/")) {
        reply.headers_mut().insert(header::LOCATION, location);
    }
    reply
}

/// A product in the place of another: what the body does not name gets its default.
pub(crate) async fn update(app: &App, request: Request, _: Staff) -> Result<Response> {
    apply_update(app, request, input::whole).await
}

/// What is wrong with a body, a category that does not exist among it.
async fn all_faults(app: &App, faulty: Box<InvalidInput>) -> Result<FieldErrors> {
    let InvalidInput { errors, input } = *faulty;
    let found = match (input.category_id, &input.category_name) {
        (Some(id), None) => app.database.row(&CATEGORIES_BY_ID, &[&id]).await?,
        (None, Some(name)) => app.database.row(&CATEGORIES_BY_NAMES, &[&vec![name]]).await?,
        // neither was told, or both: a fault by itself
        _ => return Ok(errors),
    };
    Ok(if found.is_some() { errors } else { errors.and(input.no_such_category()) })
}

/// The columns that the body names, and no others.
pub(crate) async fn partial_update(app: &App, request: Request, _: Staff) -> Result<Response> {
    apply_update(app, request, input::part).await
}

async fn apply_update(
    app: &App,
    request: Request,
    read: fn(serde_json::Map<String, serde_json::Value>) -> Result<ProductInput, Box<InvalidInput>>,
) -> Result<Response> {
    let (id, condition) = (request.path_id(), IfMatch::of(&request));
    let input = match read(request.fields(AcceptedBody::Json, usize::MAX).await?) {
        Ok(input) => input,
        Err(faulty) => {
            // a product that is not there is said first
            app.database.row(&PRODUCTS_BY_ID, &[&id]).await?.ok_or(NO_SUCH_PRODUCT)?;
            return Err(all_faults(app, faulty).await?.into());
        }
    };
    let ProductInput { name, description, price, category_id, category_name, tags } = &input;
    let params: Params<'_> = &[&id, name, description, price, category_id, category_name, tags];
    let row = write(app, id, condition.as_ref(), &PRODUCTS_UPDATE, params).await?;
    let row = row.ok_or(NO_SUCH_PRODUCT)?;
    if row.get::<_, Option<i64>>(1).is_some() {
        return Ok(shown(StatusCode::OK, Product::from_columns(&row, 1).to_json()));
    }
    // nothing was written: for want of the category, or of the product
    let category_asked = category_id.is_some() || category_name.is_some();
    if category_asked && !row.get::<_, bool>(0) && app.database.row(&PRODUCTS_BY_ID, &[&id]).await?.is_some() {
        return Err(input.no_such_category().into());
    }
    Err(NO_SUCH_PRODUCT)
}

/// One product less.
pub(crate) async fn delete(app: &App, request: Request, _: Staff) -> Result<Response> {
    let (id, condition) = (request.path_id(), IfMatch::of(&request));
    let gone = write(app, id, condition.as_ref(), &PRODUCTS_DELETE, &[&id]).await?;
    gone.map(|_| response::no_content()).ok_or(NO_SUCH_PRODUCT)
}

fn shown(status: StatusCode, json: Vec<u8>) -> Response {
    let etag = etag_of(&json);
    let mut reply = response::json_bytes(status, json);
    reply.headers_mut().insert(header::ETAG, etag);
    reply
}

/// Runs a statement about one product that is locked first, if the condition holds; tries again when the database undid
/// it for the sake of another transaction.
async fn write(
    app: &App,
    id: i64,
    condition: Option<&IfMatch>,
    statement: &Statement,
    params: Params<'_>,
) -> Result<Option<Row>> {
    let all = [&PRODUCTS_LOCK, &PRODUCTS_BY_ID, statement];
    let mut tries = 0;
    loop {
        tries += 1;
        let transaction = Transaction::on(&app.database, &all).await?;
        let outcome = match condition {
            None => write_locked(&transaction, id, statement, params).await.map_err(TxError::DbError),
            Some(condition) => write_if(&transaction, id, condition, statement, params).await,
        };
        if let Some(row) = transaction.end(&app.database, outcome, tries).await? {
            return Ok(row);
        }
    }
}

/// One round trip. The lock is a statement of its own, so that the next one sees what the last writer left.
async fn write_locked(
    transaction: &Transaction,
    id: i64,
    statement: &Statement,
    params: Params<'_>,
) -> Result<Option<Row>, DbError> {
    let (begun, locked, written, committed) = join4(
        transaction.command("begin"),
        transaction.rows(&PRODUCTS_LOCK, &[&id]),
        transaction.rows(statement, params),
        transaction.command("commit"),
    )
    .await;
    begun?;
    locked?;
    // a commit after a failed statement says yes and rolls back: the statement's own word comes first
    let mut written = written?;
    committed?;
    Ok(written.pop())
}

/// Two round trips: what the condition speaks of is read behind the lock of the product, and holds until the commit. (Of the
/// names that it refers to, another may come meanwhile: then this write came first.)
async fn write_if(
    transaction: &Transaction,
    id: i64,
    condition: &IfMatch,
    statement: &Statement,
    params: Params<'_>,
) -> Result<Option<Row>, TxError> {
    let (begun, locked, present) = join3(
        transaction.command("begin"),
        transaction.rows(&PRODUCTS_LOCK, &[&id]),
        transaction.rows(&PRODUCTS_BY_ID, &[&id]),
    )
    .await;
    begun?;
    locked?;
    let present = present?;
    let refusal = match present.first() {
        None => Some(NO_SUCH_PRODUCT),
        Some(row) if !condition.holds(&etag_of(&Product::from_columns(row, 0).to_json())) => {
            Some(Error::PreconditionFailed)
        }
        Some(_) => None,
    };
    if let Some(error) = refusal {
        return Err(TxError::Refused(error));
    }
    let (written, committed) = join(transaction.rows(statement, params), transaction.command("commit")).await;
    let mut written = written?;
    committed?;
    Ok(written.pop())
}
