//! Readers of the list of all products that send as many requests as possible: what costs time in [`super::readers`] is
//! done once per version.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    model::{LowerBound, Model},
    observation::Observation,
};

/// Of this number of requests one is not conditional.
const FULL_REQUEST_EVERY: u64 = 4;
const RECONNECT_PAUSE: Duration = Duration::from_millis(5);

/// The last list.
struct Known {
    etag: String,
    body: Vec<u8>,
    observation: Arc<Observation>,
    /// The epoch of the lower bound that it was checked against.
    checked_at: u64,
}

/// A response with the parts of it that matter here.
struct Response<'a> {
    status: &'a str,
    etag: &'a str,
    is_stale: bool,
    body: &'a [u8],
}

/// Sends requests to an instance on one connection until `stop` is set.
pub async fn run_fast_reader(model: Arc<Model>, address: SocketAddr, token: String, stop: Arc<AtomicBool>) {
    let (mut connection, mut buffer, mut known, mut count) = (None, Vec::new(), None, 0_u64);
    let (mut epoch, mut lower_bound) = (model.epoch(), model.lower_bound());
    while !stop.load(Relaxed) {
        count += 1;
        let etag = known.as_ref().filter(|_| count % FULL_REQUEST_EVERY > 0).map(|known: &Known| known.etag.as_str());
        let request = request(&token, etag);
        // read before the values: they are not older
        let now = model.epoch();
        if now != epoch {
            (epoch, lower_bound) = (now, model.lower_bound());
        }
        if let Some(response) = exchange(&mut connection, address, request.as_bytes(), &mut buffer).await {
            check(&model, &response, &mut known, (epoch, &lower_bound));
        } else {
            connection = None;
            model.counters.disconnected.fetch_add(1, Relaxed);
            tokio::time::sleep(RECONNECT_PAUSE).await;
        }
    }
}

fn request(token: &str, etag: Option<&str>) -> String {
    let condition = etag.map(|etag| format!("if-none-match: {etag}\r\n")).unwrap_or_default();
    format!("GET /api/products/ HTTP/1.1\r\nhost: shop.test\r\nauthorization: Bearer {token}\r\n{condition}\r\n")
}

/// Sends a request and reads the response. Returns `None` when the connection breaks.
async fn exchange<'a>(
    connection: &mut Option<TcpStream>,
    address: SocketAddr,
    request: &[u8],
    buffer: &'a mut Vec<u8>,
) -> Option<Response<'a>> {
    if connection.is_none() {
        let socket = TcpStream::connect(address).await.ok()?;
        socket.set_nodelay(true).ok()?;
        *connection = Some(socket);
    }
    let socket = connection.as_mut()?;
    socket.write_all(request).await.ok()?;
    buffer.clear();
    let end_of_head = loop {
        if let Some(end) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break end + 4;
        }
        read_some(socket, buffer).await?;
    };
    let head = std::str::from_utf8(&buffer[..end_of_head]).expect("a head in ASCII");
    let body_bytes: usize = header(head, "content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let body_bytes = if head.starts_with("HTTP/1.1 304") { 0 } else { body_bytes };
    assert!(header(head, "transfer-encoding").is_none(), "a list without a length: {head}");
    let closes = header(head, "connection") == Some("close");
    while buffer.len() < end_of_head + body_bytes {
        read_some(socket, buffer).await?;
    }
    if closes {
        *connection = None;
    }
    let (head, body) = buffer.split_at(end_of_head);
    let head = std::str::from_utf8(head).expect("a head in ASCII");
    Some(Response {
        status: head.get(9..12)?,
        etag: header(head, "etag").unwrap_or_default(),
        is_stale: header(head, "cache-status").is_some_and(|value| value.ends_with("detail=stale")),
        body,
    })
}

async fn read_some(socket: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    buffer.reserve(16 * 1024);
    let read = socket.read_buf(buffer).await.ok()?;
    (read > 0).then_some(())
}

/// Returns the value of a header by its name in lower case.
fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.split("\r\n").find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

fn check(model: &Model, response: &Response<'_>, known: &mut Option<Known>, (epoch, lower_bound): (u64, &LowerBound)) {
    model.counters.reads.fetch_add(1, Relaxed);
    let is_known = match (response.status, &*known) {
        ("304", Some(known)) => known.etag == response.etag,
        ("200", Some(known)) => known.etag == response.etag && known.body == response.body,
        _ => false,
    };
    match response.status {
        "200" if !is_known => {
            let parse = |body: &[u8]| Observation::from_json(body);
            let Some(observation) = model.check_etag(response.etag, response.body, parse) else { return };
            // not checked against any lower bound yet
            let (etag, body) = (response.etag.to_owned(), response.body.to_owned());
            *known = Some(Known { etag, body, observation, checked_at: u64::MAX });
        }
        "200" => {}
        "304" if is_known => {
            model.counters.not_modified.fetch_add(1, Relaxed);
        }
        "503" => {
            model.counters.unavailable.fetch_add(1, Relaxed);
            return;
        }
        status => {
            model.report_violation(format!("{status} {}", String::from_utf8_lossy(response.body)));
            return;
        }
    }
    let Some(known) = known else { return };
    if response.is_stale {
        model.counters.labelled_stale.fetch_add(1, Relaxed);
        // it may be old, but must have been written
        model.check(&known.observation, &LowerBound::none(), true);
    } else if known.checked_at != epoch {
        model.check(&known.observation, lower_bound, true);
        known.checked_at = epoch;
    }
}
