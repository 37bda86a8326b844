//! `GET /healthz`, `GET /readyz`, and the probe of `testshop healthcheck`.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use hyper::{
    StatusCode,
    header::{self, HeaderValue},
};
use serde_json::json;

use crate::{
    app::App,
    auth::Anonymous,
    error::Result,
    http::{Request, Response, response},
    redis::CONNECT_TIMEOUT,
    versions::VersionRead,
};

/// Responds while the process is alive, without access to anything else. The status says whether it is shutting down,
/// so that a load balancer sends no more requests.
pub(crate) async fn healthz(app: &App, _: Request, _: Anonymous) -> Result<Response> {
    let status = if app.is_stopping() { "stopping" } else { "ok" };
    Ok(response::json(StatusCode::OK, &json!({ "status": status })))
}

/// Returns 200 when the database is reachable, its schema works with this program, and the server is not shutting down.
/// The server is ready without Redis.
pub(crate) async fn readyz(app: &App, _: Request, _: Anonymous) -> Result<Response> {
    let database = matches!(app.authenticator.version_reader.current().await, Ok(VersionRead::Verified(_)));
    let cache = match &app.redis {
        None => "off",
        Some(redis) if redis.ping(CONNECT_TIMEOUT).await => "ok",
        Some(_) => "down",
    };
    let is_schema_usable = !database || app.schema_monitor.is_usable(&app.database).await;
    let ready = database && is_schema_usable && !app.is_stopping();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut body = json!({ "database": if database { "ok" } else { "down" }, "cache": cache });
    if !is_schema_usable {
        body["schema"] = "incompatible".into();
    }
    if app.is_stopping() {
        body["stopping"] = true.into();
    }
    let mut response = response::json(status, &body);
    if !ready {
        response.headers_mut().insert(header::RETRY_AFTER, const { HeaderValue::from_static("1") });
    }
    Ok(response)
}

const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// Requests `/healthz` from the server that listens on `address`. Fails unless the status is 200.
pub(crate) fn probe(address: SocketAddr) -> io::Result<()> {
    let mut address = address;
    if address.ip().is_unspecified() {
        // a server on the unspecified address also listens on loopback
        address.set_ip(if address.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
    }
    let mut socket = TcpStream::connect_timeout(&address, PROBE_TIMEOUT)?;
    socket.set_read_timeout(Some(PROBE_TIMEOUT))?;
    socket.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut status_line = [0; 12];
    socket.read_exact(&mut status_line)?;
    if &status_line == b"HTTP/1.1 200" { Ok(()) } else { Err(io::Error::other("the status is not 200")) }
}
