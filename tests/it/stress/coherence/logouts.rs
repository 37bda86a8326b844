//! Bursts of logouts: once one is acknowledged, every instance refuses the token.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use futures_util::future::join_all;
use hyper::Method;
use serde_json::json;

use super::writers::WriterPool;
use crate::{
    harness::{PASSWORD, TestClient, TestResponse},
    stress::Rng,
};

/// The account whose tokens are revoked.
pub const ACCOUNT: &str = "ann";
const TOKENS_PER_BURST: usize = 6;
const RETRY_PAUSE: Duration = Duration::from_millis(20);
const LIST: &str = "/api/products/";

impl WriterPool {
    /// Logs in, uses each token on each instance, and logs all of them out at once.
    pub(super) async fn logouts(self, seed: u64) {
        let mut rng = Rng(seed);
        let mut ticks = self.ticks();
        while self.next(&mut ticks, &mut rng).await {
            let mut clients = Vec::new();
            for _ in 0..TOKENS_PER_BURST {
                clients.extend(self.log_in(&mut rng).await);
            }
            for client in &clients {
                // from now on the instances cache that the token is valid
                join_all(self.instances.iter().map(|instance| get_list(client.on_instance(*instance)))).await;
            }
            // beside other writes, or in the pause after them
            if !self.next(&mut ticks, &mut rng).await {
                return;
            }
            if rng.below(2) == 0 {
                tokio::time::sleep(self.write_interval / 2).await;
            }
            if rng.below(3) == 0 {
                let Some(client) = clients.first() else { continue };
                self.log_out(client.on_instance(*rng.pick(&self.instances)), "/api/logout/all/").await;
                join_all(clients.iter().map(|client| self.check_refused(client))).await;
            } else {
                let logouts = clients.iter().map(|client| {
                    let first = client.on_instance(*rng.pick(&self.instances));
                    async {
                        self.log_out(first, "/api/logout/").await;
                        self.check_refused(client).await;
                    }
                });
                join_all(logouts.collect::<Vec<_>>()).await;
            }
            self.model.counters.revoked_tokens.fetch_add(clients.len(), Relaxed);
        }
    }

    /// Returns `None` when an instance does not log in.
    async fn log_in(&self, rng: &mut Rng) -> Option<TestClient> {
        let client = TestClient::new(*rng.pick(&self.instances));
        let credentials = serde_json::to_vec(&json!({"username": ACCOUNT, "password": PASSWORD})).unwrap();
        let response = client.try_send(Method::POST, "/api/login/", Some("application/json"), credentials).await;
        let response = response.filter(|response| response.status == 200)?;
        Some(client.with_token(response.json()["token"].as_str().unwrap()))
    }

    /// Repeats a logout until its outcome is known.
    async fn log_out(&self, client: TestClient, path: &str) {
        for attempt in 0.. {
            let response = client.try_send(Method::POST, path, None, Vec::new()).await;
            match response.map(|response| response.status.as_u16()) {
                Some(204) => return,
                // an earlier attempt has revoked it
                Some(401) if attempt > 0 => return,
                Some(503) | None => {}
                Some(status) => self.model.report_violation(format!("{path} got {status}")),
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// Checks that every instance refuses the token.
    async fn check_refused(&self, client: &TestClient) {
        let responses = self.instances.iter().map(|instance| get_list(client.on_instance(*instance)));
        for response in join_all(responses).await.into_iter().flatten() {
            match response.status.as_u16() {
                401 => {
                    self.model.counters.refused.fetch_add(1, Relaxed);
                }
                503 => {}
                // while the database is unreachable, an instance may not know of the logout
                200 if response.header("cache-status").ends_with("detail=stale") => {}
                status => self.model.report_violation(format!(
                    "stale: a request with a revoked token got {status} {}",
                    response.header("cache-status")
                )),
            }
        }
    }
}

async fn get_list(client: TestClient) -> Option<TestResponse> {
    client.try_send(Method::GET, LIST, None, Vec::new()).await
}
