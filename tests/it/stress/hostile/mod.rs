//! Hostile clients: slow, silent, non-reading or malformed requests, and connection floods. Well-behaved clients are
//! served during each attack, and afterwards the server holds no more resources than before.

pub mod attacks;
pub mod fixture;

use std::time::{Duration, Instant};

use hyper::Method;
use tokio::{net::TcpStream, time::timeout};

use self::{
    attacks::{
        ATTACKING_NETWORKS, MALFORMED_INPUTS, PARTIAL_HEAD, all_attacks, get_request, hold_connections,
        hold_half_closed, open_connection, open_connections, open_connections_from, pipelined_pages,
        raise_nofile_limit, send_endless_heads, unfinished_head,
    },
    fixture::{AttackFixture, ResourceUsage, Traffic},
};
use super::record_result;
use crate::harness::{KeepAliveClient, wait_until};

#[tokio::test(flavor = "multi_thread")]
async fn hostile_connections_leave_no_residue() {
    let timeouts = [("HEAD_TIMEOUT", "1s"), ("BODY_TIMEOUT", "1s"), ("IDLE_TIMEOUT", "1s"), ("WRITE_TIMEOUT", "1s")];
    let fixture = AttackFixture::start(10, &timeouts).await;
    let before = fixture.resource_usage().await;
    let head = format!("{PARTIAL_HEAD}\r\n");
    let traffic = fixture
        .run_attack(async {
            for input in MALFORMED_INPUTS {
                hold_connections(&fixture, before, 10, input).await;
            }
            hold_connections(&fixture, before, 200, b"").await;
            hold_connections(&fixture, before, 200, PARTIAL_HEAD.as_bytes()).await;
            hold_half_closed(&fixture, before, 200, PARTIAL_HEAD.as_bytes()).await;
            hold_half_closed(&fixture, before, 200, head.as_bytes()).await;
            hold_connections(&fixture, before, 20, head.repeat(1000).as_bytes()).await;
            send_endless_heads(&fixture.user, 20).await;
        })
        .await;
    assert!(traffic.percent_served() >= 99.0, "{} of {}", traffic.served, traffic.sent);
    fixture.assert_recovered(before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn server_recovers_from_descriptor_exhaustion() {
    let fixture = AttackFixture::start(10, &[]).await;
    let before = fixture.resource_usage().await;
    fixture.server.limit_descriptors(120);
    let mut connections = Vec::new();
    for _ in 0..300 {
        let connection = timeout(Duration::from_millis(100), TcpStream::connect(fixture.user.address)).await;
        connections.extend(connection.ok().and_then(Result::ok));
    }
    wait_until("the server has used all its descriptors", async || fixture.server.descriptors() >= 120).await;
    drop(connections);
    wait_until("the server serves a list again", async || {
        let list = fixture.user.try_send(Method::GET, "/api/products/", None, Vec::new());
        matches!(timeout(Duration::from_secs(1), list).await, Ok(Some(response)) if response.status == 200)
    })
    .await;
    fixture.assert_recovered(before).await;
}

#[ignore = "minutes, and nothing may run beside it: make stress"]
#[tokio::test(flavor = "multi_thread")]
async fn hostile_connections_stress() {
    assert!(raise_nofile_limit() > 13_000, "13,000 descriptors are needed");
    // the full list is streamed, and the export is larger than the socket buffers
    let settings = [
        ("HEAD_TIMEOUT", "10s"),
        ("BODY_TIMEOUT", "10s"),
        ("WRITE_TIMEOUT", "10s"),
        ("IDLE_TIMEOUT", "10s"),
        ("CACHE_BYTES", "1000000"),
        ("CACHE_ENTRY_BYTES", "1000000"),
    ];
    let fixture = AttackFixture::start(100_000, &settings).await;
    assert_eq!(fixture.user.get("/api/products/export/").await.status, 200);
    // the pool opens all its connections now and keeps them
    futures_util::future::join_all((0..64).map(|_| fixture.user.get("/api/products/1/"))).await;
    let before = fixture.resource_usage().await;
    let (began, mut shares) = (Instant::now(), Vec::new());
    for (name, attack) in all_attacks(&fixture, before) {
        let traffic = fixture.run_attack(attack).await;
        shares.push(format!("{name} {:.1} % of {}", traffic.percent_served(), traffic.sent));
        println!("{} ({} MiB)", shares[shares.len() - 1], fixture.server.memory_kib("VmHWM") / 1024);
        assert!(traffic.percent_served() >= 99.0 && traffic.sent >= 300, "{}", shares.join("; "));
        fixture.assert_recovered(before).await;
    }
    let (after, peak_kib) = (fixture.assert_recovered(before).await, fixture.server.memory_kib("VmHWM"));
    let observed = format!(
        "share of their requests answered during: {} ({:.0} s in total)",
        shares.join("; "),
        began.elapsed().as_secs_f64()
    );
    record_result("well-behaved clients are served during attacks", &observed);
    assert_released(before, after, peak_kib);
    run_connection_flood().await;
}

fn assert_released(before: ResourceUsage, after: ResourceUsage, peak_kib: i64) {
    let observed = format!(
        "before and after: memory without the cache {:.0} and {:.0} MiB (peak with the cache {} MiB), descriptors {} \
         and {}, PostgreSQL connections {} and {}, kernel sockets {} and {}",
        before.memory,
        after.memory,
        peak_kib / 1024,
        before.descriptors,
        after.descriptors,
        before.backends,
        after.backends,
        before.sockets,
        after.sockets,
    );
    // the allocator does not return all memory to the system
    assert!(after.memory < before.memory + 32.0, "{observed}");
    // docker-compose.yml limits the memory to 768 MiB
    assert!(peak_kib < 512 * 1024, "{observed}");
    record_result("resources are released after attacks", &observed);
}

/// Opens 11,000 connections to a server with a limit of 1,000: established clients are served, a new one gets 503.
async fn run_connection_flood() {
    let fixture = AttackFixture::start(100, &[("MAX_CONNECTIONS", "1000")]).await;
    let before = fixture.resource_usage().await;
    let mut established: [KeepAliveClient; 10] = Default::default();
    for keep_alive in &mut established {
        assert_eq!(keep_alive.send(&fixture.user, Method::GET, "/api/products/", None).await.unwrap().status, 200);
    }
    let (mut flood, mut traffic, mut max_descriptors) = (Vec::new(), Traffic::default(), 0);
    for round in 0..110 {
        flood.extend(open_connections(&fixture.user, 100, b"").await);
        traffic.send(&mut established[round % 10], &fixture.user, "/api/products/").await;
        max_descriptors = max_descriptors.max(fixture.server.descriptors());
    }
    // the server sends 503 to a limited number of connections at a time
    wait_until("a new connection gets 503", async || fixture.user.raw(b"").await.starts_with("HTTP/1.1 503 ")).await;
    assert!(max_descriptors < 1000 + 256, "{max_descriptors} descriptors");
    assert!(traffic.percent_served() >= 99.0, "{} of {}", traffic.served, traffic.sent);
    let connections = flood.len();
    drop((flood, established));
    wait_until("a new connection is served", async || {
        let response = fixture.user.try_send(Method::GET, "/api/products/", None, Vec::new()).await;
        response.is_some_and(|response| response.status == 200)
    })
    .await;
    fixture.assert_recovered(before).await;
    let observed = format!(
        "{connections} connections to a server with a limit of 1,000: {} of {} lists answered on 10 established \
         connections, 503 for a new one; at most {max_descriptors} descriptors",
        traffic.served, traffic.sent
    );
    record_result("established clients are served during a connection flood", &observed);
}

/// Readers that stop reading, each of its own version of a list of 16 MB: all versions together are 800 MB. They have
/// several accounts and networks, because each of these gets no more than half of what sends responses.
#[ignore = "minutes, and nothing may run beside it: make stress"]
#[tokio::test(flavor = "multi_thread")]
async fn slow_list_readers_use_bounded_memory() {
    const READERS: i32 = 50;
    const ACCOUNTS: usize = 5;
    let fixture = AttackFixture::start(100_000, &[("WRITE_TIMEOUT", "120s")]).await;
    let mut requests = Vec::new();
    for number in 0..ACCOUNTS {
        let user = fixture.app.create_user(&format!("reader{number}")).await;
        requests.push(get_request(&user, "/api/products/"));
    }
    let mut readers = Vec::new();
    for (price, (network, request)) in (0..READERS).zip(requests.iter().enumerate().cycle()) {
        fixture.app.execute("update products set price = $1::int where id = 1", &[&price]).await;
        let reader = open_connection(&fixture.user, network, request).await.unwrap();
        let mut status_line = [0; 12];
        timeout(Duration::from_secs(20), reader.peek(&mut status_line)).await.expect("the response begins").unwrap();
        assert_eq!(&status_line, b"HTTP/1.1 200");
        readers.push(reader);
    }
    let list = fixture.user.get("/api/products/").await;
    assert_eq!(list.status, 200);
    let peak_mib = fixture.server.memory_kib("VmHWM") / 1024;
    let observed = format!(
        "{READERS} readers, each of its own version of a {} MB list, that stop reading: at most {peak_mib} MiB, and \
         the list is still served completely",
        list.body.len() / 1_000_000
    );
    assert!(peak_mib < 512 && list.body.ends_with(b"]"), "{observed}");
    record_result("slow readers of large lists use bounded memory", &observed);
}

/// Returns the memory of all TCP sockets of this machine in MiB, as the kernel counts it.
fn tcp_memory_mib() -> i64 {
    const PAGE_BYTES: i64 = 4096;
    let table = std::fs::read_to_string("/proc/net/sockstat").unwrap();
    let pages =
        table.lines().find_map(|line| line.strip_prefix("TCP:")?.rsplit_once("mem ")?.1.trim().parse::<i64>().ok());
    (pages.expect("a line about TCP") * PAGE_BYTES) >> 20
}

/// The peaks of the memory of the server process and of the kernel's sockets above the present ones (MiB) while clients
/// hold connections.
async fn measure_attack(
    networks: u8,
    connections: usize,
    settings: &[(&str, &str)],
    bytes: impl Fn(&AttackFixture) -> Vec<u8>,
) -> (i64, i64, Traffic) {
    let fixture = AttackFixture::start(100, settings).await;
    let bytes = bytes(&fixture);
    let (process, kernel) = (fixture.server.memory_kib("VmRSS"), tcp_memory_mib());
    let mut kernel_peak = 0;
    let traffic = fixture
        .run_attack(async {
            let connections = open_connections_from(networks, &fixture.user, connections, &bytes).await;
            for _ in 0..30 {
                kernel_peak = kernel_peak.max(tcp_memory_mib());
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            drop(connections);
        })
        .await;
    ((fixture.server.memory_kib("VmHWM") - process) / 1024, kernel_peak - kernel, traffic)
}

#[ignore = "minutes, and nothing may run beside it: make stress"]
#[tokio::test(flavor = "multi_thread")]
async fn unfinished_heads_use_bounded_memory() {
    const CONNECTIONS: usize = 7900;
    assert!(raise_nofile_limit() > 9000, "9,000 descriptors are needed");
    let mut observed = Vec::new();
    for networks in [ATTACKING_NETWORKS, 1] {
        for length in [15_000, 30_000, 60_000] {
            let (process, kernel, traffic) =
                measure_attack(networks, CONNECTIONS, &[], |_| unfinished_head(length)).await;
            let served = traffic.percent_served();
            observed.push(format!(
                "{} kB from {networks} addresses: +{process} MiB, sockets +{kernel} MiB, {served:.1} % served",
                length / 1000
            ));
            println!("{}", observed[observed.len() - 1]);
            assert!(process < 250 && served >= 99.0, "{}", observed.join("; "));
        }
    }
    record_result(&format!("{CONNECTIONS} unfinished heads use bounded memory"), &observed.join("; "));
}

#[ignore = "minutes, and nothing may run beside it: make stress"]
#[tokio::test(flavor = "multi_thread")]
async fn unread_pipelines_use_bounded_memory() {
    const CONNECTIONS: usize = 7800;
    assert!(raise_nofile_limit() > 9000, "9,000 descriptors are needed");
    let (process, kernel, traffic) =
        measure_attack(ATTACKING_NETWORKS, CONNECTIONS, &[], |fixture| pipelined_pages(&fixture.user, 40)).await;
    let observed = format!(
        "{CONNECTIONS} connections with 40 pages each: +{process} MiB, sockets +{kernel} MiB, {:.1} % of the requests \
         of others served",
        traffic.percent_served()
    );
    println!("{observed}");
    // the buffers of the sockets (`http/listener`), and those of the clients of this process
    assert!(process < 512 && kernel < 600 && traffic.percent_served() >= 99.0, "{observed}");
    record_result("unread pipelined responses use bounded memory", &observed);
}
