//! Resource usage of the server that is never killed, sampled during a run.

use std::time::Instant;

use tokio_postgres::NoTls;

use crate::{harness::Process, stress::median};

/// The resource usage at one moment.
pub struct Sample {
    /// Seconds since the beginning of the run.
    seconds: f64,
    /// KiB.
    memory: i64,
    descriptors: usize,
    /// Connections of all servers to PostgreSQL.
    backends: i64,
    /// KiB of cached exports.
    disk: u64,
}

impl Sample {
    pub async fn take(process: &Process, began: Instant, database_url: &str) -> Self {
        Self {
            seconds: began.elapsed().as_secs_f64(),
            memory: process.memory_kib("VmRSS"),
            descriptors: process.descriptors(),
            backends: count_backends(database_url).await,
            disk: process.open_file_kib(),
        }
    }
}

/// Returns 0 while PostgreSQL is starting.
async fn count_backends(database_url: &str) -> i64 {
    let count = "select count(*) from pg_stat_activity where application_name = 'testshop'";
    let Ok((client, connection)) = tokio_postgres::connect(database_url, NoTls).await else { return 0 };
    tokio::spawn(connection);
    client.query_one(count, &[]).await.map_or(0, |row| row.get(0))
}

/// Compares the second quarter of the samples with the last one, and returns their medians as text.
///
/// # Panics
/// When a median has grown by more than 20 %.
pub fn assert_no_growth(samples: &[Sample]) -> String {
    assert!(samples.len() >= 60, "{} samples", samples.len());
    let quarter = samples.len() / 4;
    let (second, last) = (&samples[quarter..2 * quarter], &samples[3 * quarter..]);
    let compare = |name: &str, unit: &str, value: fn(&Sample) -> f64| {
        let [before, after] = [second, last].map(|samples| median(samples.iter().map(value)));
        assert!(after <= before * 1.2 + 2.0, "{name} grew from {before:.1} to {after:.1}{unit}");
        format!("{name} {before:.0} and {after:.0}{unit}")
    };
    [
        compare("memory", " MiB", |sample| sample.memory as f64 / 1024.0),
        compare("descriptors", "", |sample| sample.descriptors as f64),
        compare("PostgreSQL connections", "", |sample| sample.backends as f64),
        compare("exports on disk", " KiB", |sample| sample.disk as f64),
    ]
    .join(", ")
}

/// Writes the samples to the file in `STRESS_SAMPLES`, for the plot.
pub fn write_samples(samples: &[Sample]) {
    let Some(path) = std::env::var_os("STRESS_SAMPLES") else { return };
    let rows: Vec<_> = samples
        .iter()
        .map(|sample| {
            let Sample { seconds, memory, descriptors, backends, disk } = sample;
            serde_json::json!([seconds, memory, descriptors, backends, disk])
        })
        .collect();
    std::fs::write(path, serde_json::to_vec(&rows).unwrap()).unwrap();
}
