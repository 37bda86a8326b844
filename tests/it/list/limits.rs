//! The shares of one user and of one network of the server.

use std::{net::IpAddr, sync::Arc};

use futures_util::future::join4;
use testshop::limits::{Client, FairSemaphore, Permit};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
};

use crate::harness::{TestApp, TestAppBuilder, TestClient};

#[tokio::test]
async fn list_fills_are_limited_per_user() {
    let app = TestApp::spawn().await;
    app.seed_products(3).await;
    let (ann, bob) = (app.create_user("ann").await, app.create_user("bob").await);
    let id = ann.user_id().await;
    let fills = &app.server.app.fill_permits;
    let permits: Vec<_> = std::iter::from_fn(|| fills.try_acquire(Client::new(id, None))).collect();
    assert!(
        !permits.is_empty() && fills.available_permits() > 0,
        "{} taken, {} free",
        permits.len(),
        fills.available_permits()
    );
    let path = "/api/products/?search=product";
    assert_eq!(ann.get(path).await.status, 503);
    assert_eq!(bob.get(path).await.status, 200);
    assert_eq!(ann.get("/api/products/").await.status, 200, "the full list needs no permit");
    assert_eq!(ann.get(path).await.status, 200, "a cached list needs no permit");
    drop(permits);
    assert_eq!(ann.get("/api/products/?search=number").await.status, 200);
}

const OFFICE: &str = "198.51.100.1";
const ELSEWHERE: &str = "198.51.100.2";

/// Takes the permits that 30 accounts of one network can hold.
fn take_as_30_accounts(permits: &Arc<FairSemaphore>) -> Vec<Permit> {
    let total = permits.available_permits();
    let network: IpAddr = OFFICE.parse().unwrap();
    // ids that no account of the test has
    let accounts = (1000..1030).flat_map(|id| std::iter::repeat_n(Client::new(id, Some(network)), total));
    let held: Vec<_> = accounts.filter_map(|client| permits.try_acquire(client)).collect();
    assert_eq!(held.len(), total / 2, "half of {total}");
    held
}

#[tokio::test]
async fn one_network_with_30_accounts_leaves_half_to_others() {
    let app = TestAppBuilder::default()
        .with("trusted-proxies", "127.0.0.1")
        // the list of all products is streamed
        .with("cache-bytes", 0)
        .with("cache-entry-bytes", 500)
        .with("stream-concurrency", 4)
        .spawn()
        .await;
    app.seed_products(20).await;
    let bob = app.create_user("bob").await;
    let (office, elsewhere) =
        (bob.with_header("x-forwarded-for", OFFICE), bob.with_header("x-forwarded-for", ELSEWHERE));
    let (fill, stream, download) =
        ("/api/products/?price_max=1.99", "/api/products/", "/api/products/export/?format=csv");
    assert_eq!(elsewhere.get(download).await.status, 200, "the file is stored");

    let state = &app.server.app;
    let held = [&state.fill_permits, &state.stream_permits, &state.download_permits, &state.export_permits]
        .map(take_as_30_accounts);
    let (fills, streams, downloads, build) =
        join4(office.get(fill), office.get(stream), office.get(download), office.get("/api/products/export/")).await;
    assert_eq!([fills, streams, downloads, build].map(|response| response.status.as_u16()), [503; 4]);
    for path in [fill, stream, download, "/api/products/export/"] {
        assert_eq!(elsewhere.get(path).await.status, 200, "{path}: another network");
        assert_eq!(bob.get(path).await.status, 200, "{path}: the proxy's own address has no share");
    }
    drop(held);
    assert_eq!(office.get(stream).await.status, 200);
}

#[tokio::test]
async fn pages_and_cached_lists_have_a_maximum_size() {
    let app = TestAppBuilder::default().with("cache-bytes", 20 << 20).with("cache-entry-bytes", 32 << 20).spawn().await;
    app.seed_products(60).await;
    app.execute("update products set description = repeat('x', 200000)", &[]).await;
    let user = app.create_user("ann").await;
    let page = user.get("/api/products/?page_size=20").await;
    assert_eq!((page.status.as_u16(), page.body.len() > 4_000_000), (200, true));
    let page = user.get("/api/products/?page_size=60").await;
    assert_eq!(page.status, 400);
    assert!(page.text().starts_with("{\"page_size\":[\"The page is larger than 10485760 bytes."), "{}", page.text());
    for (path, cache_status) in [
        ("/api/products/?fields=id,description", "TestShop; fwd=miss; detail=streamed"),
        ("/api/products/", "TestShop; fwd=miss; stored"),
        ("/api/products/", "TestShop; hit; detail=memory"),
    ] {
        let list = user.get(path).await;
        assert!(list.status == 200 && list.body.len() > 12_000_000, "{path}: {}", list.body.len());
        assert_eq!(list.header("cache-status"), cache_status, "{path}: above half of the cache");
    }
}

/// Requests the full list and reads only its beginning. Reads the rest after the end of the list has changed and `other`
/// has read the new one. Returns the number of bytes of the body that arrived, and the `Content-Length`.
async fn read_slowly(app: &TestApp, slow: &TestClient, other: &TestClient) -> (usize, usize) {
    read_slowly_from([127, 0, 0, 1], app, slow, other).await
}

/// Like [`read_slowly`], from this address.
async fn read_slowly_from(
    address: impl Into<IpAddr>,
    app: &TestApp,
    slow: &TestClient,
    other: &TestClient,
) -> (usize, usize) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((address.into(), 0).into()).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut socket = socket.connect(slow.address).await.unwrap();
    let request = format!(
        "GET /api/products/ HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {}\r\n\r\n",
        slow.token()
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut beginning = vec![0; 4096];
    let count = socket.read(&mut beginning).await.unwrap();
    app.execute("update products set price = price + 1 where id = 100", &[]).await;
    assert_eq!(other.get("/api/products/").await.status, 200);
    let mut rest = Vec::new();
    // an aborted response may end with a reset
    let _ = socket.read_to_end(&mut rest).await;
    let head = std::str::from_utf8(&beginning[..count]).unwrap();
    let (head, _) = head.split_once("\r\n\r\n").expect("a complete head");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
    (count - head.len() - 4 + rest.len(), length)
}

#[tokio::test(flavor = "multi_thread")]
async fn response_memory_is_limited_per_user_and_network() {
    // a fill may take seconds on a busy machine
    let app = TestAppBuilder::default().with("statement-timeout", "60s").with("request-timeout", "60s").spawn().await;
    app.seed_products(100).await;
    // the list, of 2 MB, is larger than the socket buffers
    app.execute("update products set description = repeat('x', 20000)", &[]).await;
    let (ann, bob) = (app.create_user("ann").await, app.create_user("bob").await);
    let id = ann.user_id().await;
    let (received, length) = read_slowly(&app, &ann, &bob).await;
    assert_eq!(received, length, "within the limit, a response continues after its entry was evicted");

    let large_body = vec![b' '; 64 << 20].into();
    let reservation = app.server.app.response_budget.reserve(Client::new(id, None), &large_body).unwrap();
    let (received, length) = read_slowly(&app, &ann, &bob).await;
    assert!(received < length, "{received}: above the limit, it ends when its entry is evicted");
    let (first, second) = (ann.get("/api/products/").await, bob.get("/api/products/").await);
    assert_eq!((first.status.as_u16(), first.body == second.body), (200, true), "a fast reader gets the complete list");
    let (received, length) = read_slowly(&app, &bob, &ann).await;
    assert_eq!(received, length, "other users are not affected");

    drop(reservation);
    let (received, length) = read_slowly(&app, &ann, &bob).await;
    assert_eq!(received, length);

    let of_network = Client::new(0, Some([127, 0, 0, 1].into()));
    let _reservation = app.server.app.response_budget.reserve(of_network, &large_body).unwrap();
    let (received, length) = read_slowly(&app, &ann, &bob).await;
    assert!(received < length, "{received}: another account of the same network");
    let (received, length) = read_slowly_from([127, 0, 0, 2], &app, &ann, &bob).await;
    assert_eq!(received, length, "another network is not affected");
}
