//! Hostile clients: whoever dribbles, stays silent, never reads, speaks nonsense or comes ten thousand at a time. Good
//! traffic goes on beside all of them, and afterwards the server holds what it held before.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use hyper::Method;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};

use super::{duration, seen};
use crate::harness::{Caller, Kept, Process, Shop, process::serving, until};

/// As a hostile client begins.
const HEAD: &str = "GET /api/products/ HTTP/1.1\r\nHost: shop.test\r\n";

/// Chunks, methods and bytes that mean nothing.
const NONSENSE: [&[u8]; 8] = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\r\n\r\n\r\n\r\n\r\n",
    b"GET",
    b"POST /api/login/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\n",
    b"POST /api/login/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n7fffffffffffffff\r\n",
    b"GET /api/products/?cursor=\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
    b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
];

/// What the server holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    memory: i64,
    descriptors: usize,
    backends: i64,
}

type Attack<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

struct Stage {
    shop: Shop,
    server: Process,
    user: Caller,
}

impl Stage {
    async fn set(products: i32, more: &[(&str, &str)]) -> Self {
        let shop = Shop::open().await;
        shop.stock(products).await;
        let token = shop.user("ann").await.token().to_owned();
        let server = Process::start(serving(shop.setting("database-url")).envs(more.iter().copied()));
        let user = Caller::new(server.address).bearing(&token);
        for _ in 0..50 {
            assert_eq!(user.get("/api/products/").await.status, 200);
        }
        Self { shop, server, user }
    }

    async fn held(&self) -> Held {
        let backends = "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'testshop'";
        Held {
            memory: self.server.memory("VmRSS"),
            descriptors: self.server.descriptors(),
            backends: self.shop.value(backends).await,
        }
    }

    /// Runs an attack with good traffic beside it; gives how many of how many good requests were answered.
    async fn under(&self, attack: impl Future<Output = ()>) -> (usize, usize) {
        let stop = Arc::new(AtomicBool::new(false));
        let (asked, answered) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let good: Vec<_> = (0..4)
            .map(|number| {
                let (user, stop) = (self.user.clone(), Arc::clone(&stop));
                let (asked, answered) = (Arc::clone(&asked), Arc::clone(&answered));
                tokio::spawn(async move {
                    let mut kept = Kept::default();
                    while !stop.load(SeqCst) {
                        let path = ["/api/products/", "/api/products/1/", "/api/me/"][asked.fetch_add(1, SeqCst) % 3];
                        let answering = kept.send(&user, Method::GET, path, None);
                        if let Ok(Some(answer)) = timeout(Duration::from_secs(5), answering).await
                            && answer.status == 200
                        {
                            answered.fetch_add(1, SeqCst);
                        }
                        // half of them come anew each time
                        if number % 2 == 0 {
                            kept = Kept::default();
                        }
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                })
            })
            .collect();
        attack.await;
        stop.store(true, SeqCst);
        futures_util::future::join_all(good).await;
        (answered.load(SeqCst), asked.load(SeqCst))
    }

    /// Until it holds no more than before, but for what its allocator keeps.
    async fn back_at(&self, before: Held) -> Held {
        until("descriptors and connections are back", async || {
            let now = self.held().await;
            now.descriptors <= before.descriptors + 4 && now.backends <= before.backends.max(10)
        })
        .await;
        self.held().await
    }
}

/// As many descriptors as this process may have.
fn raise_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    limit.maximum.unwrap_or(u64::MAX)
}

/// Connections that say `words` once and then nothing, for so long.
async fn hold(caller: &Caller, count: usize, words: &[u8], long: Duration) {
    let mut open = Vec::new();
    for number in 0..count {
        if let Ok(Ok(mut socket)) = timeout(Duration::from_secs(1), TcpStream::connect(caller.address)).await {
            let _ = socket.write_all(words).await;
            open.push(socket);
        }
        if number % 200 == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    tokio::time::sleep(long).await;
}

/// Heads without an end, until the server has had enough.
async fn endless_heads(caller: &Caller, count: usize) {
    let endless = (0..count).map(|_| async {
        let Ok(mut socket) = TcpStream::connect(caller.address).await else { return };
        let _ = socket.write_all(HEAD.as_bytes()).await;
        let (more, mut sent) = (b"X-More: and more and more and more\r\n".repeat(1000), 0);
        while socket.write_all(&more).await.is_ok() {
            sent += more.len();
            // more than the buffers of both sockets hold
            assert!(sent < 64 << 20, "it reads on and on");
        }
    });
    futures_util::future::join_all(endless).await;
}

/// slowhttptest (Debian's), in one of its modes.
async fn slow(caller: &Caller, mode: &'static [&'static str], connections: usize, long: Duration) {
    let (url, seconds) = (format!("http://{}/openapi.json", caller.address), long.as_secs().to_string());
    let connections = connections.to_string();
    let run = tokio::task::spawn_blocking(move || {
        let mut slow = std::process::Command::new("slowhttptest");
        slow.args(mode).args(["-c", &connections, "-r", "1000", "-l", &seconds, "-i", "5", "-p", "3", "-u", &url]);
        slow.output().expect("slowhttptest is installed")
    });
    let output = run.await.unwrap();
    let words = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(words.contains("Exit status"), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_silence_and_endless_heads_cost_nothing_that_stays() {
    let stage = Stage::set(10, &[("HEAD_TIMEOUT", "1s"), ("BODY_TIMEOUT", "1s")]).await;
    let before = stage.held().await;
    let (answered, asked) = stage
        .under(async {
            for nonsense in NONSENSE {
                hold(&stage.user, 10, nonsense, Duration::ZERO).await;
            }
            hold(&stage.user, 200, b"", Duration::from_millis(500)).await;
            hold(&stage.user, 200, HEAD.as_bytes(), Duration::from_millis(500)).await;
            endless_heads(&stage.user, 20).await;
        })
        .await;
    assert!(answered * 100 >= asked * 99, "{answered} of {asked}");
    stage.back_at(before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_descriptors_serves_again_when_they_are_back() {
    let stage = Stage::set(10, &[]).await;
    let before = stage.held().await;
    stage.server.limit_descriptors(120);
    let mut open = Vec::new();
    for _ in 0..300 {
        open.extend(
            timeout(Duration::from_millis(100), TcpStream::connect(stage.user.address)).await.ok().and_then(Result::ok),
        );
    }
    until("its descriptors are used up", async || stage.server.descriptors() >= 120).await;
    drop(open);
    until("it serves again", async || {
        let answer =
            timeout(Duration::from_secs(1), stage.user.try_send(Method::GET, "/api/products/", None, Vec::new()));
        matches!(answer.await, Ok(Some(answer)) if answer.status == 200)
    })
    .await;
    stage.back_at(before).await;
}

#[ignore = "minutes, and nothing may run beside it: make hard"]
#[tokio::test(flavor = "multi_thread")]
async fn hostile_clients_at_length() {
    assert!(raise_limit() > 13_000, "13,000 descriptors are needed");
    let stage = Stage::set(20_000, &[("HEAD_TIMEOUT", "10s"), ("BODY_TIMEOUT", "10s"), ("WRITE_TIMEOUT", "10s")]).await;
    let user = &stage.user;
    let export =
        format!("GET /api/products/export/ HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n", user.token());
    let before = stage.held().await;
    let (began, mut least, mut told) = (Instant::now(), f64::MAX, Vec::new());
    let long = duration(20);
    let attacks: Vec<(&str, Attack<'_>)> = vec![
        ("4,000 slow heads", Box::pin(slow(user, &["-H"], 4000, long))),
        ("4,000 slow bodies", Box::pin(slow(user, &["-B"], 4000, long))),
        ("4,000 ranges", Box::pin(slow(user, &["-R"], 4000, long))),
        ("4,000 slow readers", Box::pin(slow(user, &["-X", "-w", "1", "-y", "10", "-z", "5", "-k", "3"], 4000, long))),
        ("5,000 silent", Box::pin(hold(user, 5000, b"", Duration::from_secs(12)))),
        ("500 endless heads", Box::pin(endless_heads(user, 500))),
        ("300 exports that nobody reads", Box::pin(hold(user, 300, export.as_bytes(), Duration::from_secs(12)))),
    ];
    for (name, attack) in attacks {
        let (answered, asked) = stage.under(attack).await;
        let share = answered as f64 / asked as f64 * 100.0;
        least = least.min(share);
        told.push(format!("{name}: {share:.1} % of {asked}"));
        assert!(share >= 99.0, "{}", told.join("; "));
        stage.back_at(before).await;
    }
    let after = stage.back_at(before).await;
    seen(
        "good traffic goes on beside hostile clients",
        &format!("{} (in {:.0} s)", told.join("; "), began.elapsed().as_secs_f64()),
    );
    assert!(after.memory < before.memory + 64 * 1024, "{before:?} {after:?}");
    seen(
        "what hostile clients took is given back",
        &format!(
            "memory {} and {} MiB, descriptors {} and {}, connections to PostgreSQL {} and {}",
            before.memory / 1024,
            after.memory / 1024,
            before.descriptors,
            after.descriptors,
            before.backends,
            after.backends
        ),
    );
    over_the_bound().await;
}

/// Ten thousand more than there is room for: who is in is served, who is not hears so.
async fn over_the_bound() {
    let stage = Stage::set(100, &[("MAX_CONNECTIONS", "1000")]).await;
    let before = stage.held().await;
    let mut kept = Kept::default();
    assert_eq!(kept.send(&stage.user, Method::GET, "/api/products/", None).await.unwrap().status, 200);
    let mut open = Vec::new();
    let (mut answered, mut asked) = (0, 0);
    for number in 0..11_000 {
        open.extend(
            timeout(Duration::from_secs(1), TcpStream::connect(stage.user.address)).await.ok().and_then(Result::ok),
        );
        if number % 100 == 0 {
            asked += 1;
            let answer =
                timeout(Duration::from_secs(5), kept.send(&stage.user, Method::GET, "/api/products/", None)).await;
            answered += usize::from(matches!(answer, Ok(Some(answer)) if answer.status == 200));
        }
    }
    let refused = stage.user.raw(b"").await;
    let told = refused.get(9..12).unwrap_or("nothing").to_owned();
    assert!(answered * 100 >= asked * 99, "{answered} of {asked}");
    let count = open.len();
    drop(open);
    until("there is room again", async || {
        let answer = stage.user.try_send(Method::GET, "/api/products/", None, Vec::new()).await;
        answer.is_some_and(|answer| answer.status == 200)
    })
    .await;
    stage.back_at(before).await;
    seen(
        "who is in is served while thousands knock",
        &format!(
            "{count} connections at a server for 1,000: {answered} of {asked} lists on a kept one, a new one was told {told}"
        ),
    );
}
