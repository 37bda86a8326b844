//! Wrong variants of the database's functions for leases: the checker must report a violation in each.

use std::time::Duration;

use tokio_postgres::Client;

use super::{Scenario, leases::SCENARIO, run_scenario};
use crate::stress::record_result;

/// A function of the database, and texts to replace in it.
pub struct Mutant {
    name: &'static str,
    function: &'static str,
    replacements: &'static [(&'static str, &'static str)],
    /// The beginning of the violation.
    violation: &'static str,
    write_interval: Duration,
}

const STALE: &str = "stale";
/// Time for many renewals of leases between two writes.
const SELDOM: Duration = Duration::from_millis(1200);
/// The first lease after a write is often requested during the next write.
const OFTEN: Duration = Duration::from_millis(400);

const WRITERS_DO_NOT_WAIT: Mutant = Mutant {
    name: "writers do not wait",
    function: "wait_for_leases",
    replacements: &[("perform pg_sleep(duration_ms / 1000.0);", "")],
    violation: STALE,
    write_interval: SELDOM,
};

const MUTANTS: [Mutant; 6] = [
    Mutant {
        name: "writers wait for half of the duration",
        function: "wait_for_leases",
        replacements: &[("pg_sleep(duration_ms / 1000.0)", "pg_sleep(duration_ms / 2000.0)")],
        violation: STALE,
        write_interval: SELDOM,
    },
    Mutant {
        name: "writers wait before they take the lock",
        function: "wait_for_leases",
        replacements: &[
            ("    lock table lease_lock in row exclusive mode;\n", ""),
            ("    return duration_ms;", "    lock table lease_lock in row exclusive mode;\n    return duration_ms;"),
        ],
        violation: STALE,
        write_interval: SELDOM,
    },
    // between its snapshot and the lock, a statement may be as slow as a busy machine makes it
    Mutant {
        name: "one statement locks and reads",
        function: "read_versions_leased",
        replacements: &[
            ("            lock table lease_lock in share mode nowait;\n", ""),
            (
                "select case",
                "select catalogue.version, catalogue.token, accounts.version, accounts.token,
                   case when (select from_lock.is_locked from lock_slowly() from_lock) then
                   case",
            ),
            (
                "end\n              into strict",
                "end end\n              into strict catalogue_version, catalogue_token,
                   accounts_version, accounts_token,",
            ),
            ("(select changed_at from catalogue", "(select version, token, changed_at from catalogue"),
            ("(select changed_at from accounts", "(select version, token, changed_at from accounts"),
            (
                "    -- a statement after the lock: its snapshot shows every commit that has released the lock\n",
                "    if lease_ms > 0 then return; end if;\n",
            ),
        ],
        violation: STALE,
        write_interval: OFTEN,
    },
    Mutant {
        name: "revocations do not wait",
        function: "apply_pending_revocations",
        replacements: &[("waited := wait_for_leases(duration);", "waited := 0;")],
        violation: "stale: a request with a revoked token",
        write_interval: SELDOM,
    },
    Mutant {
        name: "surrendered tickets count as all tickets",
        function: "surrender_leases",
        replacements: &[("drawn <> last_ticket or expired < first_ticket - 1\n        or ", "")],
        violation: STALE,
        write_interval: SELDOM,
    },
    Mutant {
        name: "leased reads do not lock",
        function: "read_versions_leased",
        replacements: &[("            lock table lease_lock in share mode nowait;\n", "")],
        violation: STALE,
        write_interval: SELDOM,
    },
];

/// Locks like the correct function, and takes long before.
const LOCK_SLOWLY: &str = "
create function lock_slowly(out is_locked boolean) language plpgsql security definer as $$
begin
    perform pg_sleep(0.01);
    lock table lease_lock in share mode nowait;
    is_locked := true;
end $$";

impl Mutant {
    /// Replaces the function in a database.
    pub async fn apply(&self, owner: &Client) {
        owner.batch_execute(LOCK_SLOWLY).await.unwrap();
        let definition = "select pg_get_functiondef($1::text::regproc)";
        let mut text: String = owner.query_one(definition, &[&self.function]).await.unwrap().get(0);
        for (part, replacement) in self.replacements {
            assert!(text.contains(part), "{} does not contain {part}", self.function);
            text = text.replace(part, replacement);
        }
        owner.batch_execute(&text).await.unwrap();
    }

    /// Runs the checker until it reports the violation, and returns how long that takes.
    async fn detect(&'static self, name: &'static str) -> Duration {
        let outcome = run_scenario(Scenario {
            name,
            duration: Duration::from_secs(180),
            write_interval: self.write_interval,
            recovery_time: Duration::from_millis(100),
            stop_at_violation: true,
            mutant: Some(self),
            ..SCENARIO
        })
        .await;
        let violations = outcome.model.violations();
        let is_detected = violations.iter().any(|violation| violation.starts_with(self.violation));
        assert!(is_detected, "{}: {violations:?}; {}", self.name, outcome.summary());
        println!("{} after {:?}: {}", self.name, outcome.elapsed, violations[0]);
        outcome.elapsed
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn checker_detects_writers_that_do_not_wait_for_leases() {
    WRITERS_DO_NOT_WAIT.detect("leases-mutant").await;
}

#[ignore = "minutes: make stress"]
#[tokio::test(flavor = "multi_thread")]
async fn checker_detects_wrong_variants_of_leases() {
    let mut observed = Vec::new();
    for mutant in &MUTANTS {
        let elapsed = mutant.detect("leases-mutants").await;
        observed.push(format!("{} {:.1} s", mutant.name, elapsed.as_secs_f64()));
    }
    record_result("the freshness checker detects wrong variants of leases", &observed.join(", "));
}
