//! `GET /api/products/`: all products, or those that the query selects.

use std::sync::Arc;

use super::{list_request::ListRequest, query::ListQuery};
use crate::{
    app::App,
    auth::UserAllowStale,
    cache::{Collection, List},
    error::Result,
    http::{Request, Response},
    lists,
};

pub(crate) async fn list(app: &App, request: Request, UserAllowStale(user): UserAllowStale) -> Result<Response> {
    let query = ListQuery::parse(&request)?;
    let query_key = if request.has_query() { query.key().into() } else { Arc::default() };
    let list = List { collection: Collection::Products, query: query_key };
    let source = || ListRequest { query: Arc::new(query), count_cache: Arc::clone(&app.count_cache) };
    lists::serve(app, request, user, list, source).await
}
