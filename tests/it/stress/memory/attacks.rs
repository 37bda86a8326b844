//! The attacks of the memory test.

use std::{
    pin::Pin,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use hyper::Method;
use tokio::net::TcpStream;

use crate::{
    harness::{TestClient, metric},
    import::bombs::{Bomb, large_bombs, small_bombs},
    stress::hostile::{
        attacks::{PARTIAL_HEAD, get_request, open_connection},
        fixture::{AttackFixture, ResourceUsage},
    },
};

/// Connections that an attack leaves to the well-behaved clients.
pub const SPARE_CONNECTIONS: usize = 200;
/// Addresses of the attackers; one network may hold half of the connections.
const NETWORKS: usize = 40;
const ACCOUNTS: usize = 30;

pub type Attack<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Opens connections from [`NETWORKS`] addresses, each with the bytes that `request` returns for its number.
pub async fn open_connections(client: &TestClient, count: usize, request: impl Fn(usize) -> Vec<u8>) -> Vec<TcpStream> {
    const AT_ONCE: usize = 200;
    let mut connections = Vec::new();
    for first in (0..count).step_by(AT_ONCE) {
        let batch = first..count.min(first + AT_ONCE);
        let requests: Vec<_> = batch.map(|number| (number, request(number))).collect();
        let opened =
            join_all(requests.iter().map(|(number, bytes)| open_connection(client, *number % NETWORKS, bytes))).await;
        connections.extend(opened.into_iter().flatten());
    }
    connections
}

/// The accounts of the attackers, two members of the staff, and the number of connections that they open.
pub struct Attackers {
    users: Vec<TestClient>,
    staff: Vec<TestClient>,
    pub connections: usize,
}

impl Attackers {
    pub async fn create(fixture: &AttackFixture) -> Self {
        let (mut users, mut staff) = (Vec::new(), Vec::new());
        for number in 0..ACCOUNTS {
            users.push(fixture.app.create_user(&format!("user{number}")).await.on_instance(fixture.user.address));
        }
        for name in ["sam", "kim"] {
            staff.push(fixture.app.create_staff(name).await.on_instance(fixture.user.address));
        }
        let limit = metric(fixture.server.admin_address, "testshop_http_connections_limit").await;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small whole number")]
        let connections = limit as usize - SPARE_CONNECTIONS;
        Self { users, staff, connections }
    }

    fn user(&self, number: usize) -> &TestClient {
        &self.users[number % ACCOUNTS]
    }
}

/// Holds connections until the server has closed them.
async fn hold(fixture: &AttackFixture, before: ResourceUsage, count: usize, request: impl Fn(usize) -> Vec<u8>) {
    let connections = open_connections(&fixture.user, count, request).await;
    let open = metric(fixture.server.admin_address, "testshop_http_connections").await;
    println!("{open} connections are open");
    // other attacks may run at the same time
    wait_until_released(fixture, before, 64).await;
    drop(connections);
}

/// Waits until the server holds at most `more` descriptors more than before.
pub async fn wait_until_released(fixture: &AttackFixture, before: ResourceUsage, more: i64) {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let now = fixture.resource_usage().await;
        if now.other_descriptors() <= before.other_descriptors() + more {
            return;
        }
        assert!(Instant::now() < deadline, "the server does not release its connections: {before:?}, {now:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Returns a request whose body lacks its last byte.
fn unfinished_body(user: &TestClient, method: &str, path: &str, bytes: usize) -> Vec<u8> {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Content-Length: {bytes}\r\n\r\n",
        user.token()
    );
    let mut request = head.into_bytes();
    request.resize(request.len() + bytes - 1, b' ');
    request
}

/// Reads lists of different queries, so that the cache is full.
pub async fn fill_cache(attackers: &Attackers) {
    let readers = (0..8).map(|reader| async move {
        for query in 0..60 {
            let number = reader * 60 + query;
            let path = format!("/api/products/?price_min={number}");
            attackers.user(number).get(&path).await;
        }
    });
    join_all(readers).await;
}

/// Each member of the staff checks a file of 100,000 rows.
async fn import_twice(attackers: &Attackers) {
    let rows: String = (0..100_000).map(|row| format!("Product {row},{},Sport,1.00\n", "d".repeat(300))).collect();
    let file = format!("Name,Description,Category,Price\n{rows}").into_bytes();
    let imports = attackers.staff.iter().map(|staff| {
        staff.send_bytes(Method::POST, "/api/products/import/?dry_run=true", Some("text/csv"), file.clone())
    });
    for response in join_all(imports).await {
        assert_eq!(response.status, 200, "{}", response.text());
    }
}

/// Each member of the staff checks files that describe much, at the same time as the other. One import can hold the
/// memory that the other one needs.
async fn import_bombs(attackers: &Attackers) {
    let bombs: fn() -> Vec<Bomb> = || large_bombs().into_iter().chain(small_bombs()).collect();
    let imports = attackers.staff.iter().map(|staff| async move {
        for bomb in tokio::task::spawn_blocking(bombs).await.unwrap() {
            let status = bomb.send(staff).await.status.as_u16();
            assert!([200, 400, 503].contains(&status), "{status}");
        }
    });
    join_all(imports).await;
}

/// Builds a workbook and a CSV file of the whole catalogue at the same time, from two accounts.
async fn export_twice(fixture: &AttackFixture, attackers: &Attackers) {
    // another version, so that no file is stored
    fixture.app.execute("update products set price = price + 1 where id = 1", &[]).await;
    let exports = ["xlsx", "csv"].iter().enumerate().map(|(number, format)| {
        let path = format!("/api/products/export/?format={format}");
        async move { attackers.user(number).get(&path).await.status }
    });
    join_all(exports).await;
}

/// The attacks, with their names.
pub fn attacks<'a>(
    fixture: &'a AttackFixture,
    attackers: &'a Attackers,
    before: ResourceUsage,
) -> Vec<(&'static str, Attack<'a>)> {
    let hold_all = move |count, request: Box<dyn Fn(usize) -> Vec<u8> + 'a>| -> Attack<'a> {
        Box::pin(async move { hold(fixture, before, count, request).await })
    };
    let all = attackers.connections;
    let head = |bytes: usize| format!("{PARTIAL_HEAD}X-Padding: {}", "x".repeat(bytes)).into_bytes();
    let page =
        |number| get_request(attackers.user(number), &format!("/api/products/?page_size=100&price_min={number}"));
    let list = |number| get_request(attackers.user(number), "/api/products/");
    vec![
        ("heads of 15 kB", hold_all(all, Box::new(move |_| head(15_000)))),
        ("heads of 60 kB", hold_all(all, Box::new(move |_| head(60_000)))),
        (
            "bodies of 8 kB",
            hold_all(all, Box::new(|number| unfinished_body(attackers.user(number), "POST", "/api/password/", 8000))),
        ),
        (
            "2,000 bodies of 250 kB",
            hold_all(
                2000,
                Box::new(|number| unfinished_body(&attackers.staff[number % 2], "POST", "/api/products/", 250_000)),
            ),
        ),
        ("pipelines of 40 unread pages", hold_all(all, Box::new(move |number| page(number).repeat(40)))),
        ("unread lists", hold_all(all, Box::new(list))),
        ("full caches", Box::pin(fill_cache(attackers))),
        ("two imports", Box::pin(import_twice(attackers))),
        ("import bombs", Box::pin(import_bombs(attackers))),
        ("two exports", Box::pin(export_twice(fixture, attackers))),
    ]
}

/// All attacks at once, with as many connections as the server accepts.
pub async fn attack_with_everything(fixture: &AttackFixture, attackers: &Attackers, before: ResourceUsage) {
    let request = |number: usize| match number % 4 {
        0 => format!("{PARTIAL_HEAD}X-Padding: {}", "x".repeat(15_000)).into_bytes(),
        1 => unfinished_body(attackers.user(number), "POST", "/api/password/", 8000),
        2 => {
            get_request(attackers.user(number), &format!("/api/products/?page_size=100&price_min={number}")).repeat(40)
        }
        _ => get_request(attackers.user(number), "/api/products/"),
    };
    let connections = hold(fixture, before, attackers.connections, request);
    let files = async {
        import_bombs(attackers).await;
        import_twice(attackers).await;
        fill_cache(attackers).await;
        export_twice(fixture, attackers).await;
    };
    futures_util::future::join(connections, files).await;
}
