//! Freshness under injected faults: three server processes, writers through their API and in SQL, readers on all of
//! them, clients of the change feed, and failures of the servers, of PostgreSQL, of Redis and of the connections between
//! them. No read is older than the writes that were acknowledged before it began, no response mixes versions, an entity
//! tag identifies one content, and a copy that follows the changes is the list.

mod database;
mod fast_readers;
mod fault_injection;
mod followers;
mod instances;
mod leases;
mod logouts;
mod model;
mod mutants;
mod observation;
mod outcome;
mod readers;
mod redis_faults;
mod samples;
mod sql_writers;
mod writers;

use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::{Duration, Instant},
};

use tokio::task::JoinHandle;

use self::{
    database::Database,
    fast_readers::run_fast_reader,
    fault_injection::{ALL_FAULTS, Fault, FaultInjector},
    followers::run_follower,
    instances::{Instance, abandon_requests, start_instances},
    leases::{LeaseEffect, enable_leases},
    model::{INITIAL_DATA, Model},
    mutants::Mutant,
    observation::Observation,
    outcome::Outcome,
    readers::run_reader,
    samples::{Sample, assert_no_growth, write_samples},
    writers::WriterPool,
};
use super::{record_result, stress_duration};
use crate::harness::{Pooler, TestAppBuilder, as_serving_role, connect, wait_until, with_database};

/// Clients of the change feed.
const FOLLOWERS: u64 = 3;

/// The parameters of a run.
struct Scenario {
    name: &'static str,
    /// The run is longer when some of the faults have not been injected yet.
    duration: Duration,
    readers: u64,
    /// Readers that only read the list of all products, on each instance.
    fast_readers: usize,
    /// Time between two writes of a writer.
    write_interval: Duration,
    faults: Vec<Fault>,
    fault_duration: Duration,
    /// Time between two faults.
    recovery_time: Duration,
    stop_at_violation: bool,
    /// The duration of leases; zero: there are none.
    lease: Duration,
    mutant: Option<&'static Mutant>,
}

async fn run_scenario(mut scenario: Scenario) -> Outcome {
    let mut database = Database::start(scenario.name).await;
    // its database and accounts are used, its server only creates the accounts
    let builder = TestAppBuilder::default().on_server(&database.primary().database_url);
    let app = builder.with("redis-url", "").spawn().await;
    app.batch_execute(INITIAL_DATA).await;
    let staff = app.create_staff("sam").await;
    app.create_user(logouts::ACCOUNT).await;
    enable_leases(&app.sql, &scenario).await;
    // from now on through a proxy: a standby may replace PostgreSQL
    let database_url = database.via_link(app.database_url());
    let pooler = if scenario.faults.contains(&Fault::PoolerKilled) {
        Pooler::start(database.link_address(), &as_serving_role(&database_url)).await
    } else {
        None
    };
    if pooler.is_none() {
        scenario.faults.retain(|fault| *fault != Fault::PoolerKilled);
    }
    let serving_url = as_serving_role(&with_database(&database.primary().database_url, app.database_name()));
    let mut instances = start_instances(&database, pooler.as_ref(), &serving_url, &staff, scenario.lease).await;
    let descriptors_before = instances[instances.len() - 1].process().descriptors();

    let writers = WriterPool {
        model: Arc::new(Model::default()),
        staff,
        instances: instances.iter().map(Instance::address).collect(),
        database_url: database_url.clone(),
        write_interval: scenario.write_interval,
        lease: scenario.lease,
        stop: Arc::default(),
        is_paused: Arc::default(),
    };
    let model = Arc::clone(&writers.model);
    let began = Instant::now();
    let tasks = spawn_readers_and_writers(&scenario, &writers);
    let abandoning =
        tokio::spawn(abandon_requests(Arc::clone(&model), writers.staff.clone(), writers.instances.clone()));
    let mut injector = FaultInjector::new(&mut database, &mut instances, pooler, &writers, scenario.fault_duration);
    let samples = inject_faults(&scenario, &mut injector, &model, began).await;
    let leases = LeaseEffect::measure(injector.instances, &database_url).await;
    let (elapsed, injected, detected) = (began.elapsed(), injector.injected.clone(), injector.detected.clone());
    let outcome = Outcome { model, elapsed, injected, detected, samples, leases };
    writers.stop.store(true, SeqCst);
    for task in tasks {
        let end = tokio::time::timeout(Duration::from_secs(60), task).await;
        end.expect("readers and writers end").unwrap();
    }
    abandoning.abort();
    if scenario.stop_at_violation {
        return outcome;
    }
    assert_instances_agree(&outcome.model, &writers).await;
    let survivor = injector.survivor();
    // ten more for the pool, 64 for the cached exports
    wait_until("descriptors are released", async || survivor.descriptors() <= descriptors_before + 10 + 64).await;
    // the connection of `app` was closed with PostgreSQL
    let owner = connect(&database_url).await;
    let slots = "select count(*) from products where name like 'slot %'";
    let slots: i64 = owner.query_one(slots, &[]).await.unwrap().get(0);
    assert_eq!(slots, outcome.model.present(), "each creation and each deletion was done once");
    outcome
}

fn spawn_readers_and_writers(scenario: &Scenario, writers: &WriterPool) -> Vec<JoinHandle<()>> {
    let mut tasks = writers.spawn();
    for seed in 0..scenario.readers {
        // each reader uses one instance, so the others continue when an instance hangs
        let instance = writers.instances[usize::try_from(seed).unwrap() % writers.instances.len()];
        let (model, client) = (Arc::clone(&writers.model), writers.staff.on_instance(instance));
        tasks.push(tokio::spawn(run_reader(model, client, 77 + seed, Arc::clone(&writers.stop))));
    }
    for seed in 0..FOLLOWERS {
        let (model, client) = (Arc::clone(&writers.model), writers.staff.clone());
        tasks.push(tokio::spawn(run_follower(
            model,
            client,
            writers.instances.clone(),
            seed,
            Arc::clone(&writers.stop),
        )));
    }
    for instance in writers.instances.repeat(scenario.fast_readers) {
        let (model, token) = (Arc::clone(&writers.model), writers.staff.token().to_owned());
        tasks.push(tokio::spawn(run_fast_reader(model, instance, token, Arc::clone(&writers.stop))));
    }
    tasks
}

/// Injects faults for the duration of the scenario, each at least once. Returns a sample after each.
async fn inject_faults(
    scenario: &Scenario,
    injector: &mut FaultInjector<'_>,
    model: &Model,
    began: Instant,
) -> Vec<Sample> {
    let (mut injected, mut samples) = (0, Vec::new());
    while (began.elapsed() < scenario.duration || injected < scenario.faults.len())
        && (!scenario.stop_at_violation || model.violations().is_empty())
    {
        if !scenario.faults.is_empty() {
            let (fault, known) = (scenario.faults[injected % scenario.faults.len()], model.violations().len());
            injector.inject(fault).await;
            injected += 1;
            for violation in &model.violations()[known..] {
                println!("after {:.0} s, {fault:?}: {violation}", began.elapsed().as_secs_f64());
            }
        }
        tokio::time::sleep(scenario.recovery_time).await;
        samples.push(Sample::take(injector.survivor(), began, injector.database_url()).await);
    }
    samples
}

/// Asserts that after the run every instance serves the same list, and that it contains the last writes.
async fn assert_instances_agree(model: &Model, writers: &WriterPool) {
    let lower_bound = model.lower_bound();
    let mut lists = Vec::new();
    for address in &writers.instances {
        let client = writers.staff.on_instance(*address);
        wait_until("the list is fresh again", async || {
            let response = client.get("/api/products/").await;
            response.status == 200 && !response.header("cache-status").ends_with("detail=stale")
        })
        .await;
        let response = client.get("/api/products/").await;
        model.check(&Observation::from_json(&response.body).expect("a list"), &lower_bound, true);
        lists.push(response.text());
    }
    assert!(lists.iter().all(|list| *list == lists[0]), "the instances disagree");
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_are_fresh_under_fault_injection() {
    let outcome = run_scenario(Scenario {
        name: "coherence",
        duration: Duration::from_secs(8),
        readers: 24,
        fast_readers: 0,
        write_interval: Duration::from_millis(30),
        faults: ALL_FAULTS.to_vec(),
        fault_duration: Duration::from_millis(300),
        recovery_time: Duration::from_millis(50),
        stop_at_violation: false,
        lease: Duration::ZERO,
        mutant: None,
    })
    .await;
    outcome.assert_held();
    assert!(outcome.reads() > 1000, "{}", outcome.summary());
    assert!(outcome.model.counters.followed.load(SeqCst) > 10, "{}", outcome.summary());
    assert!(outcome.model.writes() > 200, "{}", outcome.summary());
}

/// The long run, also a soak test: the resource usage of the server that is never killed does not grow.
#[ignore = "twenty minutes: make stress"]
#[tokio::test(flavor = "multi_thread")]
async fn freshness_stress() {
    const FULL_DURATION: Duration = Duration::from_secs(1200);
    let duration = stress_duration(FULL_DURATION.as_secs());
    let outcome = run_scenario(Scenario {
        name: "soak",
        duration,
        // concurrent readers share version reads, so that more readers cost the database no more
        readers: 96,
        fast_readers: 0,
        write_interval: Duration::from_millis(75),
        faults: ALL_FAULTS.to_vec(),
        fault_duration: Duration::from_secs(2),
        recovery_time: Duration::from_secs(8),
        stop_at_violation: false,
        lease: Duration::ZERO,
        mutant: None,
    })
    .await;
    outcome.assert_held();
    let counters = &outcome.model.counters;
    let unchecked = counters.labelled_stale.load(SeqCst) + counters.unavailable.load(SeqCst);
    let checked = outcome.reads() - unchecked;
    // a server that labels every list stale, or sends only 503, has no violation either
    assert!(unchecked * 50 <= checked, "{}", outcome.summary());
    if duration == FULL_DURATION {
        assert!(checked >= 3_000_000 && outcome.model.writes() >= 100_000, "{}", outcome.summary());
    }
    record_result("no read is older than an acknowledged write", &outcome.summary());
    write_samples(&outcome.samples);
    // a shorter run has too few samples
    if duration >= FULL_DURATION {
        record_result(
            "resource usage does not grow (medians of the second and the last quarter)",
            &assert_no_growth(&outcome.samples),
        );
    }
}

/// Tests the checker on a server whose fills read the version after the rows: it must report a stale read.
#[ignore = "needs a server built with the feature naive-fill, in TESTSHOP_PROGRAM: make stress"]
#[tokio::test(flavor = "multi_thread")]
async fn checker_detects_naive_fill_mutant() {
    assert!(
        std::env::var_os("TESTSHOP_PROGRAM").is_some(),
        "TESTSHOP_PROGRAM is not set to a server with a naive fill"
    );
    let outcome = run_scenario(Scenario {
        name: "naive",
        duration: Duration::from_secs(60),
        readers: 24,
        fast_readers: 0,
        write_interval: Duration::from_millis(20),
        faults: Vec::new(),
        fault_duration: Duration::ZERO,
        recovery_time: Duration::from_millis(100),
        stop_at_violation: true,
        lease: Duration::ZERO,
        mutant: None,
    })
    .await;
    let violations = outcome.model.violations();
    assert!(violations.iter().any(|violation| violation.starts_with("stale")), "{violations:?}");
    let observed =
        format!("stale read detected after {:.1} s and {} reads", outcome.elapsed.as_secs_f64(), outcome.reads());
    record_result("the freshness checker detects a naive fill", &observed);
}
