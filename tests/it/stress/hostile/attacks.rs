//! Hostile clients: slow, silent or endless requests, malformed input, and clients that never read.

use std::{
    pin::Pin,
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use super::fixture::{AttackFixture, ResourceUsage};
use crate::harness::TestClient;

/// The beginning of a request head.
pub const PARTIAL_HEAD: &str = "GET /api/products/ HTTP/1.1\r\nHost: shop.test\r\n";

/// Client networks (addresses 127.0.0.2 and up) from which the attacks come: one may hold half of the connections only.
pub const ATTACKING_NETWORKS: u8 = 8;

/// The largest response that needs no token: 1.5 MB.
const LARGE_PUBLIC_PATH: &str = "/docs/swagger-ui.js";

/// Other protocols, partial requests, invalid chunks and bytes that are not valid in a request.
pub const MALFORMED_INPUTS: [&[u8]; 8] = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\r\n\r\n\r\n\r\n\r\n",
    b"GET",
    b"POST /api/login/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\n",
    b"POST /api/login/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n7fffffffffffffff\r\n",
    b"GET /api/products/?cursor=\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
    b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
];

pub type Attack<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Raises this process's limit of descriptors to its maximum, and returns it.
pub fn raise_nofile_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    limit.maximum.unwrap_or(u64::MAX)
}

pub fn get_request(user: &TestClient, path: &str) -> Vec<u8> {
    let token = user.token();
    format!("GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n").into_bytes()
}

/// Opens a connection with a small receive buffer from the address of a network, numbered from 0. Sends `bytes` as far
/// as the server reads them. Returns `None` if the server does not accept it.
pub async fn open_connection(client: &TestClient, network: usize, bytes: &[u8]) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.bind(([127, 0, 0, 2 + u8::try_from(network).unwrap()], 0).into()).unwrap();
    let mut socket = timeout(Duration::from_secs(5), socket.connect(client.address)).await.ok()?.ok()?;
    // fails when the server has closed the connection already; the rest may wait for the server to read
    let _ = timeout(Duration::from_millis(100), socket.write_all(bytes)).await;
    Some(socket)
}

/// Opens connections with small receive buffers from [`ATTACKING_NETWORKS`] addresses. Each sends `bytes`, and then
/// neither sends nor reads.
pub async fn open_connections(client: &TestClient, count: usize, bytes: &[u8]) -> Vec<TcpStream> {
    open_connections_from(ATTACKING_NETWORKS, client, count, bytes).await
}

/// Like [`open_connections`], from a number of addresses. Well-behaved clients have another one, 127.0.0.1.
pub async fn open_connections_from(networks: u8, client: &TestClient, count: usize, bytes: &[u8]) -> Vec<TcpStream> {
    let mut connections = Vec::new();
    for number in 0..count {
        connections.push(open_connection(client, number % usize::from(networks), bytes).await.unwrap());
        if number % 200 == 0 {
            // lets the server accept before its listen queue is full
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    connections
}

/// Opens connections and holds them until the server has closed them.
pub async fn hold_connections(fixture: &AttackFixture, before: ResourceUsage, count: usize, bytes: &[u8]) {
    let connections = open_connections(&fixture.user, count, bytes).await;
    fixture.wait_released(before).await;
    drop(connections);
}

/// Like [`hold_connections`]; each connection also shuts down its sending side.
pub async fn hold_half_closed(fixture: &AttackFixture, before: ResourceUsage, count: usize, bytes: &[u8]) {
    let mut connections = open_connections(&fixture.user, count, bytes).await;
    for socket in &mut connections {
        let _ = socket.shutdown().await;
    }
    fixture.wait_released(before).await;
    drop(connections);
}

/// Sends request heads without an end until the server closes the connections.
pub async fn send_endless_heads(client: &TestClient, count: usize) {
    let heads = (0..count).map(|_| async {
        let Ok(mut socket) = TcpStream::connect(client.address).await else { return };
        let _ = socket.write_all(PARTIAL_HEAD.as_bytes()).await;
        let (headers, mut sent) = (b"X-More: and more and more and more\r\n".repeat(1000), 0);
        while socket.write_all(&headers).await.is_ok() {
            sent += headers.len();
            // more than the buffers of both sockets hold
            assert!(sent < 64 << 20, "the server does not limit the head");
        }
    });
    futures_util::future::join_all(heads).await;
}

/// Returns a request head of `length` bytes without its end.
pub fn unfinished_head(length: usize) -> Vec<u8> {
    format!("{PARTIAL_HEAD}X-Long: {}", "x".repeat(length.saturating_sub(PARTIAL_HEAD.len() + 8))).into_bytes()
}

/// Returns `count` pipelined requests for pages of about 22 kB.
pub fn pipelined_pages(user: &TestClient, count: usize) -> Vec<u8> {
    get_request(user, "/api/products/?page_size=100").repeat(count)
}

/// Repeats a short attack for six seconds, so that the well-behaved clients send enough requests.
async fn repeat_attack<F: Future<Output = ()>>(mut attack: impl FnMut() -> F) {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(6) {
        attack().await;
    }
}

/// Runs Debian's slowhttptest in one of its modes until the server has closed its connections.
async fn run_slowhttptest(client: &TestClient, mode: &'static [&'static str], path: &str, connections: usize) {
    let (url, count) = (format!("http://{}{path}", client.address), connections.to_string());
    let dir = tempfile::tempdir().unwrap();
    let report = dir.path().join("slow");
    let run = tokio::task::spawn_blocking(move || {
        let mut command = std::process::Command::new("slowhttptest");
        command.args(mode).args(["-c", &count, "-r", "1000", "-l", "30", "-i", "5", "-p", "3", "-u", &url]);
        let output = command.arg("-g").arg("-o").arg(&report).output().expect("slowhttptest is installed");
        (output, std::fs::read_to_string(report.with_extension("csv")))
    });
    let (output, report) = run.await.unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let report = report.unwrap_or_else(|error| panic!("{error}: {stdout}"));
    // columns: seconds, closed, pending, connected, and whether slowhttptest's own probe got a response
    let row = |line: &str| line.split(',').skip(1).map_while(|cell| cell.trim().parse().ok()).collect::<Vec<usize>>();
    let made: Vec<usize> = report.lines().map(row).filter(|row| row.len() >= 3).map(|row| row[0] + row[2]).collect();
    // slowhttptest counts once a second, so the connections of the last second are missing
    let in_a_second = made.windows(2).map(|seconds| seconds[1].saturating_sub(seconds[0])).max().unwrap_or(0);
    let total = made.iter().max().unwrap_or(&0) + in_a_second;
    assert!(total * 100 >= connections * 90, "only {total} of {connections} connections were made: {report} {stdout}");
}

/// The attacks of the long test, with their names.
pub fn all_attacks(fixture: &AttackFixture, before: ResourceUsage) -> Vec<(&'static str, Attack<'_>)> {
    const SLOW_BODY: &[&str] = &["-B", "-t", "POST", "-f", "application/json"];
    const SLOW_READ: &[&str] = &["-X", "-w", "1", "-y", "10", "-n", "1", "-z", "5", "-k", "3"];
    let user = &fixture.user;
    let slow = |mode, path| -> Attack<'_> { Box::pin(run_slowhttptest(user, mode, path, 4000)) };
    let hold = |count, bytes: Vec<u8>| -> Attack<'_> {
        Box::pin(async move { hold_connections(fixture, before, count, &bytes).await })
    };
    let half_close = |count, bytes: Vec<u8>| -> Attack<'_> {
        Box::pin(async move { repeat_attack(|| hold_half_closed(fixture, before, count, &bytes)).await })
    };
    let export = get_request(user, "/api/products/export/");
    let list = get_request(user, "/api/products/");
    let pipelined = pipelined_pages(user, 200);
    let malformed = async move {
        for input in MALFORMED_INPUTS {
            hold_connections(fixture, before, 500, input).await;
        }
    };
    vec![
        ("4,000 slow heads", slow(&["-H"], "/openapi.json")),
        ("4,000 slow bodies", slow(SLOW_BODY, "/api/login/")),
        ("4,000 ranges", slow(&["-R"], LARGE_PUBLIC_PATH)),
        ("4,000 slow readers", slow(SLOW_READ, LARGE_PUBLIC_PATH)),
        ("5,000 silent connections", hold(5000, Vec::new())),
        ("2,000 connections half-closed within a head, repeatedly", half_close(2000, PARTIAL_HEAD.into())),
        ("500 half-closed after an export request, repeatedly", half_close(500, export.clone())),
        ("500 endless heads, repeatedly", Box::pin(repeat_attack(|| send_endless_heads(user, 500)))),
        ("7,900 unfinished heads of 15 kB", hold(7900, unfinished_head(15_000))),
        ("7,900 unfinished heads of 30 kB", hold(7900, unfinished_head(30_000))),
        ("7,900 unfinished heads of 60 kB", hold(7900, unfinished_head(60_000))),
        ("7,800 clients that pipeline 40 pages and never read", hold(7800, pipelined_pages(user, 40))),
        ("500 clients that pipeline and never read", hold(500, pipelined)),
        ("500 unread exports", hold(500, export)),
        ("500 unread streamed lists", hold(500, list)),
        ("500 malformed requests of each kind", Box::pin(malformed)),
    ]
}
