//! Memory and shares: unfinished requests, unread responses, and connections of one network.

use std::{cell::Cell, net::Ipv4Addr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use super::assert_error_response;
use crate::harness::{TestApp, TestAppBuilder, wait_until};

/// Two client networks.
const FIRST: Ipv4Addr = Ipv4Addr::LOCALHOST;
const SECOND: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

const HEALTH_REQUEST: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";

async fn connect_from(address: Ipv4Addr, app: &TestApp) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((address, 0).into()).unwrap();
    socket.connect(app.server.address).await.unwrap()
}

/// Returns the first bytes of a response, or what arrived until the server closed the connection.
async fn read_status_line(socket: &mut TcpStream) -> String {
    let (mut line, mut read) = ([0; 12], 0);
    while read < line.len() {
        match timeout(Duration::from_secs(20), socket.read(&mut line[read..])).await.expect("a response in time") {
            Ok(count) if count > 0 => read += count,
            _ => break,
        }
    }
    String::from_utf8_lossy(&line[..read]).into_owned()
}

#[tokio::test]
async fn unfinished_head_is_rejected_at_its_limit() {
    let app = TestApp::spawn().await;
    let endless = format!("GET /healthz HTTP/1.1\r\nhost: x\r\nx: {}", "x".repeat(16_400));
    // the head has no end, and nothing more follows; also behind other requests, one of them with a body
    let login = "POST /api/login/ HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
    for before in [String::new(), String::from_utf8_lossy(HEALTH_REQUEST).repeat(2), login.to_owned()] {
        let responses = app.anonymous().raw(format!("{before}{endless}").as_bytes()).await;
        let last = &responses[responses.rfind("HTTP/1.1 ").expect(&responses)..];
        assert_error_response(last, "431", "Request header fields too large.");
    }
    let complete = format!("{}\r\n\r\n", &endless[..16_000]);
    assert!(
        app.anonymous()
            .raw(complete.replace("host: x", "host: x\r\nconnection: close").as_bytes())
            .await
            .starts_with("HTTP/1.1 200 ")
    );
}

#[tokio::test]
async fn unfinished_bodies_of_one_network_leave_half_of_the_budget() {
    const BODY_BYTES: usize = 250_000;
    /// 64 MiB is the budget, half of it the share.
    const CONNECTIONS: usize = 150;
    let app = TestAppBuilder::default().with("body-timeout", "60s").spawn().await;
    let staff = app.create_staff("sam").await;
    let head = format!(
        "POST /api/tags/ HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         content-length: {BODY_BYTES}\r\n\r\n",
        staff.token()
    );
    let (unfinished, complete) = (vec![b' '; BODY_BYTES - 1], vec![b' '; BODY_BYTES]);
    let mut sockets = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut socket = connect_from(FIRST, &app).await;
        socket.write_all(head.as_bytes()).await.unwrap();
        socket.write_all(&unfinished).await.unwrap();
        sockets.push(socket);
    }
    let send = async |address: Ipv4Addr| {
        let mut socket = connect_from(address, &app).await;
        socket.write_all(&[head.as_bytes(), &complete].concat()).await.unwrap();
        read_status_line(&mut socket).await
    };
    wait_until("the share is exhausted", async || send(FIRST).await == "HTTP/1.1 503").await;
    assert_eq!(send(SECOND).await, "HTTP/1.1 400", "a body of spaces is read and is no JSON");
    assert_eq!(staff.get("/api/me/").await.status, 200, "requests without a large body are not counted");
    drop(sockets);
    wait_until("the budget is released", async || send(FIRST).await == "HTTP/1.1 400").await;
}

#[tokio::test]
async fn one_network_holds_half_of_the_connections() {
    let app = TestAppBuilder::default().with("max-connections", 10).spawn().await;
    let mut open = Vec::new();
    for number in 0..5 {
        let mut socket = connect_from(FIRST, &app).await;
        socket.write_all(HEALTH_REQUEST).await.unwrap();
        assert_eq!(read_status_line(&mut socket).await, "HTTP/1.1 200", "{number}");
        open.push(socket);
    }
    assert_eq!(read_status_line(&mut connect_from(FIRST, &app).await).await, "HTTP/1.1 503");
    for _ in 0..5 {
        let mut socket = connect_from(SECOND, &app).await;
        socket.write_all(HEALTH_REQUEST).await.unwrap();
        assert_eq!(read_status_line(&mut socket).await, "HTTP/1.1 200");
        open.push(socket);
    }
    assert_eq!(read_status_line(&mut connect_from(Ipv4Addr::new(127, 0, 0, 3), &app).await).await, "HTTP/1.1 503");
    assert_eq!(app.metric("testshop_http_connections").await, 10.0, "the admin listener is not affected");
    drop(open);
    wait_until("the connections are released", async || app.metric("testshop_http_connections").await == 0.0).await;

    let proxied =
        TestAppBuilder::default().with("max-connections", 4).with("trusted-proxies", "127.0.0.1").spawn().await;
    let mut open = Vec::new();
    for _ in 0..4 {
        let mut socket = connect_from(FIRST, &proxied).await;
        socket.write_all(HEALTH_REQUEST).await.unwrap();
        assert_eq!(read_status_line(&mut socket).await, "HTTP/1.1 200", "a trusted proxy has no share");
        open.push(socket);
    }
}

/// Returns the bytes that the kernel holds for sending on the connections of a port.
fn unsent_bytes(port: u16) -> u64 {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let port = format!(":{port:04X}");
    let sockets = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let queues = sockets.filter(|columns| columns[1].ends_with(&port)).map(|columns| columns[4]);
    queues.map(|queues| u64::from_str_radix(queues.split(':').next().unwrap(), 16).unwrap()).sum()
}

#[tokio::test]
async fn unread_pipelined_responses_use_bounded_kernel_memory() {
    const CONNECTIONS: usize = 300;
    let app = TestApp::spawn().await;
    app.seed_products(100).await;
    let user = app.create_user("ann").await;
    let request = format!("GET /api/products/ HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n", user.token());
    let length = user.get("/api/products/").await.body.len() as u64;
    assert!(length > 15_000, "{length}");
    let mut sockets = Vec::new();
    for _ in 0..CONNECTIONS {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut socket = socket.connect(app.server.address).await.unwrap();
        socket.write_all(request.repeat(40).as_bytes()).await.unwrap();
        sockets.push(socket);
    }
    let port = app.server.address.port();
    let latest = Cell::new(0);
    wait_until("the server waits for its clients", async || {
        let before = latest.replace(unsent_bytes(port));
        tokio::time::sleep(Duration::from_millis(200)).await;
        latest.get() > 0 && before == latest.get()
    })
    .await;
    let latest = latest.get();
    // 256 KiB for each of the first 128 connections, 64 KiB for the others; a write may exceed a limit by its last segment
    let limit = 128 * (256 << 10) + 172 * (64 << 10) + (CONNECTIONS as u64) * (64 << 10);
    let unlimited = length * 40 * CONNECTIONS as u64;
    assert!(latest <= limit && limit * 2 < unlimited, "{latest} bytes of {unlimited}, at most {limit}");
}
