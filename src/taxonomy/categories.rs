//! `/api/categories/`

use tokio_postgres::Row;

use super::{
    named::write_conditionally,
    resource::{NamedResource, ResourceDef},
};
use crate::{
    app::App,
    auth::Staff,
    cache::Collection,
    db::{DbError, pool::Params, statements},
    error::{Error, Result},
    http::{
        Request, Response,
        response::{self, WriteCondition},
    },
};

#[derive(Debug, Clone, Copy)]
pub(crate) struct Category;

impl NamedResource for Category {
    const DEF: ResourceDef = ResourceDef {
        model: "Category",
        collection: Collection::Categories,
        path: "/api/categories/",
        unique_constraint: "categories_name_key",
        list: statements::CATEGORIES_LIST,
        by_id: statements::CATEGORIES_BY_ID,
        lock: statements::CATEGORIES_LOCK,
        create: statements::CATEGORIES_CREATE,
        rename: statements::CATEGORIES_RENAME,
    };
}

/// Deletes a category unless products use it.
pub(crate) async fn delete(app: &App, request: Request, _: Staff) -> Result<Response> {
    let id = request.path_id();
    let params: Params<'_> = &[&id];
    let row = match WriteCondition::from_request(&request) {
        None => delete_unconditionally(app, params).await?,
        // the category is locked: no product that uses it can be inserted before the statement counts them
        Some(condition) => {
            write_conditionally::<Category>(app, id, &condition, &statements::CATEGORIES_DELETE, params).await?
        }
    };
    let row = row.ok_or_else(|| Error::internal("categories/delete returned no row"))?;
    match (row.get::<_, i64>("products"), row.get("is_deleted")) {
        (0, true) => Ok(response::no_content()),
        (0, false) => Err(Category::DEF.not_found()),
        (1, _) => Err(Error::Conflict("Category is used by 1 product.".to_owned())),
        (products, _) => Err(Error::Conflict(format!("Category is used by {products} products."))),
    }
}

async fn delete_unconditionally(app: &App, params: Params<'_>) -> Result<Option<Row>, DbError> {
    match app.database.row(&statements::CATEGORIES_DELETE, params).await {
        // a product was inserted after the statement's snapshot: a second attempt counts it
        Err(error) if error.constraint() == Some("products_category_id_fkey") => {
            app.database.row(&statements::CATEGORIES_DELETE, params).await
        }
        outcome => outcome,
    }
}
