//! `/api/categories/`

use super::named::{NamedResource, ResourceDef};
use crate::{
    app::App,
    auth::Staff,
    db::statements,
    error::{Error, Result},
    http::{Request, Response, response},
};

/// The model.
pub(crate) struct Category;

impl NamedResource for Category {
    const KIND: ResourceDef = ResourceDef {
        model: "Category",
        path: "/api/categories/",
        unique: "categories_name_key",
        list: statements::CATEGORIES_LIST,
        one: statements::CATEGORIES_BY_ID,
        create: statements::CATEGORIES_CREATE,
        rename: statements::CATEGORIES_RENAME,
    };
}

/// One category less, unless products use it.
pub(crate) async fn delete(app: &App, request: Request, _: Staff) -> Result<Response> {
    let mut tries = 0;
    loop {
        tries += 1;
        match app.database.row(&statements::CATEGORIES_DELETE, &[&request.path_id()]).await {
            Ok(row) => {
                let row = row.ok_or_else(|| Error::internal("categories/delete gave no row"))?;
                return match (row.get::<_, i64>(0), row.get(1)) {
                    (0, true) => Ok(response::no_content()),
                    (0, false) => Err(Error::RowNotFound(Category::KIND.model)),
                    (1, _) => Err(Error::Conflict("Category is used by 1 product.".to_owned())),
                    (products, _) => Err(Error::Conflict(format!("Category is used by {products} products."))),
                };
            }
            // a product came in between: now it can be counted
            Err(failure) if failure.constraint() == Some("products_category_id_fkey") && tries == 1 => {}
            Err(failure) => return Err(failure.into()),
        }
    }
}
