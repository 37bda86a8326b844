//! Builds the object of an operation.

use hyper::Method;
use serde_json::{Map, Value, json};

use crate::{
    http::router::{QueryParams, RouteSummary},
    products::files::format::{CSV_MEDIA_TYPE, OCTET_STREAM_MEDIA_TYPE, XLSX_MEDIA_TYPE},
};

pub(super) const JSON: &str = "application/json";
pub(super) const HTML: &str = "text/html";
pub(super) const EVENT_STREAM: &str = "text/event-stream";

/// One method of one path.
pub(super) struct Operation {
    pub(super) method: Method,
    pub(super) path: &'static str,
    tag: &'static str,
    summary: &'static str,
    description: &'static str,
    parameters: Vec<&'static str>,
    request_body: Option<Value>,
    responses: Map<String, Value>,
}

pub(super) fn schema(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// Returns the content of a file. Generators read and send bytes where the format is `binary`.
fn binary() -> Value {
    json!({"schema": {"type": "string", "format": "binary"}})
}

pub(super) fn token_not_valid_body() -> Value {
    json!({
        "detail": "Given token not valid for any token type",
        "code": "token_not_valid",
        "messages": [{"token_class": "AccessToken", "token_type": "access", "message": "Token is invalid"}],
    })
}

impl Operation {
    /// Creates an operation with the errors that follow from its path.
    pub(super) fn new(method: Method, path: &'static str, tag: &'static str, summary: &'static str) -> Self {
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

    pub(super) fn description(mut self, text: &'static str) -> Self {
        self.description = text;
        self
    }

    pub(super) fn parameters(mut self, names: &[&'static str]) -> Self {
        self.parameters.extend(names);
        self
    }

    pub(super) fn json_body(self, name: &str) -> Self {
        self.body_with_content(json!({ JSON: {"schema": schema(name)} }))
    }

    /// Sets the body of an import. Generators that support one media type use the first one. `multipart/form-data` is
    /// accepted and not described: beside other media types, generators write clients that do not compile.
    pub(super) fn file_body(self) -> Self {
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
    pub(super) fn cached_response(self, description: &str, name: &str) -> Self {
        self.parameters(&["If-None-Match"])
            .response(200, description, name)
            .not_modified()
            .response_headers(&["ETag", "Cache-Status"])
    }

    pub(super) fn creates_named_resource(self) -> Self {
        self.json_body("NameRequest")
            .response(201, "The created item.", "NamedResource")
            .response_headers(&["ETag", "Location"])
    }

    pub(super) fn updates_named_resource(self, request: &str) -> Self {
        self.parameters(&["If-Match"])
            .json_body(request)
            .response(200, "The updated item.", "NamedResource")
            .response_headers(&["ETag"])
            .precondition_failed()
    }

    pub(super) fn response(self, status: u16, description: &str, name: &str) -> Self {
        self.response_with_content(status, description, JSON, json!({ "schema": schema(name) }))
    }

    pub(super) fn response_with_content(
        mut self,
        status: u16,
        description: &str,
        media_type: &str,
        content: Value,
    ) -> Self {
        let response = json!({"description": description, "content": {media_type: content}});
        self.responses.insert(status.to_string(), response);
        self
    }

    /// Adds a media type to an existing response.
    pub(super) fn add_content(mut self, status: u16, media_type: &str, content: Value) -> Self {
        self.responses[&status.to_string()]["content"][media_type] = content;
        self
    }

    /// Adds the response of an export. Generators that support one media type use the first one, and read the file as
    /// text if it is `text/csv`.
    pub(super) fn file_response(self) -> Self {
        self.response_with_content(200, "The file.", OCTET_STREAM_MEDIA_TYPE, binary())
            .add_content(200, XLSX_MEDIA_TYPE, binary())
            .add_content(200, CSV_MEDIA_TYPE, binary())
    }

    pub(super) fn no_content(mut self) -> Self {
        self.responses.insert("204".to_owned(), json!({"description": "Success, without a body."}));
        self
    }

    pub(super) fn not_modified(mut self) -> Self {
        let response = json!({"description": "The representation of the client is current."});
        self.responses.insert("304".to_owned(), response);
        self
    }

    /// Adds headers to all responses that are not errors.
    pub(super) fn response_headers(mut self, names: &[&str]) -> Self {
        for (_, response) in self.responses.iter_mut().filter(|(status, _)| status.as_str() < "304") {
            for name in names {
                response["headers"][name] = json!({ "$ref": format!("#/components/headers/{name}") });
            }
        }
        self
    }

    pub(super) fn error(self, status: u16, description: &str, example: Value) -> Self {
        self.error_with_schema(status, description, schema("ErrorDetail"), example)
    }

    pub(super) fn error_with_schema(mut self, status: u16, description: &str, schema: Value, example: Value) -> Self {
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

    pub(super) fn rate_limited(self) -> Self {
        let detail = "Request was throttled. Expected available in 60 seconds.";
        self.error(429, "The rate limit is exceeded.", json!({ "detail": detail }))
    }

    pub(super) fn precondition_failed(self) -> Self {
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

    pub(super) fn into_value(self, route: &RouteSummary) -> Value {
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
