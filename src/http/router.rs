//! From a path and a method to a row of the route table. 404, 405 and `Allow` come from here.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use foldhash::HashMap;
use hyper::Method;

use super::{
    request::{PathId, Request},
    response::Response,
};
use crate::error::{Error, Result};

/// What an endpoint gives back. It owns what it needs, so that it can go on when its client has left.
pub(crate) type ResponseFuture = Pin<Box<dyn Future<Output = Result<Response>> + Send>>;

/// A handler with its admission in front, ready to be called with the state `S`.
pub(crate) type Endpoint<S> = Box<dyn Fn(Arc<S>, Request) -> ResponseFuture + Send + Sync>;

/// What a route does with the parameters of a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueryParams {
    /// The handler does not look at them.
    Ignored,
    /// After authentication a request that has any gets 400.
    Rejected,
    /// The handler reads them, and rejects those that it does not know.
    Parsed,
}

/// One row of the route table.
pub(crate) struct Route<S> {
    /// The method; `HEAD` and `OPTIONS` come by themselves.
    pub(crate) method: Method,
    /// The path, with `{id}` for a number; it works with and without its trailing slash.
    pub(crate) path: &'static str,
    /// Who may call, in a word; for people and tests. The endpoint itself is what refuses.
    pub(crate) access: &'static str,
    /// What happens to the parameters of a query.
    pub(crate) query: QueryParams,
    /// The time a request may take until its reply begins.
    pub(crate) deadline: Duration,
    /// Admission and handler.
    pub(crate) endpoint: Endpoint<S>,
}

/// The rows of one path.
struct Resource {
    path: &'static str,
    rows: Vec<usize>,
    allow: Arc<str>,
}

/// The route table, ready for look-ups.
pub(crate) struct Router<S> {
    routes: Vec<Route<S>>,
    fixed: HashMap<&'static str, Resource>,
    numbered: Vec<Resource>,
}

/// Where a request goes.
#[derive(Debug)]
pub(crate) enum RouteMatch {
    /// To a row of the table.
    Row(usize, Option<PathId>),
    /// Nowhere: `OPTIONS` of a path with these methods.
    Options(Arc<str>),
}

const NUMBER: &str = "{id}";

impl<S> Router<S> {
    /// Takes the table as it is written.
    pub(crate) fn new(routes: Vec<Route<S>>) -> Self {
        let mut resources: Vec<Resource> = Vec::new();
        for (row, route) in routes.iter().enumerate() {
            match resources.iter_mut().find(|resource| resource.path == route.path) {
                Some(resource) => resource.rows.push(row),
                None => resources.push(Resource { path: route.path, rows: vec![row], allow: "".into() }),
            }
        }
        for resource in &mut resources {
            let mut allow: Vec<&str> = resource.rows.iter().map(|&row| routes[row].method.as_str()).collect();
            if allow.contains(&"GET") {
                allow.push("HEAD");
            }
            allow.push("OPTIONS");
            resource.allow = allow.join(", ").into();
        }
        let (numbered, fixed): (Vec<_>, Vec<_>) =
            resources.into_iter().partition(|resource| resource.path.contains(NUMBER));
        let fixed = fixed.into_iter().map(|resource| (bare(resource.path), resource)).collect();
        Self { routes, fixed, numbered }
    }

    /// The table.
    pub(crate) fn routes(&self) -> &[Route<S>] {
        &self.routes
    }

    /// Where a request for this path by this method goes.
    pub(crate) fn find(&self, method: &Method, path: &str) -> Result<RouteMatch> {
        let path = bare(path);
        let (resource, id) = match self.fixed.get(path) {
            Some(resource) => (resource, None),
            None => self
                .numbered
                .iter()
                .find_map(|resource| number_in(path, bare(resource.path)).map(|id| (resource, Some(id))))
                .ok_or(Error::RouteNotFound)?,
        };
        let wanted = if method == Method::HEAD { &Method::GET } else { method };
        match resource.rows.iter().find(|&&row| self.routes[row].method == wanted) {
            Some(&row) => Ok(RouteMatch::Row(row, id)),
            None if method == Method::OPTIONS => Ok(RouteMatch::Options(Arc::clone(&resource.allow))),
            None => Err(Error::MethodNotAllowed { method: method.to_string(), allow: Arc::clone(&resource.allow) }),
        }
    }
}

/// A path without its trailing slash.
fn bare(path: &str) -> &str {
    path.strip_suffix('/').unwrap_or(path)
}

/// The number that `path` has where `pattern` says `{id}`.
fn number_in(path: &str, pattern: &str) -> Option<PathId> {
    let (before, after) = pattern.split_once(NUMBER)?;
    let digits = path.strip_prefix(before)?.strip_suffix(after)?;
    if digits.is_empty() || digits.len() > 40 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse().unwrap_or(PathId::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_digits_and_nothing_else() {
        let pattern = "/api/products/{id}";
        assert_eq!(number_in("/api/products/17", pattern), Some(17));
        assert_eq!(number_in("/api/products/99999999999999999999", pattern), Some(i64::MAX));
        for path in ["/api/products/", "/api/products/-1", "/api/products/1x", "/api/products/1/2", "/api/products/١"]
        {
            assert_eq!(number_in(path, pattern), None, "{path}");
        }
    }
}
