//! `openapi.json` (OpenAPI 3.1): what each route takes and gives. Schemas and parameters stand in `components.json`; what
//! an error looks like follows from who may call and what is sent. A test holds the paths against the route table.

use hyper::Method;
use serde_json::{Map, Value, json};

use crate::products::files::format::{CSV, XLSX};

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";
const HTML: &str = "text/html";

/// Who may call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Anonymous,
    User,
    Staff,
}
use Access::{Anonymous, Staff, User};

/// One method of one path.
struct Operation {
    method: Method,
    path: &'static str,
    access: Access,
    room: &'static str,
    about: &'static str,
    more: &'static str,
    parameters: Vec<&'static str>,
    body: Option<Value>,
    replies: Map<String, Value>,
}

/// The document.
pub fn document() -> Value {
    let components: Value = serde_json::from_str(include_str!("components.json"))
        .unwrap_or_else(|error| unreachable!("components.json is tested: {error}"));
    let mut paths = Map::new();
    for operation in operations() {
        let item = paths.entry(operation.path).or_insert_with(|| json!({}));
        let method = operation.method.as_str().to_ascii_lowercase();
        item[method] = operation.into_value();
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
            {"name": "Accounts", "description": "Registering, logging in and out."},
            {"name": "Products", "description": "The list, one product, files."},
            {"name": "Categories", "description": "Each product has one."},
            {"name": "Tags", "description": "A product has any number of them."},
            {"name": "Server", "description": "For people and balancers."},
        ],
        "paths": paths,
        "components": components,
    })
}

#[rustfmt::skip]
fn operations() -> Vec<Operation> {
    let pages = ["page_size", "page", "cursor"];
    let selection = ["category", "tag", "price_min", "price_max", "created_after", "created_before", "search", "ordering"];
    let mut all = vec![
        post("/api/register/", Anonymous, "Accounts", "Register an account")
            .takes_form("Registration").throttled().replies(201, "Registered.", "Message"),
        post("/api/login/", Anonymous, "Accounts", "Log in")
            .more("Unknown user, wrong password and inactive account are one answer after one time.")
            .takes_form("Credentials").throttled().replies(200, "A pair of tokens.", "Tokens")
            .fails(401, "Wrong credentials.", json!({"detail": "No active account found with the given credentials"})),
        post("/api/token/refresh/", Anonymous, "Accounts", "Renew a login")
            .more("The refresh token is spent by it. A spent one that comes again has been copied: its whole family ends. However often it is renewed, a login has a last day, which the operator sets.")
            .takes("RefreshGiven").replies(200, "The next pair of tokens.", "Tokens")
            .fails_as(401, "Spent, expired, or none of ours.", schema("Unauthenticated"), dead_token()),
        post("/api/logout/", User, "Accounts", "Log out")
            .more("The token and its refresh family are refused from now on, on every instance.").gives_nothing(),
        post("/api/logout/all/", User, "Accounts", "Log out everywhere").gives_nothing(),
        post("/api/password/", User, "Accounts", "Change one's password")
            .more("Every token issued before is refused from then on.")
            .takes("PasswordChange").throttled().gives_nothing(),
        get("/api/me/", User, "Accounts", "One's own account").replies(200, "The account.", "Account"),

        get("/api/products/", User, "Products", "List products")
            .more("Without parameters it is all of them. Never stale: a list that is asked for after a write was \
                   acknowledged, by any instance or program, shows it.")
            .parameters(&selection).parameters(&pages).parameters(&["If-None-Match"])
            .replies(200, "Products, by id unless `ordering` says otherwise.", "Products").not_modified()
            .headers(&["ETag", "Cache-Status", "Link", "X-Total-Count"])
            .fails(404, "A page beyond the end, or a damaged cursor.", json!({"detail": "Invalid page."})),
        post("/api/products/", Staff, "Products", "Make a product")
            .parameters(&["Idempotency-Key"]).takes("ProductGiven").replies(201, "The product.", "Product")
            .headers(&["ETag", "Location", "Idempotent-Replayed"])
            .fails(422, "The key was used with another body.", json!({"detail": "This Idempotency-Key was used with another request body."})),
        get("/api/products/export/", User, "Products", "Download products")
            .more("One snapshot of the database; no cell is ever a formula.")
            .parameters(&["format"]).parameters(&selection).parameters(&pages).parameters(&["If-None-Match"])
            .replies_with_file().not_modified().headers(&["ETag", "Cache-Status", "Content-Disposition"])
            .fails(404, "A page beyond the end, or a damaged cursor.", json!({"detail": "Invalid page."})),
        post("/api/products/import/", Staff, "Products", "Bring products in from a file")
            .more("A workbook or CSV as the export writes them. A row with an id changes that product, one without is a new \
                   one. All or, with `on_error=abort` and a faulty row, nothing.")
            .parameters(&["dry_run", "on_error"]).takes_file().replies(200, "What was done.", "ImportReport")
            .fails_as(400, "A faulty row, a broken file, or a wrong parameter. Nothing was changed.",
                      json!({"anyOf": [schema("ImportReport"), schema("Detail"), schema("Invalid")]}),
                      json!({"detail": "Import error - there is no row of titles."})),
        get("/api/products/{id}/", User, "Products", "One product")
            .parameters(&["If-None-Match"]).replies(200, "The product.", "Product").not_modified().headers(&["ETag"]),
        put("/api/products/{id}/", Staff, "Products", "Replace a product")
            .more("What the body does not name gets its default.")
            .parameters(&["If-Match"]).takes("ProductGiven").replies(200, "The product.", "Product").headers(&["ETag"]).conditional(),
        patch("/api/products/{id}/", Staff, "Products", "Change a product")
            .parameters(&["If-Match"]).takes("ProductChange").replies(200, "The product.", "Product").headers(&["ETag"]).conditional(),
        delete("/api/products/{id}/", Staff, "Products", "Delete a product")
            .parameters(&["If-Match"]).gives_nothing().conditional(),

        get("/healthz", Anonymous, "Server", "Whether the process lives").replies(200, "It does.", "Health"),
        get("/readyz", Anonymous, "Server", "Whether the database answers").replies(200, "It does.", "Readiness")
            .fails_as(503, "It does not, or the server is stopping.", schema("Readiness"), json!({"database": "down", "cache": "ok"})),
        get("/", Anonymous, "Server", "What this is").replies(200, "Name, version, and where the docs are.", "Root")
            .also(200, HTML, json!({"schema": {"type": "string"}})).not_modified(),
        get("/docs", Anonymous, "Server", "This page").replies_as(200, "The page.", HTML, json!({"schema": {"type": "string"}})).not_modified(),
        get("/openapi.json", Anonymous, "Server", "This document").replies_as(200, "OpenAPI 3.1.", JSON, json!({"schema": {"type": "object"}})).not_modified(),
    ];
    let named = [
        ("Categories", "category", "/api/categories/", "/api/categories/{id}/"),
        ("Tags", "tag", "/api/tags/", "/api/tags/{id}/"),
    ];
    for (room, one, many_path, one_path) in named {
        all.extend([
            get(many_path, User, room, "All, by id").replies(200, "All of them.", "NamedList"),
            post(many_path, Staff, room, "A new one").takes("NameGiven").replies(201, "It.", "Named").headers(&["Location"]),
            get(one_path, User, room, "One").replies(200, "It.", "Named"),
            put(one_path, Staff, room, "Rename").takes("NameGiven").replies(200, "It.", "Named"),
            patch(one_path, Staff, room, "Rename, or not").takes("NameChange").replies(200, "It.", "Named"),
        ]);
        let deleted = delete(one_path, Staff, room, "Delete").gives_nothing();
        all.push(match one {
            "category" => deleted.fails(409, "Products have it.", json!({"detail": "Category is used by 3 products."})),
            _ => deleted.more("It is taken off its products."),
        });
    }
    all
}

fn get(path: &'static str, access: Access, room: &'static str, about: &'static str) -> Operation {
    Operation::new(Method::GET, path, access, room, about)
}
fn post(path: &'static str, access: Access, room: &'static str, about: &'static str) -> Operation {
    Operation::new(Method::POST, path, access, room, about)
}
fn put(path: &'static str, access: Access, room: &'static str, about: &'static str) -> Operation {
    Operation::new(Method::PUT, path, access, room, about)
}
fn patch(path: &'static str, access: Access, room: &'static str, about: &'static str) -> Operation {
    Operation::new(Method::PATCH, path, access, room, about)
}
fn delete(path: &'static str, access: Access, room: &'static str, about: &'static str) -> Operation {
    Operation::new(Method::DELETE, path, access, room, about)
}

fn schema(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn dead_token() -> Value {
    json!({
        "detail": "Given token not valid for any token type",
        "code": "token_not_valid",
        "messages": [{"token_class": "AccessToken", "token_type": "access", "message": "Token is invalid"}],
    })
}

impl Operation {
    fn new(method: Method, path: &'static str, access: Access, room: &'static str, about: &'static str) -> Self {
        let parameters = if path.contains("{id}") { vec!["id"] } else { vec![] };
        let (body, replies) = (None, Map::new());
        let mut this = Self { method, path, access, room, about, more: "", parameters, body, replies };
        if !path.starts_with("/api/") {
            return this;
        }
        let away = json!({"detail": "Service temporarily unavailable."});
        this = this
            .fails(431, "The head is too large.", json!({"detail": "Request header fields too large."}))
            .fails(500, "Our fault.", json!({"detail": "Internal server error."}))
            .fails(503, "Overloaded, or the database is away.", away);
        if access != Anonymous {
            this = this.fails_as(401, "No token, or a dead one.", schema("Unauthenticated"), dead_token());
        }
        if access == Staff {
            let words = "You do not have permission to perform this action.";
            this = this.fails(403, "Not staff.", json!({ "detail": words }));
        }
        if path.contains("{id}") {
            let model = match room {
                "Categories" => "Category",
                "Tags" => "Tag",
                _ => "Product",
            };
            let words = format!("No {model} matches the given query.");
            this = this.fails(404, "No such row.", json!({ "detail": words }));
        }
        if room == "Accounts" && path != "/api/me/" {
            // these look at no parameters
            return this;
        }
        let example = json!({"categry": ["Unknown parameter."]});
        this.fails_as(400, "An unknown parameter, or a bad one.", schema("Invalid"), example)
    }

    fn more(mut self, words: &'static str) -> Self {
        self.more = words;
        self
    }

    fn parameters(mut self, names: &[&'static str]) -> Self {
        self.parameters.extend(names);
        self
    }

    fn takes(self, name: &str) -> Self {
        self.takes_as(json!({ JSON: {"schema": schema(name)} }))
    }

    fn takes_form(self, name: &str) -> Self {
        self.takes_as(json!({ JSON: {"schema": schema(name)}, FORM: {"schema": {"allOf": [schema(name)]}} }))
    }

    fn takes_file(self) -> Self {
        let table = "ID,Name,Description,Category,Price,Created at,Tags\r\n,Kettle,,Kitchen,19.99,,\"new, steel\"\r\n";
        self.takes_as(json!({
            CSV: {"schema": {"type": "string"}, "example": table},
            XLSX: {"schema": {"type": "string", "format": "binary"}},
        }))
    }

    fn takes_as(mut self, content: Value) -> Self {
        // a change that names nothing may as well have no body
        self.body = Some(json!({"required": self.method != Method::PATCH, "content": content}));
        let example = json!({"name": ["This field is required."]});
        self.fails_as(400, "A faulty field or parameter: all of them at once.", schema("Invalid"), example)
            .fails(408, "The body did not arrive in time.", json!({"detail": "Request body did not arrive in time."}))
            .fails(413, "The body is too large.", json!({"detail": "Request body too large."}))
            .fails(
                415,
                "A body of another kind.",
                json!({"detail": "Unsupported media type \"text/plain\" in request."}),
            )
    }

    fn replies(self, status: u16, about: &str, name: &str) -> Self {
        self.replies_as(status, about, JSON, json!({ "schema": schema(name) }))
    }

    fn replies_as(mut self, status: u16, about: &str, media_type: &str, content: Value) -> Self {
        self.replies.insert(status.to_string(), json!({"description": about, "content": {media_type: content}}));
        self
    }

    fn also(mut self, status: u16, media_type: &str, content: Value) -> Self {
        self.replies[&status.to_string()]["content"][media_type] = content;
        self
    }

    fn replies_with_file(self) -> Self {
        self.replies_as(200, "The file.", XLSX, json!({"schema": {"type": "string", "format": "binary"}})).also(
            200,
            CSV,
            json!({"schema": {"type": "string"}}),
        )
    }

    fn gives_nothing(mut self) -> Self {
        self.replies.insert("204".to_owned(), json!({"description": "Done."}));
        self
    }

    fn not_modified(mut self) -> Self {
        self.replies.insert("304".to_owned(), json!({"description": "The client has it already."}));
        self
    }

    /// Headers of the replies that are no errors.
    fn headers(mut self, names: &[&str]) -> Self {
        for (_, reply) in self.replies.iter_mut().filter(|(status, _)| status.as_str() < "304") {
            for name in names {
                reply["headers"][name] = json!({ "$ref": format!("#/components/headers/{name}") });
            }
        }
        self
    }

    fn fails(self, status: u16, about: &str, example: Value) -> Self {
        self.fails_as(status, about, schema("Detail"), example)
    }

    fn fails_as(mut self, status: u16, about: &str, schema: Value, example: Value) -> Self {
        let mut reply = json!({"description": about, "content": {JSON: {"schema": schema, "example": example}}});
        let header = match status {
            401 => Some("WWW-Authenticate"),
            429 | 503 if self.path != "/readyz" => Some("Retry-After"),
            _ => None,
        };
        if let Some(name) = header {
            reply["headers"][name] = json!({ "$ref": format!("#/components/headers/{name}") });
        }
        self.replies.insert(status.to_string(), reply);
        self
    }

    fn throttled(self) -> Self {
        let words = "Request was throttled. Expected available in 60 seconds.";
        self.fails(429, "Too many attempts.", json!({ "detail": words }))
    }

    fn conditional(self) -> Self {
        self.fails(412, "The product has changed since.", json!({"detail": "Precondition failed."}))
    }

    /// `list_products` of `GET /api/products/`, `get_product` of `GET /api/products/{id}/`, ...
    fn id(&self) -> String {
        let words: Vec<&str> =
            self.path.split(['/', '.']).filter(|word| !["", "api", "{id}", "json"].contains(word)).collect();
        let id = if self.path.contains("{id}") { "one_" } else { "" };
        let words = if words.is_empty() { "root".to_owned() } else { words.join("_") };
        format!("{}_{id}{words}", self.method.as_str().to_ascii_lowercase())
    }

    fn into_value(self) -> Value {
        let references: Vec<Value> =
            self.parameters.iter().map(|name| json!({ "$ref": format!("#/components/parameters/{name}") })).collect();
        let mut value = json!({
            "tags": [self.room],
            "summary": self.about,
            "operationId": self.id(),
            "security": if self.access == Anonymous { json!([]) } else { json!([{"bearer": []}]) },
            "x-access": match self.access { Anonymous => "anyone", User => "user", Staff => "staff" },
        });
        if !self.more.is_empty() {
            value["description"] = self.more.into();
        }
        if !references.is_empty() {
            value["parameters"] = references.into();
        }
        if let Some(body) = self.body {
            value["requestBody"] = body;
        }
        value["responses"] = self.replies.into();
        value
    }
}
