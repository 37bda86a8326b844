//! One server for all inputs of a fuzz target. The requests and the checks are those of the tests. The memory and the
//! CPU time of every input are limited, server and client together.

use std::{fs, sync::OnceLock};

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

/// Memory that an input may take over the resident set before it.
const MAX_INPUT_KIB: u64 = 64 * 1024;
/// CPU time that an input may take. The time on the clock says little on a busy machine; `targets` limits it to detect
/// a hang.
const MAX_INPUT_CPU_SECONDS: f64 = 1.0;

/// Returns a size of this process in KiB, by its field in `/proc/self/status`.
fn memory_kib(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with(field)).expect("the field exists");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}

/// Returns the CPU time of this process in seconds.
fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").expect("Linux");
    let (_, fields) = stat.rsplit_once(')').expect("the name is in parentheses");
    // utime and stime, in the ticks of 10 ms that Linux reports to user space
    let ticks = fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<f64>().expect("a number"));
    ticks.sum::<f64>() / 100.0
}

/// Sends an input to the server; panics when the response violates a property or the input takes too much.
pub fn run_case(target: Target, bytes: &[u8]) {
    let (app, token, runtime) = APP.get_or_init(|| {
        let runtime = Runtime::new().expect("a runtime");
        let (app, token) = runtime.block_on(targets::spawn_app());
        (app, token, runtime)
    });
    // sets the peak of the resident set to its present size
    fs::write("/proc/self/clear_refs", "5").expect("Linux");
    let (memory_before, cpu_before) = (memory_kib("VmRSS"), cpu_seconds());
    runtime.block_on(targets::run_case(target, bytes, app.server.address, token));
    let memory = memory_kib("VmHWM").saturating_sub(memory_before);
    let cpu = cpu_seconds() - cpu_before;
    assert!(memory <= MAX_INPUT_KIB, "{target:?}: an input of {} bytes took {memory} KiB", bytes.len());
    assert!(cpu <= MAX_INPUT_CPU_SECONDS, "{target:?}: an input of {} bytes took {cpu} s of CPU time", bytes.len());
}
