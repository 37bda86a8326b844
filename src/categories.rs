//! `/api/categories/`

use crate::{
    app::App,
    auth::{Staff, User},
    db::statements,
    error::{Error, Result},
    http::{Reply, Request, reply},
    named::Kind,
};

const KIND: Kind = Kind {
    model: "Category",
    path: "/api/categories/",
    unique: "categories_name_key",
    list: statements::CATEGORIES_LIST,
    one: statements::CATEGORIES_ONE,
    create: statements::CATEGORIES_CREATE,
    rename: statements::CATEGORIES_RENAME,
};

/// All categories.
pub async fn list(app: &App, request: Request, _: User) -> Result<Reply> {
    KIND.list(app, &request).await
}

/// One category.
pub async fn one(app: &App, request: Request, _: User) -> Result<Reply> {
    KIND.one(app, &request).await
}

/// A new category.
pub async fn create(app: &App, request: Request, _: Staff) -> Result<Reply> {
    KIND.create(app, request).await
}

/// Another name.
pub async fn replace(app: &App, request: Request, _: Staff) -> Result<Reply> {
    KIND.rename(app, request, false).await
}

/// Another name, or none.
pub async fn change(app: &App, request: Request, _: Staff) -> Result<Reply> {
    KIND.rename(app, request, true).await
}

/// One category less, unless products use it.
pub async fn delete(app: &App, request: Request, _: Staff) -> Result<Reply> {
    request.no_parameters()?;
    let mut tries = 0;
    loop {
        tries += 1;
        match app.database.row(&statements::CATEGORIES_DELETE, &[&request.path_id()]).await {
            Ok(row) => {
                let row = row.ok_or_else(|| Error::internal("categories/delete gave no row"))?;
                return match (row.get::<_, i64>(0), row.get(1)) {
                    (0, true) => Ok(reply::no_content()),
                    (0, false) => Err(Error::NoSuchRow(KIND.model)),
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
