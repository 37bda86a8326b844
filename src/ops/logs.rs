//! Logs on standard error: coloured on a terminal, JSON otherwise; one line a request, never a secret.
//!
//! Events go through `tracing`. The line of a request does not: at tens of thousands a second it is part of the hot
//! path, so it is formatted by hand into a buffer that a thread writes out.

use std::{
    io::{self, IsTerminal, Write},
    net::IpAddr,
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread::{self, JoinHandle},
    time::Duration,
};

use clap::ValueEnum;
use jiff::Timestamp;
use prometheus_client::metrics::counter::Counter;
use tracing::Level;
use tracing_subscriber::EnvFilter;

use crate::{http::dispatch::RequestRecord, sync};

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// The target of the lines of requests: `RUST_LOG=info,access=off` silences them and nothing else.
const ACCESS: &str = "access";
/// Room is made for so much before a line is written.
const USUAL_LINE_BYTES: usize = 384;
/// The buffer is written out when it holds so much, ...
const FLUSH_BYTES: usize = 32 * 1024;
/// ... or after this time.
const FLUSH_INTERVAL: Duration = Duration::from_millis(100);
/// While standard error takes nothing, so much is kept; lines after that are counted and lost.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// How and what to log.
#[derive(Debug)]
pub(crate) struct LogSettings {
    format: LogFormat,
    filter: EnvFilter,
}

impl LogSettings {
    /// From the words of `LOG_FORMAT` and `RUST_LOG`, or what is wrong with them.
    pub(crate) fn read(format: &str, filter: &str) -> Result<Self, Vec<String>> {
        let words = format!("LOG_FORMAT is \"{format}\", which is none of auto, text, json");
        let format = LogFormat::from_str(format, true).map_err(|_| words);
        // at more than that the driver's words hold what statements were given: hashes of passwords, addresses
        let silent = |filter: EnvFilter| {
            ["tokio_postgres=info", "tokio_postgres::query=info"]
                .iter()
                .filter_map(|words| words.parse().ok())
                .fold(filter, EnvFilter::add_directive)
        };
        let filter =
            EnvFilter::try_new(filter).map(silent).map_err(|error| format!("RUST_LOG is \"{filter}\": {error}"));
        match (format, filter) {
            (Ok(format), Ok(filter)) => Ok(Self { format, filter }),
            (format, filter) => Err([format.err(), filter.err()].into_iter().flatten().collect()),
        }
    }
}

/// Starts logging. Gives the log of requests, if the filter wants it.
pub(crate) fn start(LogSettings { format, filter }: LogSettings) -> Option<AccessLog> {
    let terminal = io::stderr().is_terminal();
    let json = format == LogFormat::Json || (format == LogFormat::Auto && !terminal);
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // a second start, in a process that tests several servers, keeps the first one's subscriber
    let _ =
        if json { subscriber.json().flatten_event(true).try_init() } else { subscriber.with_ansi(terminal).try_init() };
    let wanted = tracing::enabled!(target: ACCESS, Level::INFO);
    wanted.then(|| AccessLog::start(json, terminal, io::stderr()))
}

/// The log of requests.
pub struct AccessLog {
    json: bool,
    colours: bool,
    buffer: Arc<Buffer>,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// Lines lost because standard error took nothing.
    pub(crate) lost: Counter,
}

#[derive(Default)]
struct Buffer {
    lines: Mutex<Lines>,
    wake: Condvar,
}

#[derive(Default)]
struct Lines {
    bytes: Vec<u8>,
    clock: Clock,
    closed: bool,
}

impl Buffer {
    fn lock(&self) -> MutexGuard<'_, Lines> {
        sync::lock(&self.lines)
    }
}

impl AccessLog {
    fn start(json: bool, colours: bool, mut out: impl Write + Send + 'static) -> Self {
        let buffer = Arc::<Buffer>::default();
        let writer = {
            let buffer = Arc::clone(&buffer);
            thread::Builder::new().name("access-log".to_owned()).spawn(move || write_out(&buffer, &mut out)).ok()
        };
        Self { json, colours, buffer, writer: Mutex::new(writer), lost: Counter::default() }
    }

    /// One line.
    pub(crate) fn line(&self, exchange: &RequestRecord<'_>, route: &str) {
        let mut lines = self.buffer.lock();
        if lines.bytes.len() >= MAX_BYTES {
            drop(lines);
            self.lost.inc();
            return;
        }
        let Lines { bytes, clock, .. } = &mut *lines;
        let before = bytes.len();
        let formatted =
            if self.json { write_json(bytes, clock, exchange, route) } else { self.write_text(bytes, exchange) };
        debug_assert!(formatted.is_ok(), "memory takes every line");
        // once: each call is one of the kernel's, also while the thread is awake already and waits for the lock
        if before < FLUSH_BYTES && bytes.len() >= FLUSH_BYTES {
            self.buffer.wake.notify_one();
        }
    }

    /// Writes out what there is, and no more after that: the last word before the process ends.
    pub(crate) fn close(&self) {
        self.buffer.lock().closed = true;
        self.buffer.wake.notify_one();
        if let Some(writer) = sync::lock(&self.writer).take() {
            let _ = writer.join();
        }
    }

    fn write_text(&self, line: &mut Vec<u8>, exchange: &RequestRecord<'_>) -> io::Result<()> {
        let colour = match exchange.status.as_u16() {
            _ if !self.colours => "",
            500.. => "\x1b[31m",
            400.. => "\x1b[33m",
            _ => "\x1b[32m",
        };
        let end = if self.colours { "\x1b[0m" } else { "" };
        writeln!(
            line,
            "{:.3} {colour}{}{end} {} {} {:.1?} {}",
            Timestamp::now(),
            exchange.status.as_u16(),
            exchange.method,
            exchange.path,
            exchange.elapsed,
            exchange.request_id,
        )
    }
}

/// A line of JSON, put together by hand: it is written at the rate of requests.
fn write_json(line: &mut Vec<u8>, clock: &mut Clock, exchange: &RequestRecord<'_>, route: &str) -> io::Result<()> {
    line.reserve(USUAL_LINE_BYTES);
    line.extend_from_slice(b"{\"timestamp\":\"");
    clock.write(line);
    line.extend_from_slice(b"\",\"level\":\"INFO\",\"target\":\"access\",\"request_id\":\"");
    line.extend_from_slice(exchange.request_id.as_bytes());
    line.extend_from_slice(b"\",\"method\":\"");
    line.extend_from_slice(exchange.method.as_str().as_bytes());
    line.extend_from_slice(b"\",\"path\":");
    if exchange.path == route {
        // ours: nothing in it needs to be escaped
        line.push(b'"');
        line.extend_from_slice(route.as_bytes());
        line.push(b'"');
    } else {
        serde_json::to_writer(&mut *line, exchange.path)?;
    }
    line.extend_from_slice(b",\"route\":\"");
    line.extend_from_slice(route.as_bytes());
    line.extend_from_slice(b"\",\"status\":");
    line.extend_from_slice(exchange.status.as_str().as_bytes());
    line.extend_from_slice(b",\"duration_us\":");
    let microseconds = u64::try_from(exchange.elapsed.as_micros()).unwrap_or(u64::MAX);
    line.extend_from_slice(itoa::Buffer::new().format(microseconds).as_bytes());
    if let Some(bytes) = exchange.bytes {
        line.extend_from_slice(b",\"bytes\":");
        line.extend_from_slice(itoa::Buffer::new().format(bytes).as_bytes());
    }
    line.extend_from_slice(b",\"peer\":\"");
    match exchange.peer {
        // the formatter of the standard library takes as long as all the rest of the line
        IpAddr::V4(address) => {
            for (place, byte) in address.octets().into_iter().enumerate() {
                if place > 0 {
                    line.push(b'.');
                }
                line.extend_from_slice(itoa::Buffer::new().format(byte).as_bytes());
            }
        }
        IpAddr::V6(address) => write!(line, "{address}")?,
    }
    line.extend_from_slice(b"\"}\n");
    Ok(())
}

/// The time as text; all but the microseconds is formatted once a second.
#[derive(Default)]
struct Clock {
    second: i64,
    text: String,
}

impl Clock {
    fn write(&mut self, line: &mut Vec<u8>) {
        let now = Timestamp::now();
        if now.as_second() != self.second || self.text.is_empty() {
            self.second = now.as_second();
            self.text = format!("{now:.0}");
            self.text.pop();
        }
        line.extend_from_slice(self.text.as_bytes());
        let mut microseconds = now.subsec_microsecond();
        let mut digits = *b".000000Z";
        for digit in digits[1..7].iter_mut().rev() {
            *digit = b'0' + u8::try_from(microseconds % 10).unwrap_or(0);
            microseconds /= 10;
        }
        line.extend_from_slice(&digits);
    }
}

fn write_out(buffer: &Buffer, out: &mut impl Write) {
    let mut spare = Vec::new();
    loop {
        let mut lines = buffer.lock();
        if !lines.closed && lines.bytes.len() < FLUSH_BYTES {
            lines = buffer
                .wake
                .wait_timeout(lines, FLUSH_INTERVAL)
                .map_or_else(|gone| gone.into_inner().0, |woken| woken.0);
        }
        std::mem::swap(&mut lines.bytes, &mut spare);
        let closed = lines.closed;
        drop(lines);
        // nobody reads: nothing that could be done about it would be of use to anybody
        let _ = out.write_all(&spare);
        spare.clear();
        if closed {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_filter_lets_the_drivers_parameters_through() {
        for wanted in ["trace", "tokio_postgres=trace", "info,tokio_postgres::query=debug"] {
            let filter = LogSettings::read("json", wanted).unwrap().filter.to_string();
            assert!(
                filter.contains("tokio_postgres=info") && filter.contains("tokio_postgres::query=info"),
                "{filter}"
            );
            assert!(!filter.contains("tokio_postgres=trace") && !filter.contains("query=debug"), "{filter}");
        }
        assert_eq!(LogSettings::read("xml", "a=b=c").unwrap_err().len(), 2);
    }
}
