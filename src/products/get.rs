//! `GET /api/products/{id}/`

use hyper::StatusCode;

use super::product::{Product, etag_of};
use crate::{
    app::App,
    auth::User,
    db::statements,
    error::{Error, Result},
    http::{Request, Response, response},
};

pub(crate) async fn get(app: &App, request: Request, _: User) -> Result<Response> {
    let row = app.database.row(&statements::PRODUCTS_BY_ID, &[&request.path_id()]).await?;
    let row = row.ok_or(Error::RowNotFound("Product"))?;
    let json = Product::from_columns(&row, 0).to_json();
    let etag = etag_of(&json);
    Ok(response::conditional(&request, etag, || response::json_bytes(StatusCode::OK, json)))
}
