//! THE TABLE: method, path, who may call, handler. One line a route.
//!
//! Who may call is the type that a handler takes: a row marked `Staff` does not compile with a handler that takes a
//! `User`, and no handler takes a `Staff` that admission has not made.

use std::{future::Future, sync::Arc, time::Duration};

use hyper::Method;

use crate::{
    app::App,
    auth::{Anyone, Caller, Reader, Staff, User},
    categories::{self, Category},
    docs,
    error::Result,
    http::{Reply, Request, router::Route},
    named,
    ops::health,
    products,
    tags::{self, Tag},
    users,
};

/// The time that requests may take until their reply begins.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// Of most.
    pub short: Duration,
    /// Of those that make or take a file.
    pub long: Duration,
}

/// The routes of clients.
#[rustfmt::skip]
pub fn table(deadlines: Deadlines) -> Vec<Route<App>> {
    let Deadlines { short, long } = deadlines;
    vec![
        door::<Anyone, _>(Method::POST,  "/api/register/",        short, users::register),
        door::<Anyone, _>(Method::POST,  "/api/login/",           short, users::login),
        door::<Anyone, _>(Method::POST,  "/api/token/refresh/",   short, users::refresh),
        row::<User, _>  (Method::POST,   "/api/logout/",          short, users::logout),
        row::<User, _>  (Method::POST,   "/api/logout/all/",      short, users::logout_all),
        door::<User, _> (Method::POST,   "/api/password/",        short, users::password),
        row::<User, _>  (Method::GET,    "/api/me/",              short, users::me),

        row::<Reader, _>(Method::GET,    "/api/products/",        short, products::list),
        row::<Staff, _> (Method::POST,   "/api/products/",        short, products::create),
        row::<Reader, _>(Method::GET,    "/api/products/export/", long,  products::export),
        row::<Staff, _> (Method::POST,   "/api/products/import/", long,  products::import),
        row::<User, _>  (Method::GET,    "/api/products/{id}/",   short, products::one),
        row::<Staff, _> (Method::PUT,    "/api/products/{id}/",   short, products::replace),
        row::<Staff, _> (Method::PATCH,  "/api/products/{id}/",   short, products::change),
        row::<Staff, _> (Method::DELETE, "/api/products/{id}/",   short, products::delete),

        row::<User, _>  (Method::GET,    "/api/categories/",      short, named::list::<Category>),
        row::<Staff, _> (Method::POST,   "/api/categories/",      short, named::create::<Category>),
        row::<User, _>  (Method::GET,    "/api/categories/{id}/", short, named::one::<Category>),
        row::<Staff, _> (Method::PUT,    "/api/categories/{id}/", short, named::replace::<Category>),
        row::<Staff, _> (Method::PATCH,  "/api/categories/{id}/", short, named::change::<Category>),
        row::<Staff, _> (Method::DELETE, "/api/categories/{id}/", short, categories::delete),

        row::<User, _>  (Method::GET,    "/api/tags/",            short, named::list::<Tag>),
        row::<Staff, _> (Method::POST,   "/api/tags/",            short, named::create::<Tag>),
        row::<User, _>  (Method::GET,    "/api/tags/{id}/",       short, named::one::<Tag>),
        row::<Staff, _> (Method::PUT,    "/api/tags/{id}/",       short, named::replace::<Tag>),
        row::<Staff, _> (Method::PATCH,  "/api/tags/{id}/",       short, named::change::<Tag>),
        row::<Staff, _> (Method::DELETE, "/api/tags/{id}/",       short, tags::delete),

        row::<Anyone, _>(Method::GET,    "/healthz",              short, health::healthz),
        row::<Anyone, _>(Method::GET,    "/readyz",               short, health::readyz),

        row::<Anyone, _>(Method::GET,    "/",                     short, docs::root),
        row::<Anyone, _>(Method::GET,    "/openapi.json",         short, docs::openapi),
        row::<Anyone, _>(Method::GET,    "/docs",                 short, docs::page),
        row::<Anyone, _>(Method::GET,    "/docs/page.js",         short, docs::page_script),
        row::<Anyone, _>(Method::GET,    "/docs/swagger-ui.css",  short, docs::ui_style),
        row::<Anyone, _>(Method::GET,    "/docs/swagger-ui.js",   short, docs::ui_script),
    ]
}

/// The routes of operators, besides `/metrics`.
pub fn health(deadlines: Deadlines) -> Vec<Route<App>> {
    let Deadlines { short, .. } = deadlines;
    vec![
        row::<Anyone, _>(Method::GET, "/healthz", short, health::healthz),
        row::<Anyone, _>(Method::GET, "/readyz", short, health::readyz),
    ]
}

/// Method, path and access of each row, in the order of the table.
pub fn summary() -> Vec<(Method, &'static str, &'static str)> {
    let deadlines = Deadlines { short: Duration::ZERO, long: Duration::ZERO };
    table(deadlines).into_iter().map(|route| (route.method, route.path, route.access)).collect()
}

/// `async fn(&App, Request, C) -> Result<Reply>`, for a caller of kind `C`.
trait Handler<'a, C>: Send + Sync {
    /// What the function returns.
    type Answering: Future<Output = Result<Reply>> + Send + 'a;

    fn call(&self, app: &'a App, request: Request, caller: C) -> Self::Answering;
}

impl<'a, C, F, A> Handler<'a, C> for F
where
    F: Fn(&'a App, Request, C) -> A + Send + Sync,
    A: Future<Output = Result<Reply>> + Send + 'a,
{
    type Answering = A;

    fn call(&self, app: &'a App, request: Request, caller: C) -> A {
        self(app, request, caller)
    }
}

fn row<C, H>(method: Method, path: &'static str, deadline: Duration, handler: H) -> Route<App>
where
    C: Caller + 'static,
    H: for<'a> Handler<'a, C> + Copy + 'static,
{
    let endpoint = move |app: Arc<App>, request: Request| {
        Box::pin(async move {
            let caller = C::admit(&app.gate, &request).await?;
            handler.call(&app, request, caller).await
        }) as _
    };
    Route { method, path, access: C::ACCESS, deadline, endpoint: Box::new(endpoint) }
}

/// A row at which many may knock at once: its refusals are told slowly.
fn door<C, H>(method: Method, path: &'static str, deadline: Duration, handler: H) -> Route<App>
where
    C: Caller + 'static,
    H: for<'a> Handler<'a, C> + Copy + 'static,
{
    let route = row(method, path, deadline, handler);
    let inner = route.endpoint;
    let endpoint = move |app: Arc<App>, request: Request| {
        let attempt = inner(Arc::clone(&app), request);
        Box::pin(async move { app.refusals.slowly(attempt).await }) as _
    };
    Route { endpoint: Box::new(endpoint), ..route }
}
