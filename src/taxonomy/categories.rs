//! `/api/categories/`

use super::named::{NamedResource, ResourceDef};
use crate::{
    app::App,
    auth::Staff,
    db::statements,
    error::{Error, Result},
    http::{Request, Response, response},
};

pub(crate) struct Category;

impl NamedResource for Category {
    const DEF: ResourceDef = ResourceDef {
        model: "Category",
        path: "/api/categories/",
        unique_constraint: "categories_name_key",
        list: statements::CATEGORIES_LIST,
        by_id: statements::CATEGORIES_BY_ID,
        create: statements::CATEGORIES_CREATE,
        rename: statements::CATEGORIES_RENAME,
    };
}

/// Deletes a category unless products use it.
pub(crate) async fn delete(app: &App, request: Request, _: Staff) -> Result<Response> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        match app.database.row(&statements::CATEGORIES_DELETE, &[&request.path_id()]).await {
            Ok(row) => {
                let row = row.ok_or_else(|| Error::internal("categories/delete returned no row"))?;
                return match (row.get::<_, i64>("products"), row.get("is_deleted")) {
                    (0, true) => Ok(response::no_content()),
                    (0, false) => Err(Error::RowNotFound(Category::DEF.model)),
                    (1, _) => Err(Error::Conflict("Category is used by 1 product.".to_owned())),
                    (products, _) => Err(Error::Conflict(format!("Category is used by {products} products."))),
                };
            }
            // a product was inserted after the statement's snapshot: a second attempt counts it
            Err(error) if error.constraint() == Some("products_category_id_fkey") && attempt == 1 => {}
            Err(error) => return Err(error.into()),
        }
    }
}
