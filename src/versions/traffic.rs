//! The rate of the requests that wait for version reads.

use std::time::Duration;

/// This many requests must have arrived within the duration of a lease.
const MIN_REQUESTS: u32 = 2;

/// Counts requests in windows of the duration of a lease.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    window_began: Duration,
    in_window: u32,
    in_window_before: u32,
}

impl Traffic {
    /// Counts a request that arrives now.
    pub(super) fn record(&mut self, now: Duration, window: Duration) {
        let elapsed = now.saturating_sub(self.window_began);
        if elapsed >= window {
            self.in_window_before = if elapsed < window * 2 { self.in_window } else { 0 };
            self.in_window = 0;
            self.window_began = now;
        }
        self.in_window += 1;
    }

    /// Returns whether requests arrive often enough that a lease saves version reads.
    pub(super) fn is_steady(&self) -> bool {
        self.in_window.max(self.in_window_before) >= MIN_REQUESTS
    }
}
