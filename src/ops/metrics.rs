//! `GET /metrics` in Prometheus' text: requests by route pattern and status, their time, and what the parts count.

use std::sync::{Arc, OnceLock};

use hyper::{StatusCode, header::HeaderValue};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text},
    metrics::{counter::Counter, family::Family, gauge::ConstGauge, histogram::Histogram},
    registry::Registry,
};

use super::logs::AccessLog;
use crate::{
    app::App,
    error::{Error, Result},
    http::{
        Response,
        connection::Connections,
        dispatch::{RequestObserver, RequestRecord},
    },
};

/// Upper bounds in seconds: from a cache hit to an export.
const BUCKETS: [f64; 15] =
    [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
/// Statuses that any route gives; another one is counted as the last.
const STATUSES: [u16; 20] =
    [200, 201, 204, 304, 400, 401, 403, 404, 405, 408, 409, 412, 413, 415, 422, 429, 431, 500, 503, 0];
/// The route of a request that none fits.
const UNMATCHED: &str = "unmatched";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    method: String,
    route: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    method: String,
    route: String,
}

/// Counters of one row of the route table, found once.
struct RouteMetrics {
    labels: RouteLabels,
    /// Probes that went well, some a second, would bury all else.
    is_probe: bool,
    statuses: [OnceLock<Counter>; STATUSES.len()],
    seconds: Histogram,
}

/// Everything that is counted.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Labels, Counter>,
    rows: Vec<RouteMetrics>,
    unmatched: RouteMetrics,
    access: Option<AccessLog>,
}

impl Metrics {
    /// For a table of these methods and paths, and the parts of the shop.
    pub(crate) fn new(
        routes: &[(String, &'static str)],
        app: &Arc<App>,
        connections: &Arc<Connections>,
        access: Option<AccessLog>,
    ) -> Self {
        let requests = Family::<Labels, Counter>::default();
        let seconds = Family::<RouteLabels, Histogram>::new_with_constructor(|| Histogram::new(BUCKETS));
        let row = |method: &str, route: &str| {
            let labels = RouteLabels { method: method.to_owned(), route: route.to_owned() };
            let seconds = seconds.get_or_create(&labels).clone();
            RouteMetrics {
                is_probe: ["/healthz", "/readyz"].contains(&route),
                labels,
                statuses: Default::default(),
                seconds,
            }
        };
        let rows = routes.iter().map(|(method, path)| row(method, path)).collect();
        let unmatched = row("", UNMATCHED);
        let mut registry = Registry::with_prefix("testshop");
        registry.register("http_requests", "Requests by route and status", requests.clone());
        registry.register("http_request_seconds", "From the end of the head to the beginning of the reply", seconds);
        let counter = |registry: &mut Registry, name: &str, help: &str, counter: &Counter| {
            registry.register(name, help, counter.clone());
        };
        let (cache, freshness) = (&app.cache.counters, &app.gate.freshness.counters);
        counter(&mut registry, "cache_hits_memory", "Lists from the process's memory", &cache.memory);
        counter(&mut registry, "cache_hits_redis", "Lists from Redis", &cache.redis);
        counter(&mut registry, "cache_fills", "Lists made from the database", &cache.fills);
        counter(&mut registry, "cache_compressions", "Lists compressed", &cache.compressions);
        counter(&mut registry, "version_reads", "Version queries sent", &freshness.reads);
        counter(&mut registry, "version_read_failures", "Version queries that failed", &freshness.failures);
        counter(&mut registry, "passwords", "Passwords hashed or checked", &app.passwords.counters.done);
        counter(&mut registry, "passwords_shed", "Password requests turned away", &app.passwords.counters.shed);
        counter(&mut registry, "refusals_held", "Refusals that were held, as there were many", &app.refusals.held);
        counter(&mut registry, "throttled", "Logins and registrations throttled", &app.throttle.refused);
        counter(&mut registry, "sessions_copied", "Refresh tokens that came twice", &app.sessions_copied);
        counter(&mut registry, "exports", "Export files made", &app.files.made);
        if let Some(replica) = &app.replica {
            let counters = &replica.counters;
            counter(&mut registry, "replica_reads", "Large reads that the replica served", &counters.served);
            counter(&mut registry, "replica_behind", "Times it did not show the version asked for", &counters.behind);
            counter(&mut registry, "replica_failures", "Times it failed", &counters.failures);
        }
        if let Some(invalid) = app.cache.invalid_values() {
            counter(&mut registry, "redis_garbage", "Values in Redis that no instance wrote", invalid);
        }
        if let Some(shared) = &app.shared {
            counter(&mut registry, "redis_calls", "Calls to Redis", &shared.counters.calls);
            counter(&mut registry, "redis_failures", "Calls to Redis that failed", &shared.counters.failures);
        }
        if let Some(access) = &access {
            counter(&mut registry, "access_log_lost", "Lines that nobody took", &access.lost);
        }
        registry.register_collector(Box::new(GaugeCollector {
            app: Arc::clone(app),
            connections: Arc::clone(connections),
        }));
        Self { registry, requests, rows, unmatched, access }
    }

    /// The text.
    pub(crate) fn encode(&self) -> Result<Response> {
        let mut text = String::new();
        text::encode(&mut text, &self.registry).map_err(Error::internal)?;
        let mut reply = Response::new(text.into_bytes().into());
        let content_type =
            const { HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8") };
        reply.headers_mut().insert(hyper::header::CONTENT_TYPE, content_type);
        Ok(reply)
    }

    /// The last requests are in the log when this returns.
    pub(crate) fn close(&self) {
        if let Some(access) = &self.access {
            access.close();
        }
    }

    fn count(&self, row: &RouteMetrics, status: StatusCode) {
        let place = STATUSES.iter().position(|known| *known == status.as_u16()).unwrap_or(STATUSES.len() - 1);
        let counter = row.statuses[place].get_or_init(|| {
            let RouteLabels { method, route } = row.labels.clone();
            self.requests.get_or_create(&Labels { method, route, status: STATUSES[place] }).clone()
        });
        counter.inc();
    }
}

impl RequestObserver for Metrics {
    fn observe(&self, exchange: &RequestRecord<'_>) {
        let row = exchange.row.and_then(|row| self.rows.get(row)).unwrap_or(&self.unmatched);
        self.count(row, exchange.status);
        row.seconds.observe(exchange.elapsed.as_secs_f64());
        if let Some(access) = &self.access
            && !(row.is_probe && exchange.status == StatusCode::OK)
        {
            access.line(exchange, &row.labels.route);
        }
        if let Some(cause) = exchange.error.and_then(Error::cause) {
            let (request_id, route) = (exchange.request_id, row.labels.route.as_str());
            if exchange.status == StatusCode::INTERNAL_SERVER_ERROR {
                tracing::error!(request_id, route, %cause, "a request failed");
            } else {
                tracing::warn!(request_id, route, %cause, "a request was turned away");
            }
        }
    }
}

/// What is not counted but looked at when somebody asks.
struct GaugeCollector {
    app: Arc<App>,
    connections: Arc<Connections>,
}

impl std::fmt::Debug for GaugeCollector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Present")
    }
}

impl Collector for GaugeCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let (open, free) = self.app.database.pool_status();
        let gauges = [
            ("http_connections", "Open connections of clients", self.connections.len()),
            ("http_connections_resting", "Those of them that wait without buffers", self.connections.resting()),
            ("db_pool_connections", "Connections in the pool", open),
            ("db_pool_free", "Connections in the pool that are free", free),
            ("passwords_waiting", "Requests that wait for a hashing thread", self.app.passwords.waiting()),
            ("cache_bytes", "Bytes of lists in memory", self.app.cache.bytes()),
            ("export_bytes", "Bytes of export files kept", usize::try_from(self.app.files.bytes()).unwrap_or(0)),
            ("exports_free", "Exports that could start now", self.app.exports.free()),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(
                name,
                help,
                None,
                prometheus_client::metrics::MetricType::Gauge,
            )?)?;
        }
        Ok(())
    }
}
