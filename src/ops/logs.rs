//! Logs on standard error: coloured text on a terminal, JSON otherwise. One line per request, no secrets.
//!
//! Events are logged by `tracing`. The access log is not: at tens of thousands of lines per second it is part of the
//! hot path, so it formats lines by hand into a buffer that a thread writes.

use std::{
    io::{self, IsTerminal, Write},
    net::IpAddr,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use clap::ValueEnum;
use jiff::Timestamp;
use prometheus_client::metrics::counter::Counter;
use tracing::Level;
use tracing_subscriber::EnvFilter;

use crate::{http::dispatch::RequestRecord, sync};

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    Text,
    Json,
}

/// The target of the access log: `RUST_LOG=info,access=off` turns off the access log only.
const ACCESS: &str = "access";
/// Reserved in the buffer before a line is formatted.
const TYPICAL_LINE_BYTES: usize = 384;
/// The buffer is written when it holds this many bytes, ...
const FLUSH_BYTES: usize = 32 * 1024;
/// ... or after this time.
const FLUSH_INTERVAL: Duration = Duration::from_millis(100);
/// The limit of the buffer while writes to standard error block; further lines are counted and dropped.
const MAX_PENDING_BYTES: usize = 4 * 1024 * 1024;

/// The format and the filter of the log.
#[derive(Debug)]
pub(crate) struct LogSettings {
    format: LogFormat,
    filter: EnvFilter,
}

impl LogSettings {
    /// Parses the values of `LOG_FORMAT` and `RUST_LOG`. Returns all errors.
    pub(crate) fn parse(format: &str, filter: &str) -> Result<Self, Vec<String>> {
        let message = format!("LOG_FORMAT is \"{format}\", which is none of auto, text, json");
        let format = LogFormat::from_str(format, true).map_err(|_| message);
        // below this level the driver logs the parameters of statements, such as password hashes and email addresses;
        // db::schema compares the checksums of migrations itself
        let with_limits = |filter: EnvFilter| {
            ["tokio_postgres=info", "tokio_postgres::query=info", "refinery_core::traits::divergent=off"]
                .iter()
                .filter_map(|directive| directive.parse().ok())
                .fold(filter, EnvFilter::add_directive)
        };
        let filter =
            EnvFilter::try_new(filter).map(with_limits).map_err(|error| format!("RUST_LOG is \"{filter}\": {error}"));
        match (format, filter) {
            (Ok(format), Ok(filter)) => Ok(Self { format, filter }),
            (format, filter) => Err([format.err(), filter.err()].into_iter().flatten().collect()),
        }
    }
}

/// Starts logging. Returns the access log if the filter enables it.
pub(crate) fn start(LogSettings { format, filter }: LogSettings) -> Option<AccessLog> {
    let terminal = io::stderr().is_terminal();
    let json = format == LogFormat::Json || (format == LogFormat::Auto && !terminal);
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // a process that tests several servers keeps the subscriber of the first one
    let _ =
        if json { subscriber.json().flatten_event(true).try_init() } else { subscriber.with_ansi(terminal).try_init() };
    let is_enabled = tracing::enabled!(target: ACCESS, Level::INFO);
    is_enabled.then(|| AccessLog::start(json, terminal, io::stderr()))
}

/// The access log.
pub struct AccessLog {
    json: bool,
    colours: bool,
    buffer: Arc<Buffer>,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// Lines dropped because the buffer was full.
    pub(crate) dropped: Counter,
}

#[derive(Default)]
struct Buffer {
    pending: Mutex<Pending>,
    wake: Condvar,
}

#[derive(Default)]
struct Pending {
    bytes: Vec<u8>,
    clock: Clock,
    closed: bool,
}

impl Buffer {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        sync::lock(&self.pending)
    }
}

impl AccessLog {
    fn start(json: bool, colours: bool, mut out: impl Write + Send + 'static) -> Self {
        let buffer = Arc::<Buffer>::default();
        let writer = {
            let buffer = Arc::clone(&buffer);
            thread::Builder::new().name("access-log".to_owned()).spawn(move || flush_loop(&buffer, &mut out)).ok()
        };
        Self { json, colours, buffer, writer: Mutex::new(writer), dropped: Counter::default() }
    }

    /// Adds the line of a request.
    pub(crate) fn record(&self, request: &RequestRecord<'_>, route: &str) {
        let mut pending = self.buffer.lock();
        if pending.bytes.len() >= MAX_PENDING_BYTES {
            drop(pending);
            self.dropped.inc();
            return;
        }
        let Pending { bytes, clock, .. } = &mut *pending;
        let before = bytes.len();
        let formatted =
            if self.json { write_json(bytes, clock, request, route) } else { self.write_text(bytes, request) };
        debug_assert!(formatted.is_ok(), "writing to memory does not fail");
        // only when the limit is crossed, because each notification is a system call, even when the thread is awake
        if before < FLUSH_BYTES && bytes.len() >= FLUSH_BYTES {
            self.buffer.wake.notify_one();
        }
    }

    /// Writes the buffered lines and ends the thread. Called before the process exits.
    pub(crate) fn close(&self) {
        self.buffer.lock().closed = true;
        self.buffer.wake.notify_one();
        if let Some(writer) = sync::lock(&self.writer).take() {
            let _ = writer.join();
        }
    }

    fn write_text(&self, line: &mut Vec<u8>, request: &RequestRecord<'_>) -> io::Result<()> {
        let colour = match request.status.as_u16() {
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
            request.status.as_u16(),
            request.method,
            request.path,
            request.elapsed,
            request.request_id,
        )
    }
}

/// Formats a JSON line by hand, because it is written once per request.
fn write_json(line: &mut Vec<u8>, clock: &mut Clock, request: &RequestRecord<'_>, route: &str) -> io::Result<()> {
    line.reserve(TYPICAL_LINE_BYTES);
    line.extend_from_slice(b"{\"timestamp\":\"");
    clock.write(line);
    line.extend_from_slice(b"\",\"level\":\"INFO\",\"target\":\"access\",\"request_id\":\"");
    line.extend_from_slice(request.request_id.as_bytes());
    line.extend_from_slice(b"\",\"method\":\"");
    line.extend_from_slice(request.method.as_str().as_bytes());
    line.extend_from_slice(b"\",\"path\":");
    if request.path == route {
        // a route pattern needs no escaping
        line.push(b'"');
        line.extend_from_slice(route.as_bytes());
        line.push(b'"');
    } else {
        serde_json::to_writer(&mut *line, request.path)?;
    }
    line.extend_from_slice(b",\"route\":\"");
    line.extend_from_slice(route.as_bytes());
    line.extend_from_slice(b"\",\"status\":");
    line.extend_from_slice(request.status.as_str().as_bytes());
    line.extend_from_slice(b",\"duration_us\":");
    let microseconds = u64::try_from(request.elapsed.as_micros()).unwrap_or(u64::MAX);
    line.extend_from_slice(itoa::Buffer::new().format(microseconds).as_bytes());
    if let Some(bytes) = request.bytes {
        line.extend_from_slice(b",\"bytes\":");
        line.extend_from_slice(itoa::Buffer::new().format(bytes).as_bytes());
    }
    line.extend_from_slice(b",\"peer\":\"");
    match request.peer {
        // the standard library's formatter takes as long as the rest of the line
        IpAddr::V4(address) => {
            for (index, byte) in address.octets().into_iter().enumerate() {
                if index > 0 {
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

/// Formats timestamps. All digits but the microseconds are formatted once per second.
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

fn flush_loop(buffer: &Buffer, out: &mut impl Write) {
    let mut spare = Vec::new();
    loop {
        let mut pending = buffer.lock();
        if !pending.closed && pending.bytes.len() < FLUSH_BYTES {
            let waited = buffer.wake.wait_timeout(pending, FLUSH_INTERVAL);
            pending = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        std::mem::swap(&mut pending.bytes, &mut spare);
        let closed = pending.closed;
        drop(pending);
        // there is no other place to report that standard error is closed
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
    fn no_filter_enables_statement_parameters() {
        for directives in ["trace", "tokio_postgres=trace", "info,tokio_postgres::query=debug"] {
            let filter = LogSettings::parse("json", directives).unwrap().filter.to_string();
            assert!(
                filter.contains("tokio_postgres=info") && filter.contains("tokio_postgres::query=info"),
                "{filter}"
            );
            assert!(!filter.contains("tokio_postgres=trace") && !filter.contains("query=debug"), "{filter}");
        }
        assert_eq!(LogSettings::parse("xml", "a=b=c").unwrap_err().len(), 2);
    }
}
