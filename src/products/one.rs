//! `GET /api/products/{id}/`

use hyper::{StatusCode, header::HeaderValue};

use super::product::Product;
use crate::{
    app::App,
    auth::User,
    cache::{
        Representation,
        entry::{content_id, etag},
    },
    db::statements,
    error::{Error, Result},
    http::{Reply, Request, reply},
};

/// One product, straight from the database.
pub async fn one(app: &App, request: Request, _: User) -> Result<Reply> {
    request.no_parameters()?;
    let row = app.database.row(&statements::PRODUCTS_BY_ID, &[&request.path_id()]).await?;
    let row = row.ok_or(Error::NoSuchRow("Product"))?;
    let json = Product::from_columns(&row, 0).to_json();
    let etag = tag(&json);
    Ok(reply::cached(&request, etag, || reply::json_bytes(StatusCode::OK, json)))
}

/// The entity tag of a product's JSON.
pub(super) fn tag(json: &[u8]) -> HeaderValue {
    etag(&content_id(json), Representation::Identity)
}
