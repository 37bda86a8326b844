//! The result of a run.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use super::{fault_injection::Fault, leases::LeaseEffect, model::Model, samples::Sample};

pub struct Outcome {
    pub model: Arc<Model>,
    pub elapsed: Duration,
    pub injected: HashMap<Fault, usize>,
    pub detected: HashMap<Fault, f64>,
    pub samples: Vec<Sample>,
    pub leases: LeaseEffect,
}

impl Outcome {
    /// Asserts that there was no violation, and that the faults had an effect.
    pub fn assert_held(&self) {
        assert_eq!(self.model.violations(), Vec::<String>::new());
        assert!(self.model.counters.abandoned.load(SeqCst) > 0, "{}", self.summary());
        for fault in [Fault::RedisGarbage, Fault::RedisRollback] {
            assert!(self.detected[&fault] > 0.0, "no instance detected {fault:?}");
        }
    }

    pub fn reads(&self) -> usize {
        self.model.counters.reads.load(SeqCst)
    }

    pub fn summary(&self) -> String {
        let counters = &self.model.counters;
        let count = |counter: &AtomicUsize| counter.load(SeqCst);
        format!(
            "{} reads ({} of them 304), {} copies of the list by the change feed and {} acknowledged writes during {} injected faults in {:.0} s: 0 violations; \
             {} lists labelled stale, {} responses with 503, {} broken connections, {} writes with unknown outcome, {} \
             clients that disconnected, {} outdated or invalid values found in Redis",
            self.reads(),
            count(&counters.not_modified),
            count(&counters.followed),
            self.model.writes(),
            self.injected.values().sum::<usize>(),
            self.elapsed.as_secs_f64(),
            count(&counters.labelled_stale),
            count(&counters.unavailable),
            count(&counters.disconnected),
            count(&counters.unknown_outcomes),
            count(&counters.abandoned),
            self.detected.values().sum::<f64>(),
        )
    }

    /// How often the rarest fault was injected.
    pub fn least_injected(&self) -> usize {
        self.injected.values().min().copied().unwrap_or(0)
    }

    pub fn leases_summary(&self) -> String {
        let counters = &self.model.counters;
        format!(
            "each of {} kinds of faults at least {} times; the instances have served {} reads under a lease since their last start, \
             and {} transactions have waited for leases; {} requests with {} revoked tokens were refused",
            self.injected.len(),
            self.least_injected(),
            self.leases.hits,
            self.leases.waits,
            counters.refused.load(SeqCst),
            counters.revoked_tokens.load(SeqCst),
        )
    }
}
