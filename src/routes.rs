//! The route table: method, path, caller, query parameters, timeout and handler, one line each.
//!
//! The caller is a type, and the handler's third parameter: a route for `Staff` does not compile with a handler that
//! takes a `User`, and only authentication constructs a `Staff`.

use std::{future::Future, sync::Arc, time::Duration};

use hyper::Method;
use serde_json::{Value, json};

use crate::{
    accounts, admin_page,
    app::App,
    auth::{Anonymous, Principal, Staff, User, UserAllowStale},
    docs,
    error::{Error, Result},
    http::{
        Request, Response,
        response::{IfMatch, if_none_match_is_any},
        router::{
            QueryParams::{self, Ignored, Parsed, Rejected},
            Route, RouteSummary,
        },
        static_asset::StaticAsset,
    },
    ops::health,
    products,
    taxonomy::{self, Category, Tag},
};

const GET: Method = Method::GET;
const POST: Method = Method::POST;
const PUT: Method = Method::PUT;
const PATCH: Method = Method::PATCH;
const DELETE: Method = Method::DELETE;

/// Time limits of a request, from the end of its head to the start of the response.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeouts {
    /// For most routes.
    pub(crate) request: Duration,
    /// For routes that build or read a file.
    pub(crate) transfer: Duration,
}

/// The routes of `LISTEN_ADDR`, without those of the admin page.
#[rustfmt::skip]
pub(crate) fn table(timeouts: Timeouts) -> Vec<Route<App>> {
    let Timeouts { request, transfer } = timeouts;
    let waiting = request + products::MAX_WAIT;
    vec![
        tarpitted::<Anonymous, _>(POST, "/api/register/",      Ignored,  request, accounts::register),
        tarpitted::<Anonymous, _>(POST, "/api/login/",         Ignored,  request, accounts::login),
        tarpitted::<Anonymous, _>(POST, "/api/token/refresh/", Ignored,  request, accounts::refresh),
        route::<User, _>         (POST, "/api/logout/",        Ignored,  request, accounts::logout),
        route::<User, _>         (POST, "/api/logout/all/",    Ignored,  request, accounts::logout_all),
        tarpitted::<User, _>     (POST, "/api/password/",      Ignored,  request, accounts::change_password),
        route::<User, _>         (GET,  "/api/me/",            Rejected, request, accounts::me),

        route::<UserAllowStale, _>(GET,    "/api/products/",        Parsed,   request,  products::list),
        route::<Staff, _>         (POST,   "/api/products/",        Rejected, request,  products::create),
        route::<User, _>          (GET,    "/api/products/changes/", Parsed,   waiting,  products::changes),
        route::<User, _>          (GET,    "/api/products/events/",  Parsed,   request,  products::events),
        route::<UserAllowStale, _>(GET,    "/api/products/export/", Parsed,   transfer, products::export),
        route::<Staff, _>         (POST,   "/api/products/import/", Parsed,   transfer, products::import),
        route::<User, _>          (GET,    "/api/products/{id}/",   Rejected, request,  products::get),
        route::<Staff, _>         (PUT,    "/api/products/{id}/",   Rejected, request,  products::update),
        route::<Staff, _>         (PATCH,  "/api/products/{id}/",   Rejected, request,  products::partial_update),
        route::<Staff, _>         (DELETE, "/api/products/{id}/",   Rejected, request,  products::delete),

        route::<UserAllowStale, _>(GET,    "/api/categories/",      Rejected, request, taxonomy::list::<Category>),
        route::<Staff, _>         (POST,   "/api/categories/",      Rejected, request, taxonomy::create::<Category>),
        route::<User, _>          (GET,    "/api/categories/{id}/", Rejected, request, taxonomy::get::<Category>),
        route::<Staff, _>         (PUT,    "/api/categories/{id}/", Rejected, request, taxonomy::update::<Category>),
        route::<Staff, _>         (PATCH,  "/api/categories/{id}/", Rejected, request, taxonomy::partial_update::<Category>),
        route::<Staff, _>         (DELETE, "/api/categories/{id}/", Rejected, request, taxonomy::delete_category),

        route::<UserAllowStale, _>(GET,    "/api/tags/",      Rejected, request, taxonomy::list::<Tag>),
        route::<Staff, _>         (POST,   "/api/tags/",      Rejected, request, taxonomy::create::<Tag>),
        route::<User, _>          (GET,    "/api/tags/{id}/", Rejected, request, taxonomy::get::<Tag>),
        route::<Staff, _>         (PUT,    "/api/tags/{id}/", Rejected, request, taxonomy::update::<Tag>),
        route::<Staff, _>         (PATCH,  "/api/tags/{id}/", Rejected, request, taxonomy::partial_update::<Tag>),
        route::<Staff, _>         (DELETE, "/api/tags/{id}/", Rejected, request, taxonomy::delete_tag),

        route::<Anonymous, _>(GET, "/healthz", Ignored, request, health::healthz),
        route::<Anonymous, _>(GET, "/readyz",  Ignored, request, health::readyz),

        route::<Anonymous, _>(GET, "/",                    Ignored, request, docs::root),
        route::<Anonymous, _>(GET, "/openapi.json",        Ignored, request, openapi),
        route::<Anonymous, _>(GET, "/docs",                Ignored, request, docs::page),
        route::<Anonymous, _>(GET, "/docs/page.js",        Ignored, request, docs::page_script),
        route::<Anonymous, _>(GET, "/docs/swagger-ui.css", Ignored, request, docs::ui_style),
        route::<Anonymous, _>(GET, "/docs/swagger-ui.js",  Ignored, request, docs::ui_script),
    ]
}

/// The files of the admin page.
pub(crate) fn admin_page(timeouts: Timeouts) -> impl Iterator<Item = Route<App>> {
    admin_page::FILES.iter().map(move |file| Route {
        method: GET,
        path: file.path,
        access: Anonymous::ACCESS,
        query: Ignored,
        timeout: timeouts.request,
        endpoint: Box::new(move |app, request| Box::pin(async move { file.serve(&app, &request) }) as _),
    })
}

/// The routes of `ADMIN_ADDR`, except `/metrics`.
pub(crate) fn health(timeouts: Timeouts) -> Vec<Route<App>> {
    let Timeouts { request, .. } = timeouts;
    vec![
        route::<Anonymous, _>(GET, "/healthz", Ignored, request, health::healthz),
        route::<Anonymous, _>(GET, "/readyz", Ignored, request, health::readyz),
    ]
}

/// Returns the routes of `LISTEN_ADDR` in order.
pub fn summary() -> Vec<RouteSummary> {
    let timeouts = Timeouts { request: Duration::ZERO, transfer: Duration::ZERO };
    table(timeouts).into_iter().chain(admin_page(timeouts)).map(Route::into_summary).collect()
}

/// Returns the OpenAPI document of the routes.
pub fn openapi_document() -> Value {
    docs::document(&summary())
}

/// `GET /openapi.json`
async fn openapi(app: &App, request: Request, _: Anonymous) -> Result<Response> {
    let build = || {
        let mut document = openapi_document();
        if let Some(url) = &app.config.http.dispatch.public_url {
            document["servers"] = json!([{"url": url.as_str()}]);
        }
        StaticAsset::text("application/json", document.to_string().as_bytes())
    };
    app.static_assets.get_or_build("/openapi.json", build).serve(&request)
}

/// The targets of `POST` that have a representation.
const COLLECTIONS: [&str; 3] = ["/api/products/", "/api/categories/", "/api/tags/"];
/// The target of `POST` whose handler evaluates `If-Match` itself.
const EVALUATES_IF_MATCH: &str = "/api/products/import/";

/// Rejects a `POST` whose `If-Match` or `If-None-Match` is false (RFC 9110, 13.1). `PUT`, `PATCH` and `DELETE` compare
/// the entity tag of their row in the transaction that writes.
///
/// A `POST` creates a row or acts on an account; no entity tag names that state, so no list of tags matches.
/// `If-Match: *` is true for a target that has a representation, `If-None-Match: *` for one that has none.
fn check_conditions(path: &str, request: &Request) -> Result<()> {
    let has_representation = COLLECTIONS.contains(&path);
    let is_match = IfMatch::from_request(request).is_none_or(|if_match| if_match.is_any() && has_representation);
    let is_none_match = !has_representation || !if_none_match_is_any(request);
    if is_match && is_none_match { Ok(()) } else { Err(Error::PreconditionFailed) }
}

/// A handler: `async fn(&App, Request, P) -> Result<Response>`, for a caller of type `P`.
trait Handler<'a, P>: Send + Sync {
    type Fut: Future<Output = Result<Response>> + Send + 'a;

    fn call(&self, app: &'a App, request: Request, caller: P) -> Self::Fut;
}

impl<'a, P, F, Fut> Handler<'a, P> for F
where
    F: Fn(&'a App, Request, P) -> Fut + Send + Sync,
    Fut: Future<Output = Result<Response>> + Send + 'a,
{
    type Fut = Fut;

    fn call(&self, app: &'a App, request: Request, caller: P) -> Fut {
        self(app, request, caller)
    }
}

fn route<P, H>(method: Method, path: &'static str, query: QueryParams, timeout: Duration, handler: H) -> Route<App>
where
    P: Principal + 'static,
    H: for<'a> Handler<'a, P> + Copy + 'static,
{
    let checks_conditions = method == POST && path != EVALUATES_IF_MATCH;
    let is_unsafe = !method.is_safe();
    // accounts that register or log in change no version
    let writes_versions = is_unsafe && P::ACCESS != Anonymous::ACCESS;
    let model = model_at(path);
    let endpoint = move |app: Arc<App>, request: Request| {
        Box::pin(async move {
            let caller = P::authenticate(&app.authenticator, &request).await?;
            request.reject_id_out_of_range(model)?;
            if query == Rejected {
                request.reject_query_params()?;
            }
            if is_unsafe {
                request.reject_encoded_body()?;
            }
            if checks_conditions {
                check_conditions(path, &request)?;
            }
            if writes_versions {
                app.authenticator.version_reader.surrender_leases().await;
            }
            handler.call(&app, request, caller).await
        }) as _
    };
    Route { method, path, access: P::ACCESS, query, timeout, endpoint: Box::new(endpoint) }
}

/// Returns the model of the rows that `{id}` in a path names.
fn model_at(path: &str) -> &'static str {
    match path.split('/').nth(2) {
        Some("products") => "Product",
        Some("categories") => "Category",
        Some("tags") => "Tag",
        _ => "Row",
    }
}

/// A route whose rejections pass through the tarpit.
fn tarpitted<P, H>(method: Method, path: &'static str, query: QueryParams, timeout: Duration, handler: H) -> Route<App>
where
    P: Principal + 'static,
    H: for<'a> Handler<'a, P> + Copy + 'static,
{
    let route = route(method, path, query, timeout, handler);
    let inner = route.endpoint;
    let endpoint = move |app: Arc<App>, request: Request| {
        let attempt = inner(Arc::clone(&app), request);
        Box::pin(async move { app.tarpit.delay_rejections(attempt).await }) as _
    };
    Route { endpoint: Box::new(endpoint), ..route }
}
