//! The operations of the API.

use hyper::Method;
use serde_json::json;

use super::operation::{EVENT_STREAM, HTML, JSON, Operation, schema, token_not_valid_body};

/// Returns all operations in the order of the document.
pub(super) fn all() -> impl Iterator<Item = Operation> {
    [accounts(), products(), taxonomy(), server()].into_iter().flatten()
}

#[rustfmt::skip]
fn accounts() -> Vec<Operation> {
    vec![
        post("/api/register/", "Accounts", "Register an account")
            .json_body("Registration").rate_limited()
            .response(201, "The account was created.", "Message"),
        post("/api/login/", "Accounts", "Log in")
            .description("An unknown user, a wrong password and an inactive account get the same response after the \
                          same time.")
            .json_body("Credentials").rate_limited()
            .response(200, "An access token and a refresh token.", "Tokens")
            .error(401, "The credentials are wrong.",
                   json!({"detail": "No active account found with the given credentials"})),
        post("/api/token/refresh/", "Accounts", "Refresh the tokens")
            .description("A refresh token can be used once, and again within a short grace (`REFRESH_GRACE`, 10 s by \
                          default), because tabs of a browser may refresh at once. A refresh token that is presented \
                          later revokes its whole token family, because it was copied: keep the one that was issued \
                          last. Refreshing does not extend a session beyond its absolute lifetime, which the operator \
                          sets.")
            .json_body("RefreshRequest")
            .response(200, "A new access token and a new refresh token.", "Tokens")
            .error_with_schema(401, "The refresh token is spent, expired or unknown.",
                               schema("TokenError"), token_not_valid_body()),
        post("/api/logout/", "Accounts", "Log out")
            .description("Revokes the access token and its refresh token family on every instance, from the next \
                          request on.")
            .no_content(),
        post("/api/logout/all/", "Accounts", "Log out everywhere")
            .description("Revokes all tokens of the account on every instance, from the next request on.")
            .no_content(),
        post("/api/password/", "Accounts", "Change the password")
            .description("Revokes all tokens that were issued before the change.")
            .json_body("PasswordChangeRequest").rate_limited().no_content(),
        get("/api/me/", "Accounts", "Get the current account")
            .response(200, "The account of the token.", "Account"),
    ]
}

#[rustfmt::skip]
fn products() -> Vec<Operation> {
    let paging = ["page_size", "page", "cursor"];
    let selection = [
        "ids", "category", "tag", "price_min", "price_max", "created_after", "created_before", "search", "ordering",
        "fields",
    ];
    let text = || json!({"schema": {"type": "string"}});
    let no_such_page = "The page is beyond the last one, or the cursor is damaged.";
    vec![
        get("/api/products/", "Products", "List products")
            .description("Without parameters, the list contains all products. The list is never stale: a request that \
                          starts after a write was acknowledged, by any instance or program, returns a list that \
                          contains the write.")
            .parameters(&selection).parameters(&paging).parameters(&["If-None-Match"])
            .response(200, "The products, ordered by id unless `ordering` is given.", "ProductList").not_modified()
            .response_headers(&["ETag", "Cache-Status", "Link", "X-Total-Count", "X-Sync-Token"])
            .error(404, no_such_page, json!({"detail": "Invalid page."})),
        get("/api/products/changes/", "Products", "List changes")
            .description("What turns the state of `since` into the present one: load all products once, keep the header \
                          `X-Sync-Token`, and send it as `since`. While a page has `more`, ask again with its `token`; \
                          afterwards the copy is exactly the list. Every change counts, whatever caused it. A token \
                          survives at least 1,000 commits.")
            .parameters(&["since", "limit", "Prefer", "If-None-Match"])
            .response(200, "A page of changes.", "ChangePage").not_modified()
            .response_headers(&["ETag", "Preference-Applied"])
            .error_with_schema(410, "The changes since the token are not known.", schema("SyncTokenExpired"),
                               json!({"detail": "The sync token has expired. Load the whole list again.",
                                      "code": "sync_token_expired"})),
        get("/api/products/events/", "Products", "Receive changes")
            .description("A stream of server-sent events. Each event `changes` has a token as its `id` and an object like \
                          the response of `changes/` as its `data`. Without `since` and `Last-Event-ID`, the first \
                          event names the present state. The event `expired` ends the stream in place of a 410: load \
                          all products again. The stream also ends with the access token.")
            .parameters(&["continue_since", "Last-Event-ID"])
            .response_with_content(200, "The events.", EVENT_STREAM, text()),
        post("/api/products/", "Products", "Create a product")
            .parameters(&["Idempotency-Key"]).json_body("ProductRequest")
            .response(201, "The created product.", "Product")
            .response_headers(&["ETag", "Location", "Idempotent-Replayed"])
            .error(422, "The idempotency key was used with another body.",
                   json!({"detail": "This Idempotency-Key was used with another request body."})),
        get("/api/products/export/", "Products", "Export products")
            .description("The file shows one snapshot of the database. No cell is a formula. The media type is that of \
                          `format`; it is `application/octet-stream` for a client that accepts only this type.")
            .parameters(&["format", "bom"]).parameters(&selection).parameters(&paging).parameters(&["If-None-Match"])
            .file_response().not_modified().response_headers(&["ETag", "Cache-Status", "Content-Disposition"])
            .error(404, no_such_page, json!({"detail": "Invalid page."})),
        post("/api/products/import/", "Products", "Import products")
            .description("Reads a workbook or a CSV file in the format of the export. The content of the file decides \
                          which of them it is. A row with an ID updates that \
                          product; a row without one creates a product. The import is one transaction: with \
                          `on_error=abort`, one invalid row rolls back all rows. `If-Match` takes the ETag of \
                          the export that the file was made from: 412 if the catalogue has changed since. With \
                          `missing_id=create` and `create_categories=true`, an export fills an empty shop.")
            .parameters(&["dry_run", "on_error", "unknown_columns", "create_categories", "missing_id"])
            .parameters(&["If-Match", "Idempotency-Key"]).file_body()
            .response(200, "The result of the import.", "ImportReport").response_headers(&["Idempotent-Replayed"])
            .error(422, "The idempotency key was used with another request.",
                   json!({"detail": "This Idempotency-Key was used with another request body."}))
            .error(412, "The catalogue has changed since the export that `If-Match` names. Nothing was changed.",
                   json!({"detail": "Precondition failed."}))
            .error_with_schema(400, "A row, the file or a parameter is invalid. Nothing was changed.",
                               schema("ImportFailure"), json!({"detail": "Import error - The file has no header row."})),
        get("/api/products/{id}/", "Products", "Get a product")
            .parameters(&["If-None-Match"])
            .response(200, "The product.", "Product").not_modified().response_headers(&["ETag"]),
        put("/api/products/{id}/", "Products", "Replace a product")
            .description("Fields that the body omits are set to their defaults.")
            .parameters(&["If-Match"]).json_body("ProductRequest")
            .response(200, "The updated product.", "Product").response_headers(&["ETag"]).precondition_failed(),
        patch("/api/products/{id}/", "Products", "Update a product")
            .parameters(&["If-Match"]).json_body("ProductPatch")
            .response(200, "The updated product.", "Product").response_headers(&["ETag"]).precondition_failed(),
        delete("/api/products/{id}/", "Products", "Delete a product")
            .parameters(&["If-Match"]).no_content().precondition_failed(),
    ]
}

#[rustfmt::skip]
fn taxonomy() -> Vec<Operation> {
    let list = "All items, ordered by id.";
    let (categories, category) = ("/api/categories/", "/api/categories/{id}/");
    let (tags, tag) = ("/api/tags/", "/api/tags/{id}/");
    vec![
        get(categories, "Categories", "List categories").cached_response(list, "NamedResourceList"),
        post(categories, "Categories", "Create a category").creates_named_resource(),
        get(category, "Categories", "Get a category").cached_response("The category.", "NamedResource"),
        put(category, "Categories", "Replace a category").updates_named_resource("NameRequest"),
        patch(category, "Categories", "Update a category").updates_named_resource("NamePatch"),
        delete(category, "Categories", "Delete a category")
            .parameters(&["If-Match"]).no_content().precondition_failed()
            .error(409, "Products use the category.", json!({"detail": "Category is used by 3 products."})),

        get(tags, "Tags", "List tags").cached_response(list, "NamedResourceList"),
        post(tags, "Tags", "Create a tag").creates_named_resource(),
        get(tag, "Tags", "Get a tag").cached_response("The tag.", "NamedResource"),
        put(tag, "Tags", "Replace a tag").updates_named_resource("NameRequest"),
        patch(tag, "Tags", "Update a tag").updates_named_resource("NamePatch"),
        delete(tag, "Tags", "Delete a tag")
            .parameters(&["If-Match"]).no_content().precondition_failed()
            .description("Removes the tag from all products that have it."),
    ]
}

#[rustfmt::skip]
fn server() -> Vec<Operation> {
    let text = || json!({"schema": {"type": "string"}});
    vec![
        get("/healthz", "Server", "Check liveness").response(200, "The process is running.", "Health"),
        get("/readyz", "Server", "Check readiness").response(200, "The database is reachable.", "Readiness")
            .error_with_schema(503, "The database is unreachable, or the server is stopping.",
                               schema("Readiness"), json!({"database": "down", "cache": "ok"})),
        get("/", "Server", "Get name and version")
            .response(200, "The name, the version and the paths of the documentation.", "Root")
            .add_content(200, HTML, text()).not_modified(),
        get("/docs", "Server", "Get the documentation page")
            .response_with_content(200, "The page.", HTML, text()).not_modified(),
        get("/openapi.json", "Server", "Get the OpenAPI document")
            .response_with_content(200, "The OpenAPI 3.1 document.", JSON, json!({"schema": {"type": "object"}}))
            .not_modified(),
    ]
}

fn get(path: &'static str, tag: &'static str, summary: &'static str) -> Operation {
    Operation::new(Method::GET, path, tag, summary)
}
fn post(path: &'static str, tag: &'static str, summary: &'static str) -> Operation {
    Operation::new(Method::POST, path, tag, summary)
}
fn put(path: &'static str, tag: &'static str, summary: &'static str) -> Operation {
    Operation::new(Method::PUT, path, tag, summary)
}
fn patch(path: &'static str, tag: &'static str, summary: &'static str) -> Operation {
    Operation::new(Method::PATCH, path, tag, summary)
}
fn delete(path: &'static str, tag: &'static str, summary: &'static str) -> Operation {
    Operation::new(Method::DELETE, path, tag, summary)
}
