//! HTTP/1.1 clients: [`TestClient`] opens a connection per request, [`KeepAliveClient`] keeps its connections.

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    HeaderMap, Method, Request, StatusCode,
    body::Incoming,
    client::conn::http1::{self, SendRequest},
    header,
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Time for a request with its response, so that a test fails instead of hanging.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// An address and the headers of each request.
#[derive(Clone, Debug)]
pub struct TestClient {
    pub address: SocketAddr,
    headers: Vec<(String, String)>,
}

#[derive(Debug)]
pub struct TestResponse {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl TestResponse {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("the body is not JSON: {} {}", self.status, self.text()))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn status_and_json(&self) -> (u16, Value) {
        (self.status.as_u16(), self.json())
    }
}

impl TestClient {
    pub fn new(address: SocketAddr) -> Self {
        Self { address, headers: Vec::new() }
    }

    /// Returns a copy with one more header.
    pub fn with_header(&self, name: &str, value: &str) -> Self {
        let mut client = self.clone();
        client.headers.push((name.to_owned(), value.to_owned()));
        client
    }

    pub fn with_token(&self, token: &str) -> Self {
        self.with_header("authorization", &format!("Bearer {token}"))
    }

    /// Returns a copy with this token in place of the present one.
    pub fn with_token_only(&self, token: &str) -> Self {
        Self::new(self.address).with_token(token)
    }

    /// Returns a copy that sends to another instance.
    pub fn on_instance(&self, address: SocketAddr) -> Self {
        Self { address, ..self.clone() }
    }

    /// Requests the id of the client's account.
    pub async fn user_id(&self) -> i64 {
        self.get("/api/me/").await.json()["id"].as_i64().unwrap()
    }

    /// The bearer token that was set last.
    pub fn token(&self) -> &str {
        let value = self.headers.iter().rev().find(|(name, _)| name == "authorization");
        value.unwrap().1.strip_prefix("Bearer ").unwrap()
    }

    pub async fn get(&self, path: &str) -> TestResponse {
        self.send(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> TestResponse {
        self.send(Method::POST, path, Some(body)).await
    }

    pub async fn put(&self, path: &str, body: Value) -> TestResponse {
        self.send(Method::PUT, path, Some(body)).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> TestResponse {
        self.send(Method::PATCH, path, Some(body)).await
    }

    pub async fn delete(&self, path: &str) -> TestResponse {
        self.send(Method::DELETE, path, None).await
    }

    pub async fn send(&self, method: Method, path: &str, body: Option<Value>) -> TestResponse {
        let content_type = body.as_ref().map(|_| "application/json");
        let body = body.map_or_else(Vec::new, |body| serde_json::to_vec(&body).unwrap());
        self.send_bytes(method, path, content_type, body).await
    }

    pub async fn send_bytes(
        &self,
        method: Method,
        path: &str,
        content_type: Option<&str>,
        body: Vec<u8>,
    ) -> TestResponse {
        let response = self.try_send(method.clone(), path, content_type, body).await;
        response.unwrap_or_else(|| panic!("{method} {path} got no response"))
    }

    /// Returns `None` when the connection is refused or closed before the response is complete.
    pub async fn try_send(
        &self,
        method: Method,
        path: &str,
        content_type: Option<&str>,
        body: Vec<u8>,
    ) -> Option<TestResponse> {
        let exchange = async {
            let mut sender = connect(self.address).await?;
            exchange(&mut sender, self.request(method, path, content_type, body)).await
        };
        tokio::time::timeout(REQUEST_TIMEOUT, exchange).await.expect("a response in time")
    }

    /// Sends a GET request, and returns the response before its body has arrived.
    pub async fn open(&self, path: &str) -> hyper::Response<Incoming> {
        let exchange = async {
            let mut sender = connect(self.address).await?;
            sender.send_request(self.request(Method::GET, path, None, Vec::new())).await.ok()
        };
        tokio::time::timeout(REQUEST_TIMEOUT, exchange).await.expect("a response in time").expect("a response")
    }

    fn request(&self, method: Method, path: &str, content_type: Option<&str>, body: Vec<u8>) -> Request<Full<Bytes>> {
        let host = self.headers.iter().find(|(name, _)| name == "host").map_or("shop.test", |(_, value)| value);
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, host);
        if let Some(content_type) = content_type {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        for (name, value) in self.headers.iter().filter(|(name, _)| name != "host") {
            request = request.header(name, value);
        }
        request.body(Full::new(Bytes::from(body))).unwrap()
    }

    /// Sends the bytes and returns all that the server sends until it closes the connection.
    pub async fn raw(&self, bytes: &[u8]) -> String {
        self.exchange_raw(bytes, false).await
    }

    /// Like [`Self::raw`], and shuts down the sending side after the bytes.
    pub async fn raw_half_close(&self, bytes: &[u8]) -> String {
        self.exchange_raw(bytes, true).await
    }

    async fn exchange_raw(&self, bytes: &[u8], half_close: bool) -> String {
        let exchange = async {
            let mut socket = TcpStream::connect(self.address).await.unwrap();
            // the server may respond and close before it has read everything
            let _ = socket.write_all(bytes).await;
            if half_close {
                let _ = socket.shutdown().await;
            }
            let mut response = Vec::new();
            let _ = socket.read_to_end(&mut response).await;
            String::from_utf8_lossy(&response).into_owned()
        };
        tokio::time::timeout(REQUEST_TIMEOUT, exchange).await.expect("a response in time")
    }
}

async fn connect(address: SocketAddr) -> Option<SendRequest<Full<Bytes>>> {
    let socket = TcpStream::connect(address).await.ok()?;
    socket.set_nodelay(true).ok()?;
    let (sender, connection) = http1::handshake(TokioIo::new(socket)).await.ok()?;
    tokio::spawn(connection);
    Some(sender)
}

async fn exchange(sender: &mut SendRequest<Full<Bytes>>, request: Request<Full<Bytes>>) -> Option<TestResponse> {
    sender.ready().await.ok()?;
    let (head, body) = sender.send_request(request).await.ok()?.into_parts();
    let body = body.collect().await.ok()?.to_bytes();
    Some(TestResponse { status: head.status, headers: head.headers, body })
}

/// Sends each request on the connection of the last one, if the server has not closed it. Has one connection per
/// server.
#[derive(Default)]
pub struct KeepAliveClient(HashMap<SocketAddr, SendRequest<Full<Bytes>>>);

impl KeepAliveClient {
    /// Returns `None` when the connection is refused or closed before the response is complete. Does not retry on a new
    /// connection when the server closes the present one at the same moment.
    pub async fn send(
        &mut self,
        client: &TestClient,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Option<TestResponse> {
        let content_type = body.as_ref().map(|_| "application/json");
        let body = body.map_or_else(Vec::new, |body| serde_json::to_vec(&body).unwrap());
        let request = client.request(method, path, content_type, body);
        let exchange = async {
            let mut sender = match self.0.remove(&client.address) {
                Some(sender) if !sender.is_closed() => sender,
                _ => connect(client.address).await?,
            };
            let response = exchange(&mut sender, request).await?;
            self.0.insert(client.address, sender);
            Some(response)
        };
        tokio::time::timeout(REQUEST_TIMEOUT, exchange).await.expect("a response in time")
    }
}
