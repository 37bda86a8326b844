//! A running server: both listeners, the state behind them, and how it stops.

use std::{future::pending, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use hyper::Method;
use tokio::{sync::watch, task::JoinHandle};
use tracing::{info, warn};

use crate::{
    app::App,
    config::Config,
    http::{
        connection::Connections,
        dispatch::{Dispatch, NoopObserver, RequestObserver},
        router::{QueryParams, ResponseFuture, Route, Router},
        serve::{listen, serve},
    },
    ops::{logs::AccessLog, metrics::Metrics},
    routes::{self, Timeouts},
};

/// A server that answers.
pub struct Server {
    /// Where clients are served.
    pub address: SocketAddr,
    /// Where operators are served.
    pub admin_address: SocketAddr,
    /// The state behind both.
    pub app: Arc<App>,
    metrics: Arc<Metrics>,
    stop: watch::Sender<bool>,
    clients: JoinHandle<bool>,
    operators: JoinHandle<bool>,
    pruning: JoinHandle<()>,
}

impl Server {
    /// Listens and serves. The database may still be away: requests that need it are then answered 503.
    pub async fn start(config: Config, access: Option<AccessLog>) -> anyhow::Result<Self> {
        let listener = listen(config.listen_addr).with_context(|| format!("LISTEN_ADDR {}", config.listen_addr))?;
        let admin_listener = listen(config.admin_addr).with_context(|| format!("ADMIN_ADDR {}", config.admin_addr))?;
        let (address, admin_address) = (listener.local_addr()?, admin_listener.local_addr()?);
        let (limits, body) = (config.server, config.body);

        let app = App::new(config).await?;
        let timeouts = Timeouts { request: app.config.request_timeout, transfer: app.config.export_timeout };
        let table = routes::table(timeouts);
        let labels: Vec<_> = table.iter().map(|route| (route.method.to_string(), route.path)).collect();
        let connections = Arc::new(Connections::new(limits.timeouts));
        let metrics = Arc::new(Metrics::new(&labels, &app, &connections, access));

        let (stop, stopped) = watch::channel(false);
        let wait = |mut stopped: watch::Receiver<bool>| async move {
            let _ = stopped.wait_for(|stop| *stop).await;
        };
        let observer = Arc::clone(&metrics) as Arc<dyn RequestObserver>;
        let (dispatch, writes) = Dispatch::new(Arc::clone(&app), Router::new(table), body, observer);
        let clients = tokio::spawn(serve(listener, dispatch, writes, Arc::clone(&connections), limits, wait(stopped)));

        let mut operations = routes::health(timeouts);
        operations.push(metrics_route(Arc::clone(&metrics), timeouts.request));
        let (dispatch, writes) = Dispatch::new(Arc::clone(&app), Router::new(operations), body, Arc::new(NoopObserver));
        let connections = Arc::new(Connections::new(limits.timeouts));
        // told how it goes until the last client has its answer
        let operators = tokio::spawn(serve(admin_listener, dispatch, writes, connections, limits, pending()));

        let pruning = tokio::spawn({
            let app = Arc::clone(&app);
            async move { app.prune_for_ever().await }
        });
        Ok(Self { address, admin_address, app, metrics, stop, clients, operators, pruning })
    }

    /// Stops accepting, finishes what runs within its time, and tells whether all of it came to its end.
    pub async fn stop(self) -> bool {
        self.app.stop();
        let _ = self.stop.send(true);
        let drained = self.clients.await.unwrap_or(false);
        self.operators.abort();
        self.pruning.abort();
        self.app.database.close();
        if let Some(replica) = &self.app.replica {
            replica.close();
        }
        self.metrics.close();
        if drained {
            info!("stopped; everything that ran came to its end");
        } else {
            warn!("stopped; what still ran after DRAIN_TIMEOUT was cut off");
        }
        drained
    }
}

fn metrics_route(metrics: Arc<Metrics>, deadline: Duration) -> Route<App> {
    let endpoint = move |_, _| {
        let metrics = Arc::clone(&metrics);
        Box::pin(async move { metrics.encode() }) as ResponseFuture
    };
    Route {
        method: Method::GET,
        path: "/metrics",
        access: "anyone",
        query: QueryParams::Ignored,
        deadline,
        endpoint: Box::new(endpoint),
    }
}
