//! All open connections of a listener: their limits, and the reaper that enforces their time limits.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use super::{
    connection::{Clock, ConnectionState, ConnectionTimeouts},
    forwarded::TrustedProxies,
    request_budget::RequestBudget,
};
use crate::{network::ClientNetwork, sync::lock};

/// Interval between two runs of the reaper, and so the precision of every time limit.
const REAP_INTERVAL: Duration = Duration::from_millis(250);

/// The limits of a listener.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionLimits {
    /// Connections open at the same time.
    pub(crate) max_connections: usize,
    /// Connections of one client network. Trusted proxies are exempt: they carry the connections of many clients.
    pub(crate) max_network_connections: usize,
    pub(crate) trusted_proxies: TrustedProxies,
    pub(crate) timeouts: ConnectionTimeouts,
}

/// All open connections of a listener.
#[derive(Debug)]
pub(crate) struct Connections {
    clock: Clock,
    limits: ConnectionLimits,
    budget: Arc<RequestBudget>,
    open: Mutex<OpenStates>,
    next_id: AtomicU64,
    draining: AtomicBool,
    stopping: AtomicBool,
}

#[derive(Debug, Default)]
struct OpenStates {
    by_id: HashMap<u64, Arc<ConnectionState>>,
    /// Number of connections by network.
    by_network: HashMap<ClientNetwork, usize>,
}

impl Connections {
    pub(crate) fn new(limits: ConnectionLimits, budget: Arc<RequestBudget>) -> Self {
        Self {
            clock: Clock::default(),
            limits,
            budget,
            open: Mutex::default(),
            next_id: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, OpenStates> {
        lock(&self.open)
    }

    /// From now on every response closes its connection.
    pub(crate) fn start_draining(&self) {
        self.draining.store(true, Relaxed);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// From now on every connection closes as soon as no request is running on it.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Relaxed);
        self.lock().by_id.values().for_each(|state| state.wake());
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Relaxed)
    }

    /// Returns the number of open connections.
    pub(crate) fn len(&self) -> usize {
        self.lock().by_id.len()
    }

    /// Returns the number of parked connections.
    pub(crate) fn parked(&self) -> usize {
        self.lock().by_id.values().filter(|state| state.should_park()).count()
    }

    /// Registers a new connection until the returned value is dropped. Returns `None` if the limit of all connections or
    /// that of the peer's network is reached.
    pub(crate) fn register(self: &Arc<Self>, peer: IpAddr) -> Option<OpenConnection> {
        let limits = &self.limits;
        let network = (!limits.trusted_proxies.contains(&peer)).then(|| ClientNetwork::from(peer));
        let mut open = self.lock();
        if open.by_id.len() >= limits.max_connections {
            return None;
        }
        if let Some(network) = network {
            let count = open.by_network.entry(network).or_default();
            if *count >= limits.max_network_connections {
                return None;
            }
            *count += 1;
        }
        let id = self.next_id.fetch_add(1, Relaxed);
        let state = Arc::new(ConnectionState::new(Arc::clone(&self.clock), Arc::clone(&self.budget), network));
        open.by_id.insert(id, Arc::clone(&state));
        let number = open.by_id.len();
        drop(open);
        Some(OpenConnection { id, number, state, connections: Arc::clone(self) })
    }

    fn unregister(&self, id: u64) {
        let mut open = self.lock();
        let Some(network) = open.by_id.remove(&id).and_then(|state| state.network()) else { return };
        if let Some(count) = open.by_network.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                open.by_network.remove(&network);
            }
        }
    }

    /// Advances the clock, and wakes the connections that exceed a time limit or are due to be parked. Never returns.
    pub(crate) async fn reap_timed_out(&self) {
        let started = Instant::now();
        let mut ticks = tokio::time::interval(REAP_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let now = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX >> 2);
            self.clock.store(now, Relaxed);
            for state in self.lock().by_id.values() {
                state.reap(&self.limits.timeouts, now);
            }
        }
    }
}

/// A registered connection.
#[derive(Debug)]
pub(crate) struct OpenConnection {
    id: u64,
    /// The number of open connections at its registration, this one included.
    pub(super) number: usize,
    pub(crate) state: Arc<ConnectionState>,
    pub(crate) connections: Arc<Connections>,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.connections.unregister(self.id);
    }
}
