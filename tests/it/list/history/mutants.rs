//! Mutants: each has a fault that a history must find within a minute.

use std::time::Duration;

use tokio::time::Instant;

use super::{History, seed, spawn_history};
use crate::{
    harness::{Process, TestAppBuilder},
    stress::record_result,
};

const TIME_LIMIT: Duration = Duration::from_secs(60);

/// A log that forgets cascades: a deleted link is not logged when its tag has been deleted.
const FORGET_CASCADES_SQL: &str = "
    create or replace function log_links() returns trigger
        language plpgsql security definer
        set search_path = public, pg_temp
    as $$
    declare
        unused text;
    begin
        unused := log_catalogue_changes('products', array(
            select distinct product_id
              from changed
             where exists (select from tags where id = tag_id)
             limit 1001));
        return null;
    end
    $$";

/// Logs a renamed tag as the products that have it, as the writer sees them.
const LOG_PRODUCTS_OF_TAGS_SQL: &str = "
    create or replace function log_updated_names() returns trigger
        language plpgsql security definer
        set search_path = public, pg_temp
    as $$
    declare
        renamed bigint[] := array(
            select id
              from before
              join after using (id)
             where before.name <> after.name
             limit 1001);
        unused  text;
    begin
        if tg_argv[0] = 'tags' then
            unused := log_catalogue_changes('products', array(
                select distinct product_id from product_tags where tag_id = any (renamed) limit 1001));
        else
            unused := log_catalogue_changes(tg_argv[0], renamed);
        end if;
        return null;
    end
    $$";

/// Names 10 ids less in a transaction than the log promises, so tokens expire too early.
const NAME_FEWER_IDS_SQL: &str = "
    do $$
    begin
        execute replace(pg_get_functiondef('log_catalogue_changes'::regproc), ':= 1000;', ':= 990;');
    end
    $$";

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
async fn find_function(mutant: &str, sql: &str) {
    let (mut history, _others) = spawn_history(&[], seed()).await;
    history.app.batch_execute(sql).await;
    find_mutant(mutant, false, &mut history).await;
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
    find_function("a log that forgets cascades", FORGET_CASCADES_SQL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn history_finds_renames_logged_as_products() {
    find_function("a rename that logs products instead of the tag", LOG_PRODUCTS_OF_TAGS_SQL).await;
}

#[ignore = "may need half a minute: make stress"]
#[tokio::test(flavor = "multi_thread")]
async fn history_finds_tokens_that_expire_early() {
    find_function("a log that names fewer ids than promised", NAME_FEWER_IDS_SQL).await;
}
