//! `GET /metrics` in the OpenMetrics text format: requests by route pattern and status, their durations, and the
//! counters of all modules.

use std::sync::{Arc, OnceLock};

use hyper::{StatusCode, header::HeaderValue};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text},
    metrics::{MetricType, counter::Counter, family::Family, gauge::ConstGauge, histogram::Histogram},
    registry::Registry,
};

use super::logs::AccessLog;
use crate::{
    app::App,
    error::{Error, Result},
    http::{
        Response,
        connections::Connections,
        dispatch::{RequestObserver, RequestRecord},
    },
};

/// Upper bounds in seconds, from a cache hit to an export.
const BUCKETS: [f64; 15] =
    [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
/// The statuses that routes return; any other is counted as the last.
const STATUSES: [u16; 22] =
    [200, 201, 204, 304, 400, 401, 403, 404, 405, 408, 409, 410, 412, 413, 415, 422, 429, 431, 500, 501, 503, 0];
/// The route of a request that matches no route.
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

/// The metrics of a route, looked up once.
struct RouteMetrics {
    labels: RouteLabels,
    /// Successful probes are not logged: at several per second they would outnumber all other lines.
    is_probe: bool,
    /// Counters by index in [`STATUSES`].
    statuses: [OnceLock<Counter>; STATUSES.len()],
    duration: Histogram,
}

pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Labels, Counter>,
    routes: Vec<RouteMetrics>,
    unmatched: RouteMetrics,
    access_log: Option<AccessLog>,
}

impl Metrics {
    /// Creates the metrics of the routes, given by method and path, and registers the counters of all modules.
    pub(crate) fn new(
        routes: &[(String, &'static str)],
        app: &Arc<App>,
        connections: &Arc<Connections>,
        access_log: Option<AccessLog>,
    ) -> Self {
        let requests = Family::<Labels, Counter>::default();
        let durations = Family::<RouteLabels, Histogram>::new_with_constructor(|| Histogram::new(BUCKETS));
        let route_metrics = |method: &str, route: &str| {
            let labels = RouteLabels { method: method.to_owned(), route: route.to_owned() };
            let duration = durations.get_or_create(&labels).clone();
            RouteMetrics {
                is_probe: ["/healthz", "/readyz"].contains(&route),
                labels,
                statuses: Default::default(),
                duration,
            }
        };
        let routes = routes.iter().map(|(method, path)| route_metrics(method, path)).collect();
        let unmatched = route_metrics("", UNMATCHED);
        let mut registry = Registry::with_prefix("testshop");
        registry.register("http_requests", "Requests by route and status", requests.clone());
        registry.register(
            "http_request_duration_seconds",
            "Time from the end of the request head to the start of the response",
            durations,
        );
        register_counters(&mut registry, app, access_log.as_ref());
        registry.register_collector(Box::new(GaugeCollector {
            app: Arc::clone(app),
            connections: Arc::clone(connections),
        }));
        Self { registry, requests, routes, unmatched, access_log }
    }

    /// Returns the metrics as text.
    pub(crate) fn encode(&self) -> Result<Response> {
        let mut text = String::new();
        text::encode(&mut text, &self.registry).map_err(Error::internal)?;
        let mut response = Response::new(text.into_bytes().into());
        let content_type =
            const { HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8") };
        response.headers_mut().insert(hyper::header::CONTENT_TYPE, content_type);
        Ok(response)
    }

    /// Writes the rest of the access log.
    pub(crate) fn close(&self) {
        if let Some(access_log) = &self.access_log {
            access_log.close();
        }
    }

    fn count(&self, route: &RouteMetrics, status: StatusCode) {
        let index = STATUSES.iter().position(|known| *known == status.as_u16()).unwrap_or(STATUSES.len() - 1);
        let counter = route.statuses[index].get_or_init(|| {
            let RouteLabels { method, route } = route.labels.clone();
            self.requests.get_or_create(&Labels { method, route, status: STATUSES[index] }).clone()
        });
        counter.inc();
    }
}

fn register_counters(registry: &mut Registry, app: &App, access_log: Option<&AccessLog>) {
    registry.register("cache_hits", "Lists from the cache by layer", app.cache.counters.hits.clone());
    let mut register = |name: &str, help: &str, counter: &Counter| registry.register(name, help, counter.clone());
    let (cache, versions) = (&app.cache.counters, &app.authenticator.version_reader.counters);
    register("cache_fills", "Lists built from the database", &cache.fills);
    let about = "Fills that read only what has changed since the previous version of the list; part of cache_fills";
    register("cache_incremental_fills", about, &cache.incremental_fills);
    register("cache_compressions", "Lists compressed", &cache.compressions);
    let changes = &app.change_pages.counters;
    register("change_pages", "Pages of changes read from the database", &changes.pages);
    register("change_events", "Events sent to listeners", &changes.events);
    register("expired_sync_tokens", "Sync tokens whose changes are not known", &changes.expired_tokens);
    register("version_reads", "Version reads sent", &versions.reads);
    register("version_read_failures", "Version reads that failed", &versions.failures);
    register("leases_granted", "Leases on version reads", &versions.leases_granted);
    register("leases_refused", "Leases refused because of a recent write", &versions.leases_refused);
    register("leases_locked", "Leases refused because a writer held a commit lock", &versions.leases_locked);
    register("leases_surrendered", "Writes before which all leases were surrendered", &versions.leases_surrendered);
    register("lease_hits", "Requests that waited for no version read because of a lease", &versions.lease_hits);
    register("password_hashes", "Passwords hashed or verified", &app.password_hasher.counters.hashes);
    register("password_iterations", "PBKDF2 iterations computed", &app.password_hasher.counters.iterations);
    register(
        "password_hashes_rejected",
        "Passwords not hashed because of overload",
        &app.password_hasher.counters.rejected,
    );
    register("rejections_delayed", "Rejections delayed by the tarpit", &app.tarpit.delayed);
    register("rate_limited_requests", "Logins and registrations over a rate limit", &app.rate_limiter.rejected);
    register("refresh_token_reuses", "Refresh tokens used again", &app.refresh_token_reuse);
    register(
        "forwarded_unreadable",
        "Requests with an X-Forwarded-For entry that cannot be read",
        &app.forwarded_unreadable,
    );
    register("exports", "Export files created", &app.export_cache.created);
    if let Some(replica) = &app.replica {
        let counters = &replica.counters;
        register("replica_reads", "Large reads served by the replica", &counters.served);
        register("replica_lagging_reads", "Reads for which the replica showed another version", &counters.lagging);
        register("replica_failures", "Reads that failed on the replica", &counters.failures);
    }
    if let Some(invalid_values) = app.cache.invalid_values() {
        register("redis_invalid_values", "Values in Redis that could not be decoded", invalid_values);
    }
    if let Some(redis) = &app.redis {
        register("redis_calls", "Calls to Redis", &redis.counters.calls);
        register("redis_failures", "Calls to Redis that failed", &redis.counters.failures);
    }
    if let Some(access_log) = access_log {
        register("access_log_dropped_lines", "Access log lines dropped", &access_log.dropped);
    }
}

impl RequestObserver for Metrics {
    fn observe(&self, request: &RequestRecord<'_>) {
        let route = request.route.and_then(|row| self.routes.get(row)).unwrap_or(&self.unmatched);
        self.count(route, request.status);
        route.duration.observe(request.elapsed.as_secs_f64());
        if let Some(access_log) = &self.access_log
            && !(route.is_probe && request.status == StatusCode::OK)
        {
            access_log.record(request, &route.labels.route);
        }
        if let Some(cause) = request.error.and_then(Error::cause) {
            let (request_id, route) = (request.request_id, route.labels.route.as_str());
            if request.status == StatusCode::INTERNAL_SERVER_ERROR {
                tracing::error!(request_id, route, %cause, "request failed");
            } else {
                tracing::warn!(request_id, route, %cause, "request rejected");
            }
        }
    }
}

/// Collects the values that are read when the metrics are requested.
struct GaugeCollector {
    app: Arc<App>,
    connections: Arc<Connections>,
}

impl std::fmt::Debug for GaugeCollector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GaugeCollector")
    }
}

impl Collector for GaugeCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let app = &self.app;
        let (open, idle) = app.database.pool_status();
        let gauges = [
            ("http_connections", "Open client connections", self.connections.len()),
            (
                "http_connections_limit",
                "Client connections that may be open (MAX_CONNECTIONS)",
                app.config.http.server.max_connections,
            ),
            ("http_connections_parked", "Idle client connections without buffers", self.connections.parked()),
            ("db_pool_connections", "Connections in the pool", open),
            ("db_pool_idle_connections", "Idle connections in the pool", idle),
            ("password_queue_length", "Requests that wait for a hashing thread", app.password_hasher.queue_length()),
            ("change_listeners", "Requests and streams that wait for changes", app.listeners()),
            ("cache_bytes", "Bytes of lists in memory", app.cache.bytes()),
            ("response_bytes_in_flight", "Bytes of responses that clients are reading", app.response_budget.bytes()),
            (
                "memory_limit_bytes",
                "Memory that the server may use; 0 if unknown",
                app.config.memory.limit.map_or(0, |limit| usize::try_from(limit.bytes).unwrap_or(usize::MAX)),
            ),
            (
                "memory_planned_bytes",
                "Memory that the server needs when all its limits are reached",
                usize::try_from(app.config.memory.sum()).unwrap_or(usize::MAX),
            ),
            (
                "export_cache_bytes",
                "Bytes of cached export files",
                usize::try_from(app.export_cache.bytes()).unwrap_or(0),
            ),
            ("export_permits_available", "Exports that could start now", app.export_permits.available_permits()),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        Ok(())
    }
}
