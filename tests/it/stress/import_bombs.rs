//! Files that describe as much as the import accepts, or more.

use super::record_result;
use crate::{
    harness::TestApp,
    import::bombs::{defuse, large_bombs, seed_large_products},
};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "half a minute: make stress"]
async fn large_import_bombs_stay_within_memory_and_time() {
    let app = TestApp::spawn().await;
    seed_large_products(&app).await;
    let (kib, seconds) = defuse(&app, large_bombs).await;
    let observed = format!("at most {} MiB over idle and {seconds:.1} s of CPU time", kib / 1024);
    record_result("no import takes more than 128 MiB", &observed);
}
