//! A reader of event streams.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::{HeaderMap, body::Incoming};
use serde_json::Value;

use crate::harness::TestClient;

/// Time for an event, so that a test fails instead of hanging.
const EVENT_TIMEOUT: Duration = Duration::from_secs(40);

pub struct EventStream {
    pub headers: HeaderMap,
    body: Incoming,
    text: String,
    /// The token of the latest event, which a client sends as `Last-Event-ID`.
    pub last_id: String,
}

/// An event that names changes, or `expired`.
#[derive(Debug)]
pub struct Event {
    pub name: String,
    pub id: String,
    pub data: Value,
}

impl EventStream {
    /// Opens `/api/products/events/` with this query.
    pub async fn open(client: &TestClient, query: &str) -> Self {
        let (head, body) = client.open(&format!("/api/products/events/{query}")).await.into_parts();
        assert_eq!(head.status, 200);
        Self { headers: head.headers, body, text: String::new(), last_id: String::new() }
    }

    /// Opens the stream and reads its first event, which names the present state.
    pub async fn at_present(client: &TestClient) -> Self {
        let mut stream = Self::open(client, "").await;
        let first = stream.next().await.expect("the first event");
        assert_eq!(first.data, serde_json::json!({"token": first.id, "changed": [], "deleted": []}));
        stream
    }

    /// Returns the next event; `None` at the end of the stream, which must be clean.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            let block = self.next_block().await?;
            let field = |name: &str| {
                let value = block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
                value.unwrap_or_default().to_owned()
            };
            if block.contains("id: ") {
                self.last_id = field("id");
            }
            if block.contains("data: ") {
                let data = serde_json::from_str(&field("data")).unwrap();
                return Some(Event { name: field("event"), id: field("id"), data });
            }
        }
    }

    /// Returns the lines up to the next empty one.
    pub async fn next_block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                return Some(block);
            }
            let frame = tokio::time::timeout(EVENT_TIMEOUT, self.body.frame()).await.expect("an event in time");
            let Some(frame) = frame else {
                assert_eq!(self.text, "", "the stream ends between two events");
                return None;
            };
            let data = frame.expect("the stream ends without an error").into_data().unwrap();
            self.text.push_str(str::from_utf8(&data).unwrap());
        }
    }
}
