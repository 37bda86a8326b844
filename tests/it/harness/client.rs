//! Who calls: plain HTTP/1.1 over a socket, one connection a call unless a test wants otherwise.

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    HeaderMap, Method, Request, StatusCode,
    client::conn::http1::{self, SendRequest},
    header,
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// A test must not hang, whatever the server does.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
pub struct Caller {
    pub address: SocketAddr,
    headers: Vec<(String, String)>,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {} {}", self.status, self.text()))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Status and body in one, for comparing.
    pub fn told(&self) -> (u16, Value) {
        (self.status.as_u16(), self.json())
    }
}

impl Caller {
    pub fn new(address: SocketAddr) -> Self {
        Self { address, headers: Vec::new() }
    }

    /// The same caller with one more header.
    pub fn with(&self, name: &str, value: &str) -> Self {
        let mut caller = self.clone();
        caller.headers.push((name.to_owned(), value.to_owned()));
        caller
    }

    pub fn bearing(&self, token: &str) -> Self {
        self.with("authorization", &format!("Bearer {token}"))
    }

    /// The same caller at another instance.
    pub fn at(&self, address: SocketAddr) -> Self {
        Self { address, ..self.clone() }
    }

    /// The number of their account.
    pub async fn id(&self) -> i64 {
        self.get("/api/me/").await.json()["id"].as_i64().unwrap()
    }

    pub fn token(&self) -> &str {
        let value = self.headers.iter().rev().find(|(name, _)| name == "authorization");
        value.unwrap().1.strip_prefix("Bearer ").unwrap()
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(Method::POST, path, Some(body)).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.send(Method::PUT, path, Some(body)).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Answer {
        self.send(Method::PATCH, path, Some(body)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, None).await
    }

    pub async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let content_type = body.as_ref().map(|_| "application/json");
        let body = body.map_or_else(Vec::new, |body| serde_json::to_vec(&body).unwrap());
        self.send_bytes(method, path, content_type, body).await
    }

    pub async fn send_bytes(&self, method: Method, path: &str, content_type: Option<&str>, body: Vec<u8>) -> Answer {
        self.try_send(method, path, content_type, body).await.expect("an answer")
    }

    /// `None` when the connection is refused or breaks off.
    pub async fn try_send(
        &self,
        method: Method,
        path: &str,
        content_type: Option<&str>,
        body: Vec<u8>,
    ) -> Option<Answer> {
        let exchange = async {
            let mut sender = open(self.address).await?;
            exchange(&mut sender, self.request(method, path, content_type, body)).await
        };
        tokio::time::timeout(PATIENCE, exchange).await.expect("an answer in time")
    }

    fn request(&self, method: Method, path: &str, content_type: Option<&str>, body: Vec<u8>) -> Request<Full<Bytes>> {
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, "shop.test");
        if let Some(content_type) = content_type {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        request.body(Full::new(Bytes::from(body))).unwrap()
    }

    /// Sends bytes as they are and gives what comes back until the server closes.
    pub async fn raw(&self, bytes: &[u8]) -> String {
        self.exchange_raw(bytes, false).await
    }

    /// The same, and tells the server that nothing more will come.
    pub async fn raw_and_no_more(&self, bytes: &[u8]) -> String {
        self.exchange_raw(bytes, true).await
    }

    async fn exchange_raw(&self, bytes: &[u8], no_more: bool) -> String {
        let exchange = async {
            let mut socket = TcpStream::connect(self.address).await.unwrap();
            // a server that has heard enough closes before all is sent
            let _ = socket.write_all(bytes).await;
            if no_more {
                let _ = socket.shutdown().await;
            }
            let mut answer = Vec::new();
            let _ = socket.read_to_end(&mut answer).await;
            String::from_utf8_lossy(&answer).into_owned()
        };
        tokio::time::timeout(PATIENCE, exchange).await.expect("an answer in time")
    }
}

async fn open(address: SocketAddr) -> Option<SendRequest<Full<Bytes>>> {
    let socket = TcpStream::connect(address).await.ok()?;
    socket.set_nodelay(true).ok()?;
    let (sender, connection) = http1::handshake(TokioIo::new(socket)).await.ok()?;
    tokio::spawn(connection);
    Some(sender)
}

async fn exchange(sender: &mut SendRequest<Full<Bytes>>, request: Request<Full<Bytes>>) -> Option<Answer> {
    sender.ready().await.ok()?;
    let reply = sender.send_request(request).await.ok()?;
    let (head, body) = reply.into_parts();
    let body = body.collect().await.ok()?.to_bytes();
    Some(Answer { status: head.status, headers: head.headers, body })
}

/// Connections that are kept from call to call, one to each server that was called.
#[derive(Default)]
pub struct Kept(HashMap<SocketAddr, SendRequest<Full<Bytes>>>);

impl Kept {
    /// `None` when the connection is refused or breaks off, also one that the server closed since the last call.
    pub async fn send(&mut self, caller: &Caller, method: Method, path: &str, body: Option<Value>) -> Option<Answer> {
        let content_type = body.as_ref().map(|_| "application/json");
        let body = body.map_or_else(Vec::new, |body| serde_json::to_vec(&body).unwrap());
        let request = caller.request(method, path, content_type, body);
        let calling = async {
            let mut sender = match self.0.remove(&caller.address) {
                Some(sender) if !sender.is_closed() => sender,
                _ => open(caller.address).await?,
            };
            let answer = exchange(&mut sender, request).await?;
            self.0.insert(caller.address, sender);
            Some(answer)
        };
        tokio::time::timeout(PATIENCE, calling).await.expect("an answer in time")
    }
}
