//! Mutants: each has a fault that a history must find within a minute.

use std::time::Duration;

use tokio::time::Instant;

use super::{History, seed, spawn_history};
use crate::{
    harness::{Process, TestAppBuilder},
    stress::record_result,
};

const TIME_LIMIT: Duration = Duration::from_secs(60);

/// A trigger function of the log with another text, and what the text needs.
struct FunctionMutant {
    name: &'static str,
    /// Statements before the change of the text.
    setup_sql: &'static str,
    function: &'static str,
    /// The texts to replace, and those in their place.
    replacements: &'static [(&'static str, &'static str)],
}

/// A deleted link is not logged when its tag has been deleted.
const FORGOTTEN_CASCADES: FunctionMutant = FunctionMutant {
    name: "a log that forgets cascades",
    setup_sql: "",
    function: "log_links",
    replacements: &[("from changed", "from changed where exists (select from tags where id = tag_id)")],
};

/// A renamed tag is logged as the products that have it, as the writer sees them.
const RENAMES_AS_PRODUCTS: FunctionMutant = FunctionMutant {
    name: "a rename that logs products instead of the tag",
    setup_sql: "create function shown_by(kind text, ids bigint[]) returns bigint[] language sql as
                    'select case when kind = ''tags''
                                 then array(select distinct product_id from product_tags where tag_id = any (ids))
                                 else ids
                            end'",
    function: "log_updated_names",
    replacements: &[
        (
            "log_catalogue_changes(tg_argv[0], array(",
            "log_catalogue_changes(replace(tg_argv[0], 'tags', 'products'), shown_by(tg_argv[0], array(",
        ),
        ("limit 2002))", "limit 2002)))"),
    ],
};

/// The log names 10 ids less in a transaction than it promises, so tokens expire too early.
const FEWER_IDS: FunctionMutant = FunctionMutant {
    name: "a log that names fewer ids than promised",
    setup_sql: "",
    function: "log_catalogue_changes",
    replacements: &[(":= 1000;", ":= 990;")],
};

/// Continues a history until it finds the mutant. A race needs two writers at the same time.
async fn find_mutant(mutant: &str, is_race: bool, history: &mut History) {
    let (began, seed) = (Instant::now(), seed());
    for step in 1.. {
        let outcome = match history.step().await {
            Ok(()) if is_race && step % 8 == 1 => history.write_concurrently().await,
            outcome => outcome,
        };
        if let Err(violation) = outcome {
            let seconds = began.elapsed().as_secs_f64();
            let observed = format!("found after {seconds:.1} s, in step {step} of history {seed}: {violation}");
            record_result(
                &format!("histories find {mutant}"),
                observed.split_whitespace().collect::<Vec<_>>().join(" ").as_str(),
            );
            return;
        }
        assert!(began.elapsed() < TIME_LIMIT, "{mutant} is not found in {step} steps of history {seed}");
    }
}

/// Finds a mutant of the program.
async fn find_program(mutant: &str, is_race: bool) {
    assert!(std::env::var_os("TESTSHOP_PROGRAM").is_some(), "TESTSHOP_PROGRAM is not set to a server with {mutant}");
    let app = TestAppBuilder::default().with("redis-url", "").spawn().await;
    let modes = [&[][..], &[], &["--cache-mode", "off"]];
    let processes = modes.map(|flags| Process::serve(&app, flags));
    let mut history = History::new(app, [0, 1, 2].map(|index: usize| processes[index].address), seed()).await;
    find_mutant(mutant, is_race, &mut history).await;
}

/// Finds a mutant of a trigger function.
async fn find_function(mutant: &FunctionMutant) {
    let (mut history, _others) = spawn_history(&[], seed()).await;
    history.app.batch_execute(mutant.setup_sql).await;
    let text = format!("select pg_get_functiondef('{}'::regproc)", mutant.function);
    let mut definition: String = history.app.query_scalar(&text).await;
    for (text, replacement) in mutant.replacements {
        assert_eq!(definition.matches(text).count(), 1, "{text} in {definition}");
        definition = definition.replace(text, replacement);
    }
    history.app.batch_execute(&definition).await;
    find_mutant(mutant.name, false, &mut history).await;
}

#[ignore = "needs a server built with the feature naive-fill, in TESTSHOP_PROGRAM: make stress"]
#[tokio::test(flavor = "multi_thread")]
async fn history_finds_chunk_of_another_snapshot() {
    find_program("a chunk of another snapshot than the version", true).await;
}

#[ignore = "needs a server built with the feature trust-pruned-log, in TESTSHOP_PROGRAM: make stress"]
#[tokio::test(flavor = "multi_thread")]
async fn history_finds_trust_in_pruned_log() {
    find_program("trust in a pruned log", false).await;
}

#[ignore = "needs a server built with the feature forgetful-feed, in TESTSHOP_PROGRAM: make stress"]
#[tokio::test(flavor = "multi_thread")]
async fn history_finds_feed_without_deletions() {
    find_program("a feed of changes without deletions", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn history_finds_forgotten_cascades() {
    find_function(&FORGOTTEN_CASCADES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn history_finds_renames_logged_as_products() {
    find_function(&RENAMES_AS_PRODUCTS).await;
}

#[ignore = "may need half a minute: make stress"]
#[tokio::test(flavor = "multi_thread")]
async fn history_finds_tokens_that_expire_early() {
    find_function(&FEWER_IDS).await;
}
