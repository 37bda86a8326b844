//! Finds the route of a request in the route table. 404, 405 and `Allow` follow from the table.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use foldhash::HashMap;
use hyper::Method;

use super::{
    request::{PathParam, Request},
    response::Response,
};
use crate::error::{Error, Result};

/// The future of an endpoint. It owns its data, so it can continue after the client has disconnected.
pub(crate) type ResponseFuture = Pin<Box<dyn Future<Output = Result<Response>> + Send>>;

/// A handler preceded by authentication, called with the state `S`.
pub(crate) type Endpoint<S> = Box<dyn Fn(Arc<S>, Request) -> ResponseFuture + Send + Sync>;

/// How a route treats query parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueryParams {
    /// The handler does not read them.
    Ignored,
    /// After authentication, a request that has any gets a 400.
    Rejected,
    /// The handler reads them, and rejects unknown ones.
    Parsed,
}

/// A row of the route table.
pub(crate) struct Route<S> {
    /// A route for `GET` also serves `HEAD`; every path serves `OPTIONS`.
    pub(crate) method: Method,
    /// May contain `{id}` for a number; matches with and without the trailing slash.
    pub(crate) path: &'static str,
    /// A label for listings and tests; the endpoint enforces access.
    pub(crate) access: &'static str,
    pub(crate) query: QueryParams,
    /// From the end of the request head to the start of the response.
    pub(crate) timeout: Duration,
    pub(crate) endpoint: Endpoint<S>,
}

/// A route without its handler, for listings, the API description and tests.
#[derive(Debug, Clone)]
pub struct RouteSummary {
    pub method: Method,
    pub path: &'static str,
    /// `anyone`, `user` or `staff`.
    pub access: &'static str,
    pub query: QueryParams,
}

impl<S> Route<S> {
    pub(crate) fn into_summary(self) -> RouteSummary {
        let Self { method, path, access, query, .. } = self;
        RouteSummary { method, path, access, query }
    }
}

/// The routes of one path.
struct Resource {
    path: &'static str,
    /// Indices in the route table.
    routes: Vec<usize>,
    allow: Arc<str>,
}

/// The route table with its indices.
pub(crate) struct Router<S> {
    routes: Vec<Route<S>>,
    literal: HashMap<&'static str, Resource>,
    parameterized: Vec<Resource>,
}

#[derive(Debug)]
pub(crate) enum RouteMatch {
    /// The index of a route, and the number in the path.
    Route(usize, PathParam),
    /// An `OPTIONS` request for a path with these methods.
    Options(Arc<str>),
}

const ID: &str = "{id}";

impl<S> Router<S> {
    pub(crate) fn new(routes: Vec<Route<S>>) -> Self {
        let mut resources: Vec<Resource> = Vec::new();
        for (index, route) in routes.iter().enumerate() {
            match resources.iter_mut().find(|resource| resource.path == route.path) {
                Some(resource) => resource.routes.push(index),
                None => resources.push(Resource { path: route.path, routes: vec![index], allow: "".into() }),
            }
        }
        for resource in &mut resources {
            let mut allow: Vec<&str> = resource.routes.iter().map(|&index| routes[index].method.as_str()).collect();
            if allow.contains(&"GET") {
                allow.push("HEAD");
            }
            allow.push("OPTIONS");
            resource.allow = allow.join(", ").into();
        }
        let (parameterized, literal): (Vec<_>, Vec<_>) =
            resources.into_iter().partition(|resource| resource.path.contains(ID));
        let literal = literal.into_iter().map(|resource| (trim_trailing_slash(resource.path), resource)).collect();
        Self { routes, literal, parameterized }
    }

    pub(crate) fn routes(&self) -> &[Route<S>] {
        &self.routes
    }

    fn find_resource(&self, path: &str) -> Option<(&Resource, PathParam)> {
        let path = trim_trailing_slash(path);
        if let Some(resource) = self.literal.get(path) {
            return Some((resource, PathParam::None));
        }
        self.parameterized
            .iter()
            .find_map(|resource| Some((resource, match_id(path, trim_trailing_slash(resource.path))?)))
    }

    /// Returns the match for a method and a path, or the error for a 404 or 405.
    pub(crate) fn find(&self, method: &Method, path: &str) -> Result<RouteMatch> {
        let found = self.find_resource(path);
        let found = if found.is_none() && path.contains('%') { self.find_resource(&decode_path(path)) } else { found };
        let (resource, id) = found.ok_or(Error::RouteNotFound)?;
        let route_method = if method == Method::HEAD { &Method::GET } else { method };
        match resource.routes.iter().find(|&&index| self.routes[index].method == route_method) {
            Some(&index) => Ok(RouteMatch::Route(index, id)),
            None if method == Method::OPTIONS => Ok(RouteMatch::Options(Arc::clone(&resource.allow))),
            None => Err(Error::MethodNotAllowed { method: method.to_string(), allow: Arc::clone(&resource.allow) }),
        }
    }
}

/// Decodes the unreserved characters of a path: `%70` means the same as `p` (RFC 3986, 6.2.2.2). No route has others.
fn decode_path(path: &str) -> String {
    let (mut decoded, mut rest) = (String::with_capacity(path.len()), path);
    while let Some((before, escape)) = rest.split_once('%') {
        decoded.push_str(before);
        let byte = escape.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        if let Some(byte) = byte.filter(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(byte)) {
            decoded.push(char::from(byte));
            rest = &escape[2..];
        } else {
            decoded.push('%');
            rest = escape;
        }
    }
    decoded + rest
}

fn trim_trailing_slash(path: &str) -> &str {
    path.strip_suffix('/').unwrap_or(path)
}

/// Returns the number that `path` has at the `{id}` of `pattern`, if the two match.
fn match_id(path: &str, pattern: &str) -> Option<PathParam> {
    let (before, after) = pattern.split_once(ID)?;
    let number = path.strip_prefix(before)?.strip_suffix(after)?;
    // other programs can store rows with negative ids
    let digits = number.strip_prefix('-').unwrap_or(number);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(number.parse().map_or(PathParam::OutOfRange, PathParam::Id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unreserved_characters_of_a_path_are_decoded() {
        for (path, decoded) in [
            ("/api/%70roducts/%31%37/", "/api/products/17/"),
            ("/%61%2D%5f%7E", "/a-_~"),
            ("/a%2Fb%25%20%00%C3%A9", "/a%2Fb%25%20%00%C3%A9"),
            ("/%%37%7", "/%7%7"),
            ("/%+1%é%", "/%+1%é%"),
        ] {
            assert_eq!(decode_path(path), decoded);
        }
    }

    #[test]
    fn path_id_accepts_only_ascii_digits() {
        let pattern = "/api/products/{id}";
        assert_eq!(match_id("/api/products/17", pattern), Some(PathParam::Id(17)));
        assert_eq!(match_id("/api/products/017", pattern), Some(PathParam::Id(17)), "zeros do not change a number");
        assert_eq!(match_id("/api/products/9223372036854775807", pattern), Some(PathParam::Id(i64::MAX)));
        for digits in ["9223372036854775808", &"9".repeat(5000)] {
            assert_eq!(match_id(&format!("/api/products/{digits}"), pattern), Some(PathParam::OutOfRange));
        }
        assert_eq!(match_id("/api/products/-1", pattern), Some(PathParam::Id(-1)));
        for path in [
            "/api/products/",
            "/api/products/-",
            "/api/products/--1",
            "/api/products/+1",
            "/api/products/1x",
            "/api/products/1/2",
            "/api/products/١",
        ] {
            assert_eq!(match_id(path, pattern), None, "{path}");
        }
    }
}
