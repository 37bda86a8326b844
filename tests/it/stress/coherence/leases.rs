//! Freshness with leases on version reads. All writers write at about the same time and pause then, because no lease is
//! granted soon after a write.

use std::time::Duration;

use tokio_postgres::Client;

use super::{
    Scenario,
    fault_injection::{ALL_FAULTS, Fault},
    run_scenario,
};
use crate::{
    harness::LinkState,
    stress::{record_result, stress_duration},
};

const LEASE: Duration = Duration::from_millis(25);

/// The faults that concern leases. The longer ones last much longer than a lease.
const LEASE_FAULTS: [Fault; 8] = [
    Fault::ServerPaused,
    Fault::BackendsKilledRepeatedly,
    Fault::DatabaseLink(LinkState::Silent),
    Fault::ServerKilled,
    Fault::DatabaseLink(LinkState::Slow),
    Fault::DatabaseKilled,
    Fault::DatabaseLink(LinkState::Cut),
    Fault::DatabaseCrashed,
];

const SCENARIO: Scenario = Scenario {
    name: "leases-coherence",
    duration: Duration::from_secs(8),
    readers: 24,
    // an instance requests a lease at most half a second after a write
    write_interval: Duration::from_millis(1200),
    faults: Vec::new(),
    fault_duration: Duration::from_millis(300),
    recovery_time: Duration::from_millis(1500),
    stop_at_violation: false,
    lease: LEASE,
    mutant: None,
};

/// Sets the duration of leases, and replaces the function of a mutant.
pub async fn enable_leases(owner: &Client, scenario: &Scenario) {
    let millis = i32::try_from(scenario.lease.as_millis()).unwrap();
    owner.execute("select set_lease_duration($1)", &[&millis]).await.unwrap();
    let Some((function, replacements)) = scenario.mutant else { return };
    let definition = "select pg_get_functiondef($1::text::regproc)";
    let mut text: String = owner.query_one(definition, &[&function]).await.unwrap().get(0);
    for (part, replacement) in replacements {
        assert!(text.contains(part), "{function} does not contain {part}");
        text = text.replace(part, replacement);
    }
    owner.batch_execute(&text).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_are_fresh_with_leases_under_fault_injection() {
    let outcome = run_scenario(Scenario { faults: LEASE_FAULTS.to_vec(), ..SCENARIO }).await;
    assert_eq!(outcome.model.violations(), Vec::<String>::new());
    assert!(outcome.lease_hits > 100.0, "{} hits under a lease", outcome.lease_hits);
    assert!(outcome.model.writes() > 50 && outcome.reads() > 1000, "{}", outcome.summary());
}

#[ignore = "ten minutes: make stress"]
#[tokio::test(flavor = "multi_thread")]
async fn freshness_with_leases_stress() {
    let outcome = run_scenario(Scenario {
        name: "leases-soak",
        duration: stress_duration(600),
        readers: 96,
        faults: ALL_FAULTS.into_iter().chain(LEASE_FAULTS).collect(),
        fault_duration: Duration::from_secs(1),
        recovery_time: Duration::from_secs(4),
        ..SCENARIO
    })
    .await;
    outcome.assert_held();
    assert!(outcome.lease_hits > 1000.0, "{} hits under a lease", outcome.lease_hits);
    let observed = format!("{}; {} reads of one instance under a lease", outcome.summary(), outcome.lease_hits);
    record_result("no read is older than an acknowledged write, with leases of 25 ms", &observed);
}

/// Tests the checker on writers that do not wait for leases: it must report a stale read.
#[tokio::test(flavor = "multi_thread")]
async fn checker_detects_writers_that_do_not_wait_for_leases() {
    let outcome = run_scenario(Scenario {
        name: "leases-mutant",
        duration: Duration::from_secs(60),
        recovery_time: Duration::from_millis(100),
        stop_at_violation: true,
        mutant: Some(("wait_for_leases", &[("perform pg_sleep(duration_ms / 1000.0);", "")])),
        ..SCENARIO
    })
    .await;
    let violations = outcome.model.violations();
    assert!(violations.iter().any(|violation| violation.starts_with("stale")), "{violations:?}");
}
