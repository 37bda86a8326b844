//! A budget for the bytes of unfinished requests: heads, and bodies in memory.
//!
//! A client that never finishes its requests could otherwise fill a buffer on each of its connections. The budget limits
//! the bytes of all connections together, and the share of each client network.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use crate::{network::ClientNetwork, sync::lock};

/// The first bytes of a request are not counted, so that usual requests cost nothing. At 8,192 connections they take at
/// most 32 MiB.
pub(crate) const UNCOUNTED_BYTES: usize = 4 * 1024;
/// A network may hold at most `1 / NETWORK_SHARE_DIVISOR` of the budget.
const NETWORK_SHARE_DIVISOR: usize = 2;

/// The budget of a process.
#[derive(Debug)]
pub(crate) struct RequestBudget {
    max_bytes: usize,
    usage: Mutex<Usage>,
}

#[derive(Debug, Default)]
struct Usage {
    bytes: usize,
    networks: HashMap<ClientNetwork, usize>,
}

impl RequestBudget {
    /// Returns a budget of `max_bytes`.
    pub(crate) fn new(max_bytes: usize) -> Arc<Self> {
        Arc::new(Self { max_bytes, usage: Mutex::default() })
    }

    /// Returns an empty reservation. Without a network, only the total limits it.
    pub(crate) fn reservation(self: &Arc<Self>, network: Option<ClientNetwork>) -> RequestReservation {
        RequestReservation { budget: Arc::clone(self), network, bytes: 0 }
    }

    /// Returns the bytes that are reserved now.
    #[cfg(test)]
    fn reserved(&self) -> usize {
        lock(&self.usage).bytes
    }

    /// Replaces `old` reserved bytes by `new` ones. Returns `false`, and changes nothing, if a limit would be exceeded.
    fn replace(&self, network: Option<ClientNetwork>, old: usize, new: usize) -> bool {
        let mut usage = lock(&self.usage);
        let total = usage.bytes - old + new;
        if new > old && total > self.max_bytes {
            return false;
        }
        if let Some(network) = network {
            let reserved = usage.networks.entry(network).or_default();
            let share = *reserved - old + new;
            if new > old && share > self.max_bytes / NETWORK_SHARE_DIVISOR {
                return false;
            }
            *reserved = share;
            if share == 0 {
                usage.networks.remove(&network);
            }
        }
        usage.bytes = total;
        true
    }
}

/// Bytes reserved for a request; they are released when this is dropped.
#[derive(Debug)]
pub(crate) struct RequestReservation {
    budget: Arc<RequestBudget>,
    network: Option<ClientNetwork>,
    bytes: usize,
}

impl RequestReservation {
    /// Reserves `bytes` in all, of which the first [`UNCOUNTED_BYTES`] are not counted. Returns `false`, and keeps the
    /// present reservation, if the budget is exhausted.
    pub(crate) fn resize(&mut self, bytes: usize) -> bool {
        let counted = bytes.saturating_sub(UNCOUNTED_BYTES);
        if counted == self.bytes {
            return true;
        }
        let fits = self.budget.replace(self.network, self.bytes, counted);
        if fits {
            self.bytes = counted;
        }
        fits
    }
}

impl Drop for RequestReservation {
    fn drop(&mut self) {
        self.resize(0);
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn total_and_network_share_are_limited() {
        let network = |text: &str| Some(ClientNetwork::from(text.parse::<IpAddr>().unwrap()));
        let budget = RequestBudget::new(100_000);
        let mut first = budget.reservation(network("192.0.2.1"));
        assert!(first.resize(UNCOUNTED_BYTES) && budget.reserved() == 0, "small requests are not counted");
        assert!(first.resize(UNCOUNTED_BYTES + 50_000));
        assert!(!budget.reservation(network("192.0.2.1")).resize(UNCOUNTED_BYTES + 1), "the share is exhausted");
        let mut second = budget.reservation(network("192.0.2.2"));
        assert!(second.resize(UNCOUNTED_BYTES + 40_000));
        assert!(!second.resize(UNCOUNTED_BYTES + 50_001), "the total is exhausted");
        assert_eq!(budget.reserved(), 90_000, "a rejected change leaves the reservation");
        assert!(!budget.reservation(None).resize(UNCOUNTED_BYTES + 10_001), "the total limits proxies too");
        drop((first, second));
        assert_eq!(budget.reserved(), 0);
        assert!(lock(&budget.usage).networks.is_empty(), "no network is kept");
        assert!(budget.reservation(None).resize(UNCOUNTED_BYTES + 100_000), "a proxy has no share");
    }
}
