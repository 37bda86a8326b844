//! Freshness with leases on version reads. All writers write at about the same time and pause then, because no lease is
//! granted soon after a write.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use tokio_postgres::Client;

use super::{
    Scenario,
    fault_injection::{ALL_FAULTS, Fault},
    instances::Instance,
    run_scenario,
};
use crate::{
    harness::{LinkState, connect, metric},
    stress::{record_result, stress_duration},
};

const LEASE: Duration = Duration::from_millis(25);

/// The faults that concern leases. The longer ones last much longer than a lease.
const LEASE_FAULTS: [Fault; 12] = [
    Fault::ServerPaused,
    Fault::BackendsKilledRepeatedly,
    Fault::DatabaseLink(LinkState::Silent),
    Fault::StandbyPromoted,
    Fault::ServerKilled,
    Fault::DatabaseLink(LinkState::SilentFromServer),
    Fault::DatabaseLink(LinkState::Slow),
    Fault::DatabaseKilled,
    Fault::DatabaseLink(LinkState::SilentToServer),
    Fault::PoolerKilled,
    Fault::DatabaseLink(LinkState::Cut),
    Fault::DatabaseCrashed,
];

/// A run on a busy machine may have few hits under a lease.
const MAX_ATTEMPTS: usize = 4;

pub const SCENARIO: Scenario = Scenario {
    name: "leases-coherence",
    duration: Duration::from_secs(8),
    readers: 24,
    fast_readers: 1,
    // an instance requests a lease at most half a second after a write
    write_interval: Duration::from_millis(1200),
    faults: Vec::new(),
    fault_duration: Duration::from_millis(300),
    recovery_time: Duration::from_millis(1500),
    stop_at_violation: false,
    lease: LEASE,
    mutant: None,
};

/// Sets the duration of leases, and applies the mutant.
pub async fn enable_leases(owner: &Client, scenario: &Scenario) {
    let millis = i32::try_from(scenario.lease.as_millis()).unwrap();
    owner.execute("select set_lease_duration($1)", &[&millis]).await.unwrap();
    if let Some(mutant) = scenario.mutant {
        mutant.apply(owner).await;
    }
}

/// What leases did in a run.
pub struct LeaseEffect {
    /// Requests that the instances have served under a lease since they started.
    pub hits: f64,
    /// Transactions that have waited for leases.
    pub waits: i64,
}

impl LeaseEffect {
    pub async fn measure(instances: &[Instance], database_url: &str) -> Self {
        let mut hits = 0.0;
        for instance in instances {
            hits += metric(instance.process().admin_address, "testshop_lease_hits_total").await;
        }
        let waits = "select (select count(*) from catalogue_versions where lease_wait_ms > 0)
                          + (select count(*) from accounts_versions where lease_wait_ms > 0)";
        let waits = connect(database_url).await.query_one(waits, &[]).await.unwrap().get(0);
        Self { hits, waits }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_are_fresh_with_leases_under_fault_injection() {
    let mut summary = String::new();
    for _ in 0..MAX_ATTEMPTS {
        let outcome = run_scenario(Scenario { faults: LEASE_FAULTS.to_vec(), ..SCENARIO }).await;
        assert_eq!(outcome.model.violations(), Vec::<String>::new());
        let has_used_leases = outcome.leases.hits > 100.0 && outcome.leases.waits > 5;
        let has_worked = outcome.model.writes() > 50 && outcome.reads() > 1000;
        if has_used_leases && has_worked && outcome.model.counters.refused.load(SeqCst) > 10 {
            return;
        }
        summary = format!("{} {}", outcome.summary(), outcome.leases_summary());
    }
    panic!("{summary}");
}

#[ignore = "fifteen minutes: make stress"]
#[tokio::test(flavor = "multi_thread")]
async fn freshness_with_leases_stress() {
    const FULL_DURATION: Duration = Duration::from_secs(900);
    let duration = stress_duration(FULL_DURATION.as_secs());
    let outcome = run_scenario(Scenario {
        name: "leases-soak",
        duration,
        readers: 48,
        fast_readers: 8,
        faults: ALL_FAULTS.into_iter().chain(LEASE_FAULTS).collect(),
        fault_duration: Duration::from_secs(1),
        recovery_time: Duration::from_secs(4),
        ..SCENARIO
    })
    .await;
    outcome.assert_held();
    assert!(outcome.injected.contains_key(&Fault::PoolerKilled), "PgBouncer 1.21 or newer is missing");
    let leases = outcome.leases_summary();
    assert!(outcome.leases.hits > 1000.0, "{leases}");
    if duration >= FULL_DURATION {
        assert!(outcome.reads() >= 10_000_000 && outcome.least_injected() >= 3, "{} {leases}", outcome.summary());
    }
    record_result(
        "no read is older than an acknowledged write, with leases of 25 ms",
        &format!("{}; {leases}", outcome.summary()),
    );
}
