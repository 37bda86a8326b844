//! Freshness under faults: three servers in processes of their own, writers through their API and in SQL, readers
//! everywhere, and everything between them and behind them failing in turn. No read may show less than what was
//! acknowledged before it began, nothing may be torn, and an entity tag stands for one text.

mod model;
mod nemeses;
mod readers;
mod writers;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use self::{
    model::{Model, STOCK, Shown},
    nemeses::{ALL, Fate, Instance, Nemesis, leave},
    readers::read,
    writers::{Desk, SHARES},
};
use super::{duration, seen};
use crate::harness::{Caller, Plan, Process, Services, connect, until};

/// How a run is to go.
struct Course {
    purpose: &'static str,
    duration: Duration,
    readers: u64,
    /// Between two writes of each writer.
    pace: Duration,
    faults: Vec<Nemesis>,
    lasting: Duration,
    /// Between a fault and the next.
    calm: Duration,
    /// A violation ends it: it was looked for.
    until_violated: bool,
}

/// What the surviving server held at a moment.
struct Sample {
    seconds: f64,
    memory: i64,
    descriptors: usize,
    backends: i64,
    /// KiB of exports that it keeps.
    disk: u64,
}

struct Outcome {
    model: Arc<Model>,
    took: Duration,
    struck: usize,
    found_out: HashMap<Nemesis, f64>,
    samples: Vec<Sample>,
}

async fn run(course: Course) -> Outcome {
    let services = Services::up(course.purpose);
    // furnishes a database, and its own server makes the account
    let shop = Plan::default().on(&services.database_url).with("redis-url", "").open().await;
    shop.script(STOCK).await;
    let staff = shop.staff("sam").await;
    let serving = shop.setting("database-url").to_owned();
    let more = [("REDIS_PREFIX", "coherence"), ("DB_POOL_SIZE", "8"), ("SHUTDOWN_DELAY", "0s")];
    let mut instances = Vec::new();
    for _ in 0..3 {
        instances.push(Instance::start(&services, &serving, &more).await);
    }
    let addresses: Vec<_> = instances.iter().map(Instance::address).collect();
    for address in &addresses {
        until("each serves", async || staff.at(*address).get("/api/products/").await.status == 200).await;
    }

    let before = Sample::of(instances[2].process(), Instant::now(), &services).await;
    let (model, stop) = (Arc::new(Model::default()), Arc::new(AtomicBool::new(false)));
    let began = Instant::now();
    let mut tasks = Vec::new();
    for seed in 0..course.readers {
        // each at one instance: where that hangs, the others' readers go on
        let caller = staff.at(addresses[usize::try_from(seed).unwrap() % addresses.len()]);
        tasks.push(tokio::spawn(read(Arc::clone(&model), caller, 77 + seed, Arc::clone(&stop))));
    }
    let desk = Desk {
        model: Arc::clone(&model),
        staff: staff.clone(),
        instances: addresses.clone(),
        database_url: shop.database_url().to_owned(),
        pace: course.pace,
        stop: Arc::clone(&stop),
    };
    for share in 0..SHARES {
        tasks.push(tokio::spawn(desk.clone().products(share, 7 + share as u64)));
    }
    tasks.push(tokio::spawn(desk.clone().categories(3)));
    tasks.push(tokio::spawn(desk.clone().twins()));
    tasks.push(tokio::spawn(desk.slots(5)));
    let leaving = tokio::spawn(leave(Arc::clone(&model), staff.clone(), addresses.clone()));

    let (mut struck, mut samples) = (0, Vec::new());
    let mut fate = Fate::new(&services, &mut instances, course.lasting);
    // each comes at least once
    while (began.elapsed() < course.duration || struck < course.faults.len())
        && (!course.until_violated || model.violations().is_empty())
    {
        if !course.faults.is_empty() {
            let (nemesis, known) = (course.faults[struck % course.faults.len()], model.violations().len());
            fate.strike(nemesis).await;
            struck += 1;
            for words in &model.violations()[known..] {
                println!("after {:.0} s, {nemesis:?}: {words}", began.elapsed().as_secs_f64());
            }
        }
        tokio::time::sleep(course.calm).await;
        samples.push(Sample::of(fate.survivor(), began, &services).await);
    }
    let (took, found_out) = (began.elapsed(), fate.found_out.clone());
    stop.store(true, SeqCst);
    for task in tasks {
        let end = tokio::time::timeout(Duration::from_secs(60), task).await;
        end.expect("readers and writers come to their end").unwrap();
    }
    leaving.abort();
    if course.until_violated {
        return Outcome { model, took, struck, found_out, samples };
    }
    agreed_at_the_end(&model, &addresses, &staff).await;
    let survivor = fate.survivor();
    // but for its pool, and the exports that it keeps
    until("descriptors are given back", async || survivor.descriptors() <= before.descriptors + 10 + 64).await;
    // another connection: that of the shop's own has not survived
    let owner = connect(shop.database_url()).await;
    let slots = "select count(*) from products where name like 'slot %'";
    let slots: i64 = owner.query_one(slots, &[]).await.unwrap().get(0);
    assert_eq!(slots, model.present(), "each creation was done once, each deletion was done");
    Outcome { model, took, struck, found_out, samples }
}

impl Sample {
    async fn of(survivor: &Process, began: Instant, services: &Services) -> Self {
        let count = "select count(*) from pg_stat_activity where application_name = 'testshop'";
        // it may be on its way up again
        let backends = match tokio_postgres::connect(&services.database_url, tokio_postgres::NoTls).await {
            Ok((client, connection)) => {
                tokio::spawn(connection);
                client.query_one(count, &[]).await.map_or(0, |row| row.get(0))
            }
            Err(_) => 0,
        };
        let seconds = began.elapsed().as_secs_f64();
        let (memory, descriptors, disk) = (survivor.memory("VmRSS"), survivor.descriptors(), survivor.disk());
        Self { seconds, memory, descriptors, backends, disk }
    }
}

/// When all is calm every server shows the same, and exactly what was written last.
async fn agreed_at_the_end(model: &Model, addresses: &[SocketAddr], staff: &Caller) {
    let floor = model.floor();
    let mut texts = Vec::new();
    for address in addresses {
        let caller = staff.at(*address);
        until("it is fresh again", async || {
            let answer = caller.get("/api/products/").await;
            answer.status == 200 && !answer.header("cache-status").ends_with("detail=stale")
        })
        .await;
        let answer = caller.get("/api/products/").await;
        model.check(&Shown::list(&answer.body).expect("a list"), &floor, true);
        texts.push(answer.text());
    }
    assert!(texts.iter().all(|text| *text == texts[0]), "the servers disagree");
}

impl Outcome {
    /// Nothing was broken, and what was to happen did.
    fn holds(&self) {
        assert_eq!(self.model.violations(), Vec::<String>::new());
        assert!(self.model.seen.left.load(SeqCst) > 0, "{}", self.numbers());
        for nemesis in [Nemesis::RedisGarbage, Nemesis::RedisSetBack] {
            assert!(self.found_out[&nemesis] > 0.0, "no server came upon {nemesis:?}");
        }
    }

    fn numbers(&self) -> String {
        let seen = &self.model.seen;
        let count = |counter: &AtomicUsize| counter.load(SeqCst);
        format!(
            "{} reads ({} of them 304), {} acknowledged writes, {} faults in {:.0} s: 0 violations; {} labelled stale, {} turned away with 503, {} connections broken, {} outcomes unknown, {} clients left, {} old or senseless values found in Redis",
            count(&seen.reads),
            count(&seen.not_modified),
            self.model.writes(),
            self.struck,
            self.took.as_secs_f64(),
            count(&seen.labelled_stale),
            count(&seen.turned_away),
            count(&seen.broken_off),
            count(&seen.unknown_outcomes),
            count(&seen.left),
            self.found_out.values().sum::<f64>(),
        )
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_read_shows_less_than_was_acknowledged_whatever_fails() {
    let outcome = run(Course {
        purpose: "coherence",
        duration: Duration::from_secs(8),
        readers: 24,
        pace: Duration::from_millis(30),
        faults: ALL.to_vec(),
        lasting: Duration::from_millis(300),
        calm: Duration::from_millis(50),
        until_violated: false,
    })
    .await;
    outcome.holds();
    assert!(outcome.model.seen.reads.load(SeqCst) > 1000, "{}", outcome.numbers());
    assert!(outcome.model.writes() > 200, "{}", outcome.numbers());
}

/// The long form, and the soak: what the server that is never killed holds must not grow.
#[ignore = "twenty minutes: make hard"]
#[tokio::test(flavor = "multi_thread")]
async fn freshness_at_length() {
    let outcome = run(Course {
        purpose: "soak",
        duration: duration(1200),
        // many at once share a look at the versions: more reads for the same work of the database
        readers: 96,
        pace: Duration::from_millis(75),
        faults: ALL.to_vec(),
        lasting: Duration::from_secs(2),
        calm: Duration::from_secs(8),
        until_violated: false,
    })
    .await;
    outcome.holds();
    let count = |counter: &AtomicUsize| counter.load(SeqCst);
    let told = &outcome.model.seen;
    let unjudged = count(&told.labelled_stale) + count(&told.turned_away);
    let judged = count(&told.reads) - unjudged;
    assert!(unjudged * 50 <= judged, "who labels or refuses everything breaks no promise: {}", outcome.numbers());
    if duration(1200) == Duration::from_secs(1200) {
        assert!(judged >= 3_000_000 && outcome.model.writes() >= 100_000, "{}", outcome.numbers());
    }
    seen("no read shows less than was acknowledged before it", &outcome.numbers());
    keep(&outcome.samples);
    if duration(1200) < Duration::from_secs(1200) {
        // of a shortened run this tells nothing
        return;
    }
    assert!(outcome.samples.len() >= 60, "{} samples", outcome.samples.len());
    let quarter = outcome.samples.len() / 4;
    let middle = |part: &[Sample], what: fn(&Sample) -> f64| {
        let mut values: Vec<f64> = part.iter().map(what).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let (second, last) = (&outcome.samples[quarter..2 * quarter], &outcome.samples[3 * quarter..]);
    let mut numbers = Vec::new();
    for (what, of) in [
        ("MiB", (|sample| sample.memory as f64 / 1024.0) as fn(&Sample) -> f64),
        ("descriptors", |sample| sample.descriptors as f64),
        ("connections to PostgreSQL", |sample| sample.backends as f64),
        ("KiB of exports on disk", |sample| sample.disk as f64),
    ] {
        let (before, after) = (middle(second, of), middle(last, of));
        assert!(after <= before * 1.2 + 2.0, "{what} grew from {before:.1} to {after:.1}");
        numbers.push(format!("{what} {before:.0} and {after:.0}"));
    }
    seen("nothing grows (second and last quarter of the same time)", &numbers.join(", "));
}

/// A checker that finds nothing proves nothing: this one runs on a server whose fills read the version after the rows.
#[ignore = "needs a server built with the feature naive-fill, in TESTSHOP_PROGRAM: make hard"]
#[tokio::test(flavor = "multi_thread")]
async fn the_checker_finds_a_naive_fill() {
    assert!(std::env::var_os("TESTSHOP_PROGRAM").is_some(), "TESTSHOP_PROGRAM names no server with a naive fill");
    let outcome = run(Course {
        purpose: "naive",
        duration: Duration::from_secs(60),
        readers: 24,
        pace: Duration::from_millis(20),
        faults: Vec::new(),
        lasting: Duration::ZERO,
        calm: Duration::from_millis(100),
        until_violated: true,
    })
    .await;
    let violations = outcome.model.violations();
    assert!(violations.iter().any(|words| words.starts_with("stale")), "{violations:?}");
    seen(
        "with a naive fill the checker finds stale reads",
        &format!("after {:.1} s and {} reads", outcome.took.as_secs_f64(), outcome.model.seen.reads.load(SeqCst)),
    );
}

/// For the plot.
fn keep(samples: &[Sample]) {
    let Some(path) = std::env::var_os("HARD_SAMPLES") else { return };
    let rows: Vec<_> = samples
        .iter()
        .map(|sample| {
            let Sample { seconds, memory, descriptors, backends, disk } = sample;
            serde_json::json!([seconds, memory, descriptors, backends, disk])
        })
        .collect();
    std::fs::write(path, serde_json::to_vec(&rows).unwrap()).unwrap();
}
