//! `openapi.json` (OpenAPI 3.1): the request and the responses of each route.
//!
//! `components.json` holds schemas, headers and parameters. The error responses of an operation follow from its route,
//! its path and its request body. A test compares the paths with the route table.

use hyper::Method;
use serde_json::{Map, Value, json};

use crate::{
    http::router::{QueryParams, RouteSummary},
    products::files::format::{CSV_MEDIA_TYPE, OCTET_STREAM_MEDIA_TYPE, XLSX_MEDIA_TYPE},
};

const JSON: &str = "application/json";
const HTML: &str = "text/html";

/// One method of one path.
struct Operation {
    method: Method,
    path: &'static str,
    tag: &'static str,
    summary: &'static str,
    description: &'static str,
    parameters: Vec<&'static str>,
    request_body: Option<Value>,
    responses: Map<String, Value>,
}

/// Returns the OpenAPI document. Access levels and the treatment of query parameters come from `routes`.
pub(crate) fn document(routes: &[RouteSummary]) -> Value {
    let components: Value = serde_json::from_str(include_str!("components.json"))
        .unwrap_or_else(|error| unreachable!("components.json is tested: {error}"));
    let mut paths = Map::new();
    for operation in [accounts(), products(), taxonomy(), server()].into_iter().flatten() {
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
            "description": include_str!("about.md"),
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
    let no_such_page = "The page is beyond the last one, or the cursor is damaged.";
    vec![
        get("/api/products/", "Products", "List products")
            .description("Without parameters, the list contains all products. The list is never stale: a request that \
                          starts after a write was acknowledged, by any instance or program, returns a list that \
                          contains the write.")
            .parameters(&selection).parameters(&paging).parameters(&["If-None-Match"])
            .response(200, "The products, ordered by id unless `ordering` is given.", "ProductList").not_modified()
            .response_headers(&["ETag", "Cache-Status", "Link", "X-Total-Count"])
            .error(404, no_such_page, json!({"detail": "Invalid page."})),
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

fn schema(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// Returns the content of a file. Generators read and send bytes where the format is `binary`.
fn binary() -> Value {
    json!({"schema": {"type": "string", "format": "binary"}})
}

fn token_not_valid_body() -> Value {
    json!({
        "detail": "Given token not valid for any token type",
        "code": "token_not_valid",
        "messages": [{"token_class": "AccessToken", "token_type": "access", "message": "Token is invalid"}],
    })
}

impl Operation {
    /// Creates an operation with the errors that follow from its path.
    fn new(method: Method, path: &'static str, tag: &'static str, summary: &'static str) -> Self {
        let parameters = if path.contains("{id}") { vec!["id"] } else { vec![] };
        let (request_body, responses) = (None, Map::new());
        let this = Self { method, path, tag, summary, description: "", parameters, request_body, responses };
        if path.starts_with("/api/") { this.api_errors() } else { this }
    }

    fn api_errors(mut self) -> Self {
        let unavailable = json!({"detail": "Service temporarily unavailable."});
        self = self
            .error(431, "The request head is too large.", json!({"detail": "Request header fields too large."}))
            .error(500, "Internal error.", json!({"detail": "Internal server error."}))
            .error(503, "The server is overloaded, or the database is unavailable.", unavailable);
        if self.path.contains("{id}") {
            let model = match self.tag {
                "Categories" => "Category",
                "Tags" => "Tag",
                _ => "Product",
            };
            let detail = format!("No {model} matches the given query.");
            self = self.error(404, "No item has this id.", json!({ "detail": detail }));
        }
        self
    }

    /// Adds the errors that follow from the route, unless the operation describes them itself.
    fn route_errors(self, route: &RouteSummary) -> Self {
        let described = self.responses.clone();
        let mut this = self;
        if route.access != "anyone" {
            let description = "The token is missing, invalid, expired or revoked.";
            this = this.error_with_schema(401, description, schema("TokenError"), token_not_valid_body());
        }
        if route.access == "staff" {
            let detail = "You do not have permission to perform this action.";
            this = this.error(403, "The account is not staff.", json!({ "detail": detail }));
        }
        if route.query != QueryParams::Ignored {
            let example = json!({"categry": ["Unknown parameter."]});
            this =
                this.error_with_schema(400, "A parameter is unknown or invalid.", schema("ValidationError"), example);
        }
        this.responses.extend(described);
        this
    }

    fn description(mut self, text: &'static str) -> Self {
        self.description = text;
        self
    }

    fn parameters(mut self, names: &[&'static str]) -> Self {
        self.parameters.extend(names);
        self
    }

    fn json_body(self, name: &str) -> Self {
        self.body_with_content(json!({ JSON: {"schema": schema(name)} }))
    }

    /// Sets the body of an import. Generators that support one media type use the first one. `multipart/form-data` is
    /// accepted and not described: beside other media types, generators write clients that do not compile.
    fn file_body(self) -> Self {
        let table = "ID,Name,Description,Category,Price,Created at,Tags\r\n,Kettle,,Kitchen,19.99,,\"new, steel\"\r\n";
        let mut csv = binary();
        csv["example"] = table.into();
        self.body_with_content(json!({
            OCTET_STREAM_MEDIA_TYPE: binary(),
            XLSX_MEDIA_TYPE: binary(),
            CSV_MEDIA_TYPE: csv,
        }))
    }

    /// Sets the request body and the errors that reading it can cause.
    fn body_with_content(mut self, content: Value) -> Self {
        // a PATCH that changes nothing may omit the body
        self.request_body = Some(json!({"required": self.method != Method::PATCH, "content": content}));
        let example = json!({"name": ["This field is required."]});
        let invalid = "Fields or parameters are invalid. All errors are returned together.";
        self.error_with_schema(400, invalid, schema("ValidationError"), example)
            .error(408, "The body did not arrive in time.", json!({"detail": "Request body did not arrive in time."}))
            .error(413, "The body is too large.", json!({"detail": "Request body too large."}))
            .error(
                415,
                "The media type of the body is not supported.",
                json!({"detail": "Unsupported media type \"text/plain\" in request."}),
            )
    }

    /// Adds a response from the cache, which the client may have already.
    fn cached_response(self, description: &str, name: &str) -> Self {
        self.parameters(&["If-None-Match"])
            .response(200, description, name)
            .not_modified()
            .response_headers(&["ETag", "Cache-Status"])
    }

    fn creates_named_resource(self) -> Self {
        self.json_body("NameRequest")
            .response(201, "The created item.", "NamedResource")
            .response_headers(&["ETag", "Location"])
    }

    fn updates_named_resource(self, request: &str) -> Self {
        self.parameters(&["If-Match"])
            .json_body(request)
            .response(200, "The updated item.", "NamedResource")
            .response_headers(&["ETag"])
            .precondition_failed()
    }

    fn response(self, status: u16, description: &str, name: &str) -> Self {
        self.response_with_content(status, description, JSON, json!({ "schema": schema(name) }))
    }

    fn response_with_content(mut self, status: u16, description: &str, media_type: &str, content: Value) -> Self {
        let response = json!({"description": description, "content": {media_type: content}});
        self.responses.insert(status.to_string(), response);
        self
    }

    /// Adds a media type to an existing response.
    fn add_content(mut self, status: u16, media_type: &str, content: Value) -> Self {
        self.responses[&status.to_string()]["content"][media_type] = content;
        self
    }

    /// Adds the response of an export. Generators that support one media type use the first one, and read the file as
    /// text if it is `text/csv`.
    fn file_response(self) -> Self {
        self.response_with_content(200, "The file.", OCTET_STREAM_MEDIA_TYPE, binary())
            .add_content(200, XLSX_MEDIA_TYPE, binary())
            .add_content(200, CSV_MEDIA_TYPE, binary())
    }

    fn no_content(mut self) -> Self {
        self.responses.insert("204".to_owned(), json!({"description": "Success, without a body."}));
        self
    }

    fn not_modified(mut self) -> Self {
        let response = json!({"description": "The representation of the client is current."});
        self.responses.insert("304".to_owned(), response);
        self
    }

    /// Adds headers to all responses that are not errors.
    fn response_headers(mut self, names: &[&str]) -> Self {
        for (_, response) in self.responses.iter_mut().filter(|(status, _)| status.as_str() < "304") {
            for name in names {
                response["headers"][name] = json!({ "$ref": format!("#/components/headers/{name}") });
            }
        }
        self
    }

    fn error(self, status: u16, description: &str, example: Value) -> Self {
        self.error_with_schema(status, description, schema("ErrorDetail"), example)
    }

    fn error_with_schema(mut self, status: u16, description: &str, schema: Value, example: Value) -> Self {
        let content = json!({JSON: {"schema": schema, "example": example}});
        let mut response = json!({"description": description, "content": content});
        let header = match status {
            401 => Some("WWW-Authenticate"),
            429 | 503 => Some("Retry-After"),
            _ => None,
        };
        if let Some(name) = header {
            response["headers"][name] = json!({ "$ref": format!("#/components/headers/{name}") });
        }
        self.responses.insert(status.to_string(), response);
        self
    }

    fn rate_limited(self) -> Self {
        let detail = "Request was throttled. Expected available in 60 seconds.";
        self.error(429, "The rate limit is exceeded.", json!({ "detail": detail }))
    }

    fn precondition_failed(self) -> Self {
        let example = json!({"detail": "Precondition failed."});
        self.error(412, "The resource does not match `If-Match`.", example)
    }

    /// Returns `get_products` for `GET /api/products/`, `get_one_products` for `GET /api/products/{id}/`, and so on.
    fn operation_id(&self) -> String {
        let words: Vec<&str> =
            self.path.split(['/', '.']).filter(|word| !["", "api", "{id}", "json"].contains(word)).collect();
        let one = if self.path.contains("{id}") { "one_" } else { "" };
        let words = if words.is_empty() { "root".to_owned() } else { words.join("_") };
        format!("{}_{one}{words}", self.method.as_str().to_ascii_lowercase())
    }

    fn into_value(self, route: &RouteSummary) -> Value {
        let this = self.route_errors(route);
        let parameters: Vec<Value> =
            this.parameters.iter().map(|name| json!({ "$ref": format!("#/components/parameters/{name}") })).collect();
        let mut value = json!({
            "tags": [this.tag],
            "summary": this.summary,
            "operationId": this.operation_id(),
            "security": if route.access == "anyone" { json!([]) } else { json!([{"bearer": []}]) },
            "x-access": route.access,
        });
        if !this.description.is_empty() {
            value["description"] = this.description.into();
        }
        if !parameters.is_empty() {
            value["parameters"] = parameters.into();
        }
        if let Some(body) = this.request_body {
            value["requestBody"] = body;
        }
        value["responses"] = this.responses.into();
        value
    }
}
