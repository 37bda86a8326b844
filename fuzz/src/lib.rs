//! One server for all inputs of a fuzz target. The requests and the checks are those of the tests.

use std::sync::OnceLock;

use tokio::runtime::Runtime;

#[path = "../../tests/it/harness/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the fuzz targets use a part of the test harness")]
mod harness;

#[path = "../../tests/it/stress/fuzz_corpus/targets.rs"]
#[allow(dead_code, reason = "the list of targets is for the tests only")]
mod targets;

pub use targets::Target;

/// The application, a token of a staff account, and the runtime.
static APP: OnceLock<(harness::TestApp, String, Runtime)> = OnceLock::new();

/// Sends an input to the server; panics when the response violates a property.
pub fn run_case(target: Target, bytes: &[u8]) {
    let (app, token, runtime) = APP.get_or_init(|| {
        let runtime = Runtime::new().expect("a runtime");
        let (app, token) = runtime.block_on(targets::spawn_app());
        (app, token, runtime)
    });
    runtime.block_on(targets::run_case(target, bytes, app.server.address, token));
}
