//! `openapi.json` (OpenAPI 3.1): the request and the responses of each route.
//!
//! `operations` lists the routes, `operation` builds the object of one, and `components.json` holds schemas, headers and
//! parameters. The error responses of an operation follow from its route, its path and its request body. A test
//! compares the paths with the route table.

mod operation;
mod operations;

use serde_json::{Map, Value, json};

use crate::http::router::RouteSummary;

/// Returns the OpenAPI document. Access levels and the treatment of query parameters come from `routes`.
pub(crate) fn document(routes: &[RouteSummary]) -> Value {
    let components: Value = serde_json::from_str(include_str!("components.json"))
        .unwrap_or_else(|error| unreachable!("components.json is tested: {error}"));
    let mut paths = Map::new();
    for operation in operations::all() {
        let item = paths.entry(operation.path).or_insert_with(|| json!({}));
        let method = operation.method.as_str().to_ascii_lowercase();
        let route = routes.iter().find(|route| route.path == operation.path && route.method == operation.method);
        let route = route.unwrap_or_else(|| unreachable!("no route for {} {}", operation.method, operation.path));
        item[method] = operation.into_value(route);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "TestShop",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": env!("CARGO_PKG_DESCRIPTION"),
            "description": include_str!("../about.md"),
            "license": {"name": env!("CARGO_PKG_LICENSE"), "identifier": env!("CARGO_PKG_LICENSE")},
        },
        "servers": [{"url": "/"}],
        "tags": [
            {"name": "Accounts", "description": "Registration, login, tokens and passwords."},
            {"name": "Products", "description": "The product list, single products, export and import."},
            {"name": "Categories", "description": "Each product belongs to one category."},
            {"name": "Tags", "description": "A product has any number of tags."},
            {"name": "Server", "description": "Health checks and documentation."},
        ],
        "paths": paths,
        "components": components,
    })
}
