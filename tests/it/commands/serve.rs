//! `serve` in a process of its own: addresses, signals, log, memory.

use std::{
    io::{BufRead, BufReader},
    net::TcpStream,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{output_text, run, run_on};
use crate::harness::{JWT_SECRET, Process, ReservedPort, TestApp, TestClient, process::command, wait_until};

#[tokio::test]
async fn serve_prints_addresses_and_stops_at_sigterm() {
    let app = TestApp::spawn().await;
    // the port must not be assigned to another server after the shutdown
    let port = ReservedPort::new();
    let mut serve = command(&["serve", "--migrate"]);
    serve
        .env("DATABASE_URL", app.database_url())
        .env("JWT_SECRET", JWT_SECRET)
        .env("LISTEN_ADDR", port.address().to_string())
        .env("ADMIN_ADDR", "127.0.0.1:0");
    let mut server = serve.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let address = loop {
        let line = lines.next().expect("the server prints its address").unwrap();
        if let Some(address) = line.strip_prefix("listening on http://") {
            break address.to_owned();
        }
    };
    let client = TestClient::new(address.parse().unwrap());
    assert_eq!(client.get("/readyz").await.status, 200);
    let rejected = client.with_header("authorization", "Bearer sec.re.t").get("/api/me/?password=hidden").await;
    assert_eq!(rejected.status, 401);
    let probe = ["healthcheck", "--admin-addr", "127.0.0.1:0", "--listen-addr", &address];
    let healthy = run(command(&probe), "");
    assert_eq!(healthy.status.code(), Some(0), "{}", output_text(&healthy));

    let pid = Pid::from_raw(server.id().cast_signed()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    let output = server.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let log = String::from_utf8_lossy(&output.stderr);
    let line = log.lines().find(|line| line.contains("/api/me/")).expect("each request is logged");
    let line: Value = serde_json::from_str(line).expect("the log is JSON when it is not written to a terminal");
    assert_eq!((&line["status"], &line["method"], &line["route"]), (&401.into(), &"GET".into(), &"/api/me/".into()));
    assert!(!log.contains("sec.re.t") && !log.contains("hidden"), "{log}");
    assert_eq!(run(command(&probe), "").status.code(), Some(1));
}

#[tokio::test]
async fn healthcheck_succeeds_while_clients_hold_all_connections() {
    let app = TestApp::spawn().await;
    let server = Process::serve(&app, &["--max-connections", "4"]);
    let held: Vec<_> = (0..4).map(|_| TcpStream::connect(server.address).unwrap()).collect();
    let rejection = TestClient::new(server.address).raw(b"").await;
    assert!(rejection.starts_with("HTTP/1.1 503 "), "no connection is left: {rejection}");
    let mut healthcheck = command(&["healthcheck"]);
    healthcheck.env("ADMIN_ADDR", server.admin_address.to_string()).env("LISTEN_ADDR", server.address.to_string());
    let healthy = run(healthcheck, "");
    assert_eq!(healthy.status.code(), Some(0), "{}", output_text(&healthy));
    drop(held);
}

#[tokio::test]
async fn large_exports_and_lists_use_bounded_memory() {
    let app = TestApp::spawn().await;
    let token = app.create_user("ann").await.token().to_owned();
    assert_eq!(run_on(&app, &["seed", "--products", "150000"], "").status.code(), Some(0));
    // the list of 33 MB exceeds the size of a cache entry, so it is kept compressed; with its JSON, it would take more
    let server = Process::serve(&app, &["--cache-entry-bytes", "1000000"]);
    let user = TestClient::new(server.address).with_token(&token);
    assert_eq!(user.get("/api/me/").await.status, 200);
    for path in ["/api/products/", "/api/products/export/"] {
        server.reset_peak_memory();
        let before = server.memory_kib("VmRSS");
        let response = user.get(path).await;
        assert!(response.status == 200 && response.body.len() > 5_000_000, "{path}: {}", response.body.len());
        let more = server.memory_kib("VmHWM") - before;
        assert!(more < 80 * 1024, "{path}: {more} KiB more than before");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn resumed_process_revalidates_before_serving_stale() {
    let app = TestApp::spawn().await;
    app.seed_products(3).await;
    let token = app.create_user("ann").await.token().to_owned();
    let server = Process::serve(&app, &[]);
    let user = TestClient::new(server.address).with_token(&token);
    let stop = Arc::new(AtomicBool::new(false));
    let reads: [Arc<AtomicUsize>; 8] = Default::default();
    let readers: Vec<_> = reads
        .iter()
        .map(|reads| {
            let (user, stop, reads) = (user.clone(), Arc::clone(&stop), Arc::clone(reads));
            tokio::spawn(async move {
                while !stop.load(SeqCst) {
                    let response = user.get("/api/products/").await;
                    assert_eq!(response.status, 200, "{}", response.text());
                    let cache_status = response.header("cache-status");
                    assert!(!cache_status.ends_with("detail=stale"), "{cache_status}");
                    reads.fetch_add(1, SeqCst);
                }
            })
        })
        .collect();
    let each_has_read_again = async || {
        let before: Vec<_> = reads.iter().map(|reads| reads.load(SeqCst)).collect();
        wait_until("each reader has read ten times", async || {
            reads.iter().zip(&before).all(|(reads, before)| reads.load(SeqCst) > before + 10)
        })
        .await;
    };
    // shorter and longer than the time in which a version read must succeed
    for pause in [500, 2050, 3000] {
        each_has_read_again().await;
        server.signal(Signal::STOP);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        app.execute("update products set name = $1", &[&format!("during {pause}")]).await;
        server.signal(Signal::CONT);
        let list = user.get("/api/products/").await;
        assert!(list.text().contains(&format!("during {pause}")), "{}", list.text());
    }
    each_has_read_again().await;
    stop.store(true, SeqCst);
    for reader in readers {
        reader.await.unwrap();
    }
}
