//! What HTTP clients rely on everywhere: words, headers, bounds.

use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::harness::{Plan, Shop};

#[tokio::test]
async fn every_answer_carries_the_security_headers_and_an_id() {
    let shop = Shop::open().await;
    let user = shop.user("ann").await;
    for (caller, path) in [
        (&user, "/api/products/"),
        (&user, "/api/me/"),
        (&user, "/nowhere"),
        (&shop.anyone(), "/api/products/"),
        (&shop.anyone(), "/healthz"),
    ] {
        let answer = caller.get(path).await;
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("x-frame-options"), "DENY", "{path}");
        assert_eq!(answer.header("referrer-policy"), "same-origin", "{path}");
        assert_eq!(answer.header("x-request-id").len(), 16, "{path}");
        assert!(answer.header("content-type").starts_with("application/json"), "{path}");
    }
}

#[tokio::test]
async fn a_sane_request_id_is_kept_and_another_is_replaced() {
    let shop = Shop::open().await;
    let anyone = shop.anyone();
    let kept = anyone.with("x-request-id", "Trace-1.2:3_4").get("/healthz").await;
    assert_eq!(kept.header("x-request-id"), "Trace-1.2:3_4");
    for insane in ["", "with space", "quote\"", &"x".repeat(129)] {
        let answer = anyone.with("x-request-id", insane).get("/healthz").await;
        assert_ne!(answer.header("x-request-id"), insane);
        assert_eq!(answer.header("x-request-id").len(), 16);
    }
}

#[tokio::test]
async fn unknown_paths_and_wrong_methods_are_told_before_credentials() {
    let shop = Shop::open().await;
    let anyone = shop.anyone();
    for path in [
        "//",
        "/api",
        "/api/product/",
        "/api/products/x/",
        "/api/products/1/2/",
        "/api//products/",
        "/api/products/%31/",
    ] {
        assert_eq!(anyone.get(path).await.told(), (404, json!({"detail": "Not found."})), "{path}");
    }
    let wrong = anyone.delete("/api/products/").await;
    assert_eq!(wrong.told(), (405, json!({"detail": "Method \"DELETE\" not allowed."})));
    assert_eq!(wrong.header("allow"), "GET, POST, HEAD, OPTIONS");
    let wrong = anyone.get("/api/login/").await;
    assert_eq!((wrong.status.as_u16(), wrong.header("allow")), (405, "POST, OPTIONS"));
}

#[tokio::test]
async fn options_answers_what_is_allowed() {
    let shop = Shop::open().await;
    let answer = shop.anyone().send(Method::OPTIONS, "/api/products/1/", None).await;
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("allow"), "GET, PUT, PATCH, DELETE, HEAD, OPTIONS");
    assert!(answer.body.is_empty());
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let shop = Shop::open().await;
    shop.stock(3).await;
    let user = shop.user("ann").await;
    for path in ["/api/products/", "/api/products/1/", "/api/products/export/", "/api/me/"] {
        let get = user.get(path).await;
        let head = user.send(Method::HEAD, path, None).await;
        assert_eq!(head.status, 200, "{path}");
        assert!(head.body.is_empty());
        assert_eq!(head.header("content-length"), get.body.len().to_string(), "{path}");
        assert_eq!(head.header("etag"), get.header("etag"), "{path}");
    }
}

#[tokio::test]
async fn bodies_are_read_as_rest_framework_reads_them() {
    let shop = Shop::open().await;
    let anyone = shop.anyone();
    let post = async |content_type: Option<&str>, body: &str| {
        anyone.send_bytes(Method::POST, "/api/login/", content_type, body.as_bytes().to_vec()).await.told()
    };
    let json_type = Some("application/json");
    for (body, kind) in
        [("[]", "list"), ("\"x\"", "str"), ("1", "int"), ("1.5", "float"), ("true", "bool"), ("null", "NoneType")]
    {
        let words = format!("Invalid data. Expected a dictionary, but got {kind}.");
        assert_eq!(post(json_type, body).await, (400, json!({"non_field_errors": [words]})), "{body}");
    }
    for body in ["{", "{\"a\":}", "\u{feff}{}", "{\"username\":\"\\ud800\"}", "nonsense", &"[".repeat(100_000)[..4000]]
    {
        let (status, answer) = post(json_type, body).await;
        assert_eq!(status, 400, "{body}");
        assert!(answer["detail"].as_str().unwrap().starts_with("JSON parse error - "), "{answer}");
    }
    let bytes = anyone.send_bytes(Method::POST, "/api/login/", json_type, b"{\"username\":\"\xff\"}".to_vec()).await;
    assert!(bytes.json()["detail"].as_str().unwrap().starts_with("JSON parse error - "));

    let required = json!({"username": ["This field is required."], "password": ["This field is required."]});
    assert_eq!(post(json_type, "").await, (400, required.clone()));
    assert_eq!(post(json_type, "{}").await, (400, required.clone()));
    assert_eq!(post(Some("application/x-www-form-urlencoded"), "a=b").await, (400, required.clone()));
    assert_eq!(post(Some("application/json; charset=utf-8"), "{}").await, (400, required));
    let unsupported = json!({"detail": "Unsupported media type \"application/xml\" in request."});
    assert_eq!(post(Some("application/xml"), "<a/>").await, (415, unsupported));
    assert_eq!(post(None, "{}").await, (415, json!({"detail": "Unsupported media type \"\" in request."})));
}

#[tokio::test]
async fn forms_are_for_register_and_login_only() {
    let shop = Shop::open().await;
    let staff = shop.staff("sam").await;
    let form = Some("application/x-www-form-urlencoded");
    let answer = staff.send_bytes(Method::POST, "/api/tags/", form, b"name=new".to_vec()).await;
    assert_eq!(answer.status, 415);
    let account = b"username=bob&email=bob%40example.com&password=s3cret+of+a+test".to_vec();
    let answer = shop.anyone().send_bytes(Method::POST, "/api/register/", form, account).await;
    assert_eq!(answer.told(), (201, json!({"message": "User registered successfully."})));
    shop.login("bob").await;
}

#[tokio::test]
async fn a_body_over_its_bound_is_refused() {
    let shop = Shop::open().await;
    let staff = shop.staff("sam").await;
    let too_large = (413, json!({"detail": "Request body too large."}));
    let long = |bytes: usize| json!({"name": "x".repeat(bytes)});
    assert_eq!(staff.post("/api/tags/", long(300_000)).await.told(), too_large);
    assert_eq!(shop.anyone().post("/api/login/", long(9000)).await.told(), too_large);
    assert_eq!(staff.post("/api/tags/", long(200_000)).await.status, 400, "within the bound it is looked at");

    // without a length, in chunks
    let head = format!(
        "POST /api/tags/ HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         transfer-encoding: chunked\r\n\r\n",
        staff.token()
    );
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    let answer = staff.raw((head + &chunk.repeat(8)).as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[tokio::test]
async fn a_head_over_its_bound_is_refused() {
    let shop = Shop::open().await;
    let large = shop.anyone().with("x-large", &"x".repeat(17_000)).get("/healthz").await;
    assert_eq!(large.status, 431);
    assert_eq!(shop.anyone().with("x-large", &"x".repeat(15_000)).get("/healthz").await.status, 200);
    let endless = format!("GET /healthz HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(200_000));
    let answer = shop.anyone().raw(endless.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let many: String = (0..300).map(|number| format!("x-{number}: 1\r\n")).collect();
    let answer = shop.anyone().raw(format!("GET /healthz HTTP/1.1\r\n{many}\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

/// What every answer carries, and a body that is as long as it says.
fn is_an_answer_of_ours(answer: &str, status: &str, detail: &str) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    assert_eq!(body, json!({ "detail": detail }).to_string(), "{answer}");
    let length = format!("content-length: {}", body.len());
    let id = head.lines().find_map(|line| line.strip_prefix("x-request-id: ")).expect(answer);
    assert!(id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{answer}");
    for line in [
        &length,
        "content-type: application/json",
        "x-content-type-options: nosniff",
        "x-frame-options: DENY",
        "referrer-policy: same-origin",
        "connection: close",
    ] {
        assert_eq!(head.lines().filter(|found| found == &line).count(), 1, "{line}: {answer}");
    }
}

#[tokio::test]
async fn what_is_no_request_is_answered_as_any_other() {
    let shop = Shop::open().await;
    let anyone = shop.anyone();
    let large = format!("GET /healthz HTTP/1.1\r\n{}\r\n", "x: 1\r\n".repeat(300));
    for (words, status, detail) in [
        ("GET /healthz HTTP/1.1\r\nno header\r\n\r\n", "400", "Malformed request."),
        ("\0\r\n\r\n", "400", "Malformed request."),
        ("GET /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: x\r\n\r\n", "400", "Malformed request."),
        (&large, "431", "Request header fields too large."),
    ] {
        let answer = anyone.raw(words.as_bytes()).await;
        is_an_answer_of_ours(&answer, status, detail);
        assert!(answer.contains("\r\ndate: "), "{answer}");
        // behind another one
        let answers = anyone.raw(format!("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n{words}").as_bytes()).await;
        let (first, second) = answers.split_at(answers.rfind("HTTP/1.1 ").unwrap());
        assert!(first.starts_with("HTTP/1.1 200 "), "{answers}");
        is_an_answer_of_ours(second, status, detail);
    }
    let counted = shop.metric("testshop_http_requests_total{method=\"\",route=\"unmatched\",status=\"400\"}").await;
    assert_eq!(counted, 6.0, "each is counted");
}

#[tokio::test]
async fn connections_that_dribble_rest_or_stay_silent_are_ended() {
    let plan = Plan::default().with("head-timeout", "1s").with("idle-timeout", "2s").with("body-timeout", "1s");
    let shop = plan.open().await;
    let ended_after = async |first: &[u8]| {
        let mut socket = TcpStream::connect(shop.server.address).await.unwrap();
        socket.write_all(first).await.unwrap();
        let began = Instant::now();
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(30), socket.read_to_end(&mut answer)).await.expect("an end");
        (began.elapsed(), String::from_utf8(answer).unwrap())
    };
    let (silent, dribbling, resting, body) = tokio::join!(
        ended_after(b""),
        ended_after(b"GET /healthz HT"),
        ended_after(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"),
        ended_after(
            b"POST /api/login/ HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{"
        ),
    );
    for (what, (after, answer)) in [("silent", &silent), ("dribbling", &dribbling)] {
        assert!(answer.is_empty(), "{what}: {answer}");
        assert!(*after >= Duration::from_millis(900), "{what}: {after:?}");
    }
    assert!(resting.1.starts_with("HTTP/1.1 200 ") && resting.0 >= Duration::from_millis(1900), "{resting:?}");
    assert!(body.1.starts_with("HTTP/1.1 408 "), "{body:?}");
}

#[tokio::test]
async fn a_connection_that_has_rested_answers_again() {
    const REQUEST: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    let shop = Shop::open().await;
    let answered = async |socket: &mut TcpStream| {
        let (mut answer, mut piece) = (Vec::new(), [0; 1024]);
        while !answer.ends_with(b"}") {
            let read = tokio::time::timeout(Duration::from_secs(20), socket.read(&mut piece)).await.expect("an answer");
            answer.extend_from_slice(&piece[..read.expect("a connection")]);
        }
        String::from_utf8(answer).unwrap()
    };
    // one with the beginning of its next request, which came with the first, and one without
    let mut early = TcpStream::connect(shop.server.address).await.unwrap();
    early.write_all(&[REQUEST, &REQUEST[..9]].concat()).await.unwrap();
    assert!(answered(&mut early).await.starts_with("HTTP/1.1 200 "));
    let mut plain = TcpStream::connect(shop.server.address).await.unwrap();
    for _ in 0..2 {
        plain.write_all(REQUEST).await.unwrap();
        assert!(answered(&mut plain).await.starts_with("HTTP/1.1 200 "));
        crate::harness::until("it rests", async || shop.metric("testshop_http_connections_resting").await == 1.0).await;
    }
    early.write_all(&REQUEST[9..]).await.unwrap();
    assert!(answered(&mut early).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn the_beginning_of_a_next_request_has_the_time_of_a_head() {
    let shop = Plan::default().with("head-timeout", "1s").open().await;
    let mut socket = TcpStream::connect(shop.server.address).await.unwrap();
    socket.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\nGET /hea").await.unwrap();
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(20), socket.read_to_end(&mut answer)).await;
    assert!(ended.is_ok(), "it was left open");
    assert!(answer.starts_with(b"HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_client_that_never_reads_is_ended() {
    let shop = Plan::default().with("write-timeout", "1s").open().await;
    shop.stock(50_000).await;
    let user = shop.user("ann").await;
    let mut socket = TcpStream::connect(shop.server.address).await.unwrap();
    let request = format!("GET /api/products/ HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n", user.token());
    socket.write_all(request.as_bytes()).await.unwrap();
    crate::harness::until("the list is on its way", async || {
        let mut byte = [0];
        socket.peek(&mut byte).await.is_ok_and(|read| read == 1)
    })
    .await;
    crate::harness::until("the connection is gone", async || shop.metric("testshop_http_connections").await == 0.0)
        .await;
    // nor does the kernel keep anything for it
    let mut rest = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(20), socket.read_to_end(&mut rest)).await.expect("an end");
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn who_reads_large_lists_slowly_leaves_some_to_others() {
    let shop = Plan::default().with("cache-entry-bytes", 1000).with("stream-concurrency", 4).open().await;
    shop.stock(50_000).await;
    let (ann, bob) = (shop.user("ann").await, shop.user("bob").await);
    let request = format!("GET /api/products/ HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n", ann.token());
    let mut slow = TcpStream::connect(shop.server.address).await.unwrap();
    slow.write_all(request.as_bytes()).await.unwrap();
    slow.read_exact(&mut [0; 12]).await.unwrap();
    let refused = ann.get("/api/products/").await;
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (503, "1"), "a quarter is hers");
    assert_eq!(bob.get("/api/products/").await.status, 200);
    drop(slow);
    crate::harness::until("it is her turn again", async || ann.get("/api/products/").await.status == 200).await;
}

#[tokio::test]
async fn connections_over_the_bound_hear_a_503() {
    let shop = Plan::default().with("max-connections", 2).open().await;
    let request = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut socket = TcpStream::connect(shop.server.address).await.unwrap();
        socket.write_all(request).await.unwrap();
        let mut answer = [0; 12];
        socket.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
        open.push(socket);
    }
    let answer = shop.anyone().raw(b"").await;
    assert!(answer.contains("\r\nretry-after: 1\r\n"), "{answer}");
    is_an_answer_of_ours(&answer, "503", "Service temporarily unavailable.");
    drop(open);
    crate::harness::until("there is room again", async || {
        let answer = shop.anyone().try_send(Method::GET, "/healthz", None, Vec::new()).await;
        answer.is_some_and(|answer| answer.status == 200)
    })
    .await;
}

#[tokio::test]
async fn a_request_over_its_deadline_is_a_503_and_its_write_is_whole_or_absent() {
    let shop = Plan::default().with("request-timeout", "1s").open().await;
    shop.stock(1).await;
    let staff = shop.staff("sam").await;
    shop.script("begin; select from categories where id = 1 for update").await;
    let began = Instant::now();
    let write = staff.post("/api/products/", json!({"name": "Late", "price": 1, "category_id": 1})).await;
    assert_eq!((write.status.as_u16(), write.header("retry-after")), (503, "1"));
    assert!((Duration::from_millis(700)..Duration::from_secs(5)).contains(&began.elapsed()), "{:?}", began.elapsed());
    shop.script("commit; begin; lock table products in access exclusive mode").await;
    assert_eq!(staff.get("/api/products/1/").await.status, 503);
    shop.script("commit").await;
    crate::harness::until("the late write is whole", async || {
        staff.get("/api/products/").await.text().contains("\"name\":\"Late\"")
    })
    .await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let shop = Shop::open().await;
    let request = |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\nhost: x\r\nx-request-id: id{more}\r\n\r\n");
    let last = "GET /healthz HTTP/1.1\r\nhost: x\r\nx-request-id: id3\r\nconnection: close\r\n\r\n";
    let all = request("/healthz", "1") + &request("/nowhere", "2") + last;
    let answer = shop.anyone().raw(all.as_bytes()).await;
    let ids: Vec<_> =
        answer.match_indices("x-request-id: id").map(|(place, _)| &answer[place + 16..=place + 16]).collect();
    assert_eq!(ids, ["1", "2", "3"]);
}

#[tokio::test]
async fn a_stop_finishes_what_runs_and_takes_nothing_new() {
    let shop = Plan::default().with("pbkdf2-iterations", 2_000_000).open().await;
    let address = shop.server.address;
    let anyone = shop.anyone();
    let account = json!({"username": "slow", "email": "slow@example.com", "password": "a slow password"});
    let registering = tokio::spawn(async move { anyone.post("/api/register/", account).await });
    crate::harness::until("the registration hashes", async || shop.calls("%lower(email) = lower($2)%").await > 0).await;
    let mut resting = TcpStream::connect(address).await.unwrap();
    let stopping = tokio::spawn(shop.server.stop());
    assert_eq!(registering.await.unwrap().status, 201, "what ran was finished");
    assert!(stopping.await.unwrap(), "all of it came to its end");
    let mut rest = Vec::new();
    assert_eq!(resting.read_to_end(&mut rest).await.unwrap_or(0), 0, "a resting connection was closed");
    assert!(TcpStream::connect(address).await.is_err(), "nothing new is taken");
}
