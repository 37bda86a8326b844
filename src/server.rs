//! A running server: both listeners, their state, and the shutdown.

use std::{future::pending, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use hyper::Method;
use tokio::{sync::watch, task::JoinHandle};
use tracing::{info, warn};

use crate::{
    app::App,
    config::Config,
    http::{
        connections::{ConnectionLimits, Connections},
        dispatch::{Dispatch, DispatchSettings, NoopObserver, RequestObserver},
        listener::{listen, max_kernel_bytes},
        request_budget::RequestBudget,
        router::{QueryParams, ResponseFuture, Route, Router},
        serve::serve,
    },
    ops::{logs::AccessLog, metrics::Metrics},
    routes::{self, Timeouts},
};

/// A client network holds at most `1 / NETWORK_SHARE_DIVISOR` of the connections.
const NETWORK_SHARE_DIVISOR: usize = 2;
/// Connections to `ADMIN_ADDR`. They do not count for `MAX_CONNECTIONS`, so probes succeed during a connection flood.
const ADMIN_MAX_CONNECTIONS: usize = 256;

pub struct Server {
    pub address: SocketAddr,
    pub admin_address: SocketAddr,
    pub app: Arc<App>,
    metrics: Arc<Metrics>,
    stop: watch::Sender<bool>,
    listener: JoinHandle<bool>,
    admin_listener: JoinHandle<bool>,
    pruner: JoinHandle<()>,
}

impl Server {
    /// Starts both listeners. While the database is unavailable, requests that need it get a 503.
    pub async fn start(config: Config, access: Option<AccessLog>) -> anyhow::Result<Self> {
        let listener =
            listen(config.http.listen_addr).with_context(|| format!("LISTEN_ADDR {}", config.http.listen_addr))?;
        let admin_listener =
            listen(config.http.admin_addr).with_context(|| format!("ADMIN_ADDR {}", config.http.admin_addr))?;
        let (address, admin_address) = (listener.local_addr()?, admin_listener.local_addr()?);
        let (limits, dispatch_settings) = (config.http.server, config.http.dispatch.clone());

        let app = App::new(config).await?;
        let timeouts = Timeouts { request: app.config.http.request_timeout, transfer: app.config.files.export_timeout };
        let mut table = routes::table(timeouts);
        if app.config.http.admin_page {
            table.extend(routes::admin_page(timeouts));
        }
        let labels: Vec<_> = table.iter().map(|route| (route.method.to_string(), route.path)).collect();
        let budget = RequestBudget::new(limits.request_budget_bytes);
        let connection_limits = ConnectionLimits {
            max_connections: limits.max_connections,
            max_network_connections: limits.max_connections.div_ceil(NETWORK_SHARE_DIVISOR),
            trusted_proxies: app.config.http.trusted_proxies.clone(),
            timeouts: limits.timeouts,
        };
        let admin_limits = ConnectionLimits {
            max_connections: ADMIN_MAX_CONNECTIONS,
            max_network_connections: ADMIN_MAX_CONNECTIONS,
            ..connection_limits.clone()
        };
        info!(
            connections = limits.max_connections,
            unfinished_requests_mib = limits.request_budget_bytes >> 20,
            socket_buffers_mib = max_kernel_bytes(limits.max_connections) >> 20,
            "limits of connections"
        );
        let connections = Arc::new(Connections::new(connection_limits, Arc::clone(&budget)));
        let metrics = Arc::new(Metrics::new(&labels, &app, &connections, access));

        let (stop, mut stopped) = watch::channel(false);
        let stop_signal = async move {
            let _ = stopped.wait_for(|stop| *stop).await;
        };
        let observer = Arc::clone(&metrics) as Arc<dyn RequestObserver>;
        let admin_settings = DispatchSettings { allowed_origins: None, public_url: None, ..dispatch_settings.clone() };
        let (dispatch, writes) = Dispatch::new(Arc::clone(&app), Router::new(table), dispatch_settings, observer);
        let listener = tokio::spawn(serve(listener, dispatch, writes, connections, limits, stop_signal));

        let mut admin_table = routes::health(timeouts);
        admin_table.push(metrics_route(Arc::clone(&metrics), timeouts.request));
        let (dispatch, writes) =
            Dispatch::new(Arc::clone(&app), Router::new(admin_table), admin_settings, Arc::new(NoopObserver));
        let connections = Arc::new(Connections::new(admin_limits, budget));
        // without a stop signal: health and metrics stay available until the last client is served
        let admin_listener = tokio::spawn(serve(admin_listener, dispatch, writes, connections, limits, pending()));

        let pruner = tokio::spawn({
            let app = Arc::clone(&app);
            async move { app.run_pruner().await }
        });
        Ok(Self { address, admin_address, app, metrics, stop, listener, admin_listener, pruner })
    }

    /// Stops accepting connections, waits for running requests, and returns whether all of them finished in time.
    pub async fn stop(self) -> bool {
        self.app.begin_shutdown();
        let _ = self.stop.send(true);
        let drained = self.listener.await.unwrap_or(false);
        self.admin_listener.abort();
        self.pruner.abort();
        self.app.database.close();
        if let Some(replica) = &self.app.replica {
            replica.close();
        }
        self.metrics.close();
        if drained {
            info!("stopped");
        } else {
            warn!("stopped; requests that ran longer than DRAIN_TIMEOUT were aborted");
        }
        drained
    }
}

fn metrics_route(metrics: Arc<Metrics>, timeout: Duration) -> Route<App> {
    let endpoint = move |_, _| {
        let metrics = Arc::clone(&metrics);
        Box::pin(async move { metrics.encode() }) as ResponseFuture
    };
    Route {
        method: Method::GET,
        path: "/metrics",
        access: "anyone",
        query: QueryParams::Ignored,
        timeout,
        endpoint: Box::new(endpoint),
    }
}
