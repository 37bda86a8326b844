//! `GET /healthz` and `GET /readyz`, and the question that a container's health check asks.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use hyper::StatusCode;
use serde_json::json;

use crate::{
    app::App,
    auth::Anonymous,
    error::Result,
    http::{Request, Response, response},
    redis::CONNECT_TIMEOUT,
    versions::VersionRead,
};

/// The process lives, and whether it was asked to stop: a balancer then sends nothing more. Touches nothing.
pub(crate) async fn healthz(app: &App, _: Request, _: Anonymous) -> Result<Response> {
    let status = if app.is_stopping() { "stopping" } else { "ok" };
    Ok(response::json(StatusCode::OK, &json!({ "status": status })))
}

/// The database answers, and no stop was asked for. A cache that is away costs speed, not readiness.
pub(crate) async fn readyz(app: &App, _: Request, _: Anonymous) -> Result<Response> {
    let database = matches!(app.gate.freshness.now().await, Ok(VersionRead::Current(_)));
    let cache = match &app.shared {
        None => "off",
        Some(shared) if shared.answers(CONNECT_TIMEOUT).await => "ok",
        Some(_) => "down",
    };
    let ready = database && !app.is_stopping();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut body = json!({ "database": if database { "ok" } else { "down" }, "cache": cache });
    if app.is_stopping() {
        body["stopping"] = true.into();
    }
    Ok(response::json(status, &body))
}

const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// Asks the server at this address whether it lives.
pub(crate) fn probe(address: SocketAddr) -> io::Result<()> {
    let mut address = address;
    if address.ip().is_unspecified() {
        // it listens on all addresses, and so on this one
        address.set_ip(if address.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
    }
    let mut socket = TcpStream::connect_timeout(&address, PROBE_TIMEOUT)?;
    socket.set_read_timeout(Some(PROBE_TIMEOUT))?;
    socket.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut answer = [0; 12];
    socket.read_exact(&mut answer)?;
    if &answer == b"HTTP/1.1 200" { Ok(()) } else { Err(io::Error::other("the server is not well")) }
}
