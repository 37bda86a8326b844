//! The memory plan: what the server can need at its limits, checked against the memory that it may use.
//!
//! Clients can bring the server to all of its limits at once, so their sum has to fit. Settings that are `auto` are
//! sized to what fits. A sum that exceeds the memory limit is an error at the start; otherwise the system would kill
//! the process under load.

use std::fmt::Write;

use super::{
    memory_limit::{LimitSource, MemoryLimit},
    parser::Parser,
};
use crate::{
    cache::{UNCOUNTED_FILL_BYTES, fill_memory_bytes},
    http::listener::max_kernel_bytes,
    limits::IMPORT_POOL_BYTES,
};

const HEADING: &str = "Memory";

#[derive(Debug, Clone, clap::Args)]
pub(super) struct MemoryArgs {
    /// Memory that the server may use, in bytes; auto: the limit of the control group, or the physical memory
    #[arg(long, env = "MEMORY_LIMIT", default_value = "auto", help_heading = HEADING)]
    memory_limit: String,
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Program, idle database connections, tokens, rate limit counters, and the allocator's reserve.
const BASE_BYTES: u64 = 48 * MIB;
/// A busy connection: its task, hyper's buffers, the uncounted first bytes of a request and of a response. Measured on a
/// release build: 18 KiB while the client does not read, when the socket buffers are full; 28 to 33 KiB while a head or a
/// body is read, when they are empty, so that both take less than this and the smallest socket buffers together.
const CONNECTION_BYTES: u64 = 20 * KIB;
/// An import besides its share of the pool of all imports: one row, one XML event, the package's directory, the report.
const IMPORT_BYTES: u64 = 24 * MIB;
/// An export being built: batches of rows and the buffers of the workbook writer.
const EXPORT_BYTES: u64 = 12 * MIB;
/// A list streamed from the database: rows and frames.
const STREAM_BYTES: u64 = 512 * KIB;
/// A download: frames of 64 KiB.
const DOWNLOAD_BYTES: u64 = 256 * KIB;
/// Bodies that are sent piece by piece at the same time, from a file or from the cache.
pub(crate) const MAX_DOWNLOADS: usize = 64;

const DEFAULT_CONNECTIONS: u64 = 8192;
const DEFAULT_CACHE_BYTES: u64 = 128 * MIB;
/// The least that automatic sizing chooses.
const MIN_CONNECTIONS: u64 = 64;
const MIN_CACHE_BYTES: u64 = 32 * MIB;
/// Automatic sizing chooses a multiple of this number of connections.
const CONNECTION_STEP: usize = 64;
/// Minimum size of the response budget, also if the cache is smaller.
const MIN_RESPONSE_BUDGET: u64 = 16 * MIB;
/// A cache of automatic size takes at most this part of the memory limit, if that is set for this process.
const CACHE_DIVISOR: u64 = 8;

/// The settings that determine the memory of the server. `None` stands for `auto`.
#[derive(Debug, Clone, Copy)]
pub(super) struct MemorySettings {
    pub(super) max_connections: Option<usize>,
    pub(super) cache_bytes: Option<usize>,
    /// `CACHE_ENTRY_BYTES`.
    pub(super) entry_bytes: usize,
    /// `DB_POOL_SIZE`: the number of lists that can be loaded at the same time.
    pub(super) pool_size: usize,
    /// Bytes of unfinished requests.
    pub(super) request_budget_bytes: usize,
    pub(super) imports: usize,
    pub(super) exports: usize,
    pub(super) streams: usize,
}

/// The sizes that the server uses.
#[derive(Debug, Clone)]
pub(crate) struct MemoryPlan {
    /// `None` where the system does not tell.
    pub(crate) limit: Option<MemoryLimit>,
    pub(crate) max_connections: usize,
    pub(crate) cache_bytes: usize,
    /// Maximum size of a cached list: `CACHE_ENTRY_BYTES`, but at most what half of the cache or of the responses holds.
    pub(crate) entry_bytes: usize,
    /// Bytes of responses in flight.
    pub(crate) response_budget_bytes: usize,
    /// The parts of the sum: a setting or a description, and bytes.
    parts: Vec<(&'static str, u64)>,
}

impl MemoryArgs {
    /// Returns the plan for these settings. A plan that the memory cannot hold is an error.
    pub(super) fn plan(&self, parser: &mut Parser, settings: MemorySettings) -> MemoryPlan {
        let set = parser.number_or_auto("MEMORY_LIMIT", &self.memory_limit, 1, u64::MAX);
        let set = set.map(|bytes| MemoryLimit { bytes, source: LimitSource::Setting });
        let plan = settings.plan(set.or_else(MemoryLimit::detect));
        if let Err((setting, message)) = plan.check() {
            parser.error(setting, message);
        }
        plan
    }
}

impl MemorySettings {
    /// Returns the sizes of the server. They may exceed `limit` if they are set or if the limit is too low.
    fn plan(self, limit: Option<MemoryLimit>) -> MemoryPlan {
        let available = limit.map_or(u64::MAX, |limit| limit.bytes);
        let fixed: u64 = self.fixed_parts().iter().map(|(_, bytes)| bytes).sum();
        let min_cache = self.cache_bytes.map_or(MIN_CACHE_BYTES, |bytes| bytes as u64);
        let for_connections = available.saturating_sub(fixed).saturating_sub(self.list_bytes(min_cache));
        let max_connections =
            self.max_connections.map_or_else(|| auto_connections(for_connections), |connections| connections as u64);
        let connections_bytes = connections_bytes(max_connections);
        let for_lists = available.saturating_sub(fixed).saturating_sub(connections_bytes);
        let cache_bytes = self.cache_bytes.map_or_else(
            || self.auto_cache(for_lists).clamp(MIN_CACHE_BYTES, max_auto_cache(limit)),
            |bytes| bytes as u64,
        );
        let (responses, entry) = (response_budget(cache_bytes), self.entry_limit(cache_bytes));
        let mut parts = vec![("MAX_CONNECTIONS", connections_bytes), ("CACHE_BYTES", cache_bytes)];
        parts.push(("responses in flight (as CACHE_BYTES)", responses));
        parts.push(("a large list being loaded", fill_memory_bytes(entry)));
        parts.extend(self.fixed_parts());
        MemoryPlan {
            limit,
            max_connections: to_usize(max_connections),
            cache_bytes: to_usize(cache_bytes),
            entry_bytes: to_usize(entry),
            response_budget_bytes: to_usize(responses),
            parts,
        }
    }

    /// Returns the size limit of a list beside a cache of this size: half of the cache is for complete lists, and half of
    /// the responses in flight is the share of a user.
    fn entry_limit(self, cache_bytes: u64) -> u64 {
        (self.entry_bytes as u64).min(response_budget(cache_bytes) / 2)
    }

    /// Returns the bytes of the lists: in the cache, in flight, and being loaded.
    fn list_bytes(self, cache_bytes: u64) -> u64 {
        let loading = fill_memory_bytes(self.entry_limit(cache_bytes));
        cache_bytes.saturating_add(response_budget(cache_bytes)).saturating_add(loading)
    }

    /// Returns the largest cache whose lists `bytes` can hold.
    fn auto_cache(self, bytes: u64) -> u64 {
        // lists of half of the cache are the largest: then all three parts have the same size, an even number
        let third = bytes / 6 * 2;
        if self.list_bytes(third) == third * 3 {
            third
        } else {
            bytes.saturating_sub(fill_memory_bytes(self.entry_bytes as u64)) / 2
        }
    }

    /// Returns the parts that are not sized automatically.
    fn fixed_parts(self) -> [(&'static str, u64); 7] {
        let times = |count: usize, bytes: u64| (count as u64).saturating_mul(bytes);
        let imports = times(self.imports, IMPORT_BYTES).saturating_add(IMPORT_POOL_BYTES as u64);
        [
            ("IMPORT_CONCURRENCY", imports),
            ("DB_POOL_SIZE", times(self.pool_size, 2 * UNCOUNTED_FILL_BYTES as u64)),
            ("EXPORT_CONCURRENCY", times(self.exports, EXPORT_BYTES)),
            ("STREAM_CONCURRENCY", times(self.streams, STREAM_BYTES)),
            ("downloads", times(MAX_DOWNLOADS, DOWNLOAD_BYTES)),
            ("unfinished requests", self.request_budget_bytes as u64),
            ("base", BASE_BYTES),
        ]
    }
}

impl MemoryPlan {
    /// Returns the bytes that the server can need.
    pub(crate) fn sum(&self) -> u64 {
        self.parts.iter().fold(0, |sum, (_, bytes)| sum.saturating_add(*bytes))
    }

    /// Returns the sum and its parts as text.
    pub(crate) fn describe(&self) -> String {
        let mut text = format!("{} MiB", self.sum().div_ceil(MIB));
        for (index, (part, bytes)) in self.parts.iter().enumerate() {
            let separator = if index == 0 { " = " } else { " + " };
            let _ = write!(text, "{separator}{} {part}", bytes.div_ceil(MIB));
        }
        text
    }

    /// Returns an error if the sum exceeds the limit: the setting with the largest part, and a message with the sum.
    fn check(&self) -> Result<(), (&'static str, String)> {
        let Some(limit) = self.limit.filter(|limit| self.sum() > limit.bytes) else { return Ok(()) };
        let is_setting = |part: &&(&'static str, u64)| part.0.starts_with(|first: char| first.is_ascii_uppercase());
        let largest = self.parts.iter().filter(is_setting).max_by_key(|(_, bytes)| *bytes);
        let message = format!(
            "needs too much memory: the sum of all limits is {}, but {} is {} MiB",
            self.describe(),
            limit.source,
            limit.bytes / MIB
        );
        Err((largest.map_or("MEMORY_LIMIT", |(setting, _)| setting), message))
    }
}

/// Returns the largest number of connections that `bytes` can hold, at most the default.
fn auto_connections(bytes: u64) -> u64 {
    let mut numbers = (MIN_CONNECTIONS..=DEFAULT_CONNECTIONS).rev().step_by(CONNECTION_STEP);
    numbers.find(|number| connections_bytes(*number) <= bytes).unwrap_or(MIN_CONNECTIONS)
}

/// Returns the bytes of this many connections in the process and in the kernel.
fn connections_bytes(number: u64) -> u64 {
    number.saturating_mul(CONNECTION_BYTES).saturating_add(max_kernel_bytes(to_usize(number)) as u64)
}

/// Returns the size of the budget for responses in flight beside a cache of this size.
fn response_budget(cache_bytes: u64) -> u64 {
    cache_bytes.max(MIN_RESPONSE_BUDGET)
}

/// Returns the largest cache that automatic sizing chooses. The physical memory is shared with other programs, so only a
/// limit of this process makes the cache larger.
fn max_auto_cache(limit: Option<MemoryLimit>) -> u64 {
    let own = limit.filter(|limit| limit.source != LimitSource::PhysicalMemory);
    own.map_or(0, |limit| limit.bytes / CACHE_DIVISOR).max(DEFAULT_CACHE_BYTES)
}

fn to_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULTS: MemorySettings = MemorySettings {
        max_connections: None,
        cache_bytes: None,
        entry_bytes: 32 << 20,
        pool_size: 16,
        request_budget_bytes: 32 << 20,
        imports: 2,
        exports: 2,
        streams: 16,
    };

    fn limit(mib: u64, source: LimitSource) -> MemoryLimit {
        MemoryLimit { bytes: mib * MIB, source }
    }

    fn container(mib: u64) -> MemoryLimit {
        limit(mib, LimitSource::ControlGroup)
    }

    #[test]
    fn automatic_sizes_fit_the_limit() {
        for mib in [512, 640, 768, 800, 1024, 2048, 65_536] {
            let plan = DEFAULTS.plan(Some(container(mib)));
            assert!(plan.sum() <= mib * MIB, "{mib}: {}", plan.describe());
            let unused = mib * MIB - plan.sum();
            let is_largest = plan.max_connections == 8192 && plan.cache_bytes as u64 >= (128 * MIB).max(mib * MIB / 8);
            assert!(unused < 2 * MIB || is_largest, "{mib}: {unused} bytes are unused");
        }
    }

    #[test]
    fn connections_are_fewer_where_the_limit_is_low() {
        let plan = DEFAULTS.plan(Some(container(640)));
        assert!((4000..7000).contains(&plan.max_connections), "{}", plan.max_connections);
        assert!(plan.cache_bytes as u64 >= MIN_CACHE_BYTES, "{}", plan.describe());
        let shipped = DEFAULTS.plan(Some(container(768)));
        assert_eq!(shipped.max_connections, 8192);
        assert!((38..56).contains(&(shipped.cache_bytes >> 20)), "{}", shipped.describe());
    }

    #[test]
    fn lists_are_limited_by_the_cache() {
        let plan = |cache_bytes, entry_bytes| {
            MemorySettings { cache_bytes: Some(cache_bytes), entry_bytes, ..DEFAULTS }.plan(Some(container(1024)))
        };
        assert_eq!(plan(48 << 20, 32 << 20).entry_bytes, 24 << 20);
        assert_eq!(plan(128 << 20, 32 << 20).entry_bytes, 32 << 20);
        assert_eq!(plan(48 << 20, 1000).entry_bytes, 1000);
        assert_eq!(plan(0, 32 << 20).entry_bytes, 8 << 20, "Redis can hold it");
        assert!(plan(48 << 20, 32 << 20).describe().contains(" + 48 a large list being loaded + "));
    }

    #[test]
    fn cache_grows_with_the_limit_of_the_process_only() {
        let cache = |limit| DEFAULTS.plan(limit).cache_bytes as u64 / MIB;
        assert_eq!(cache(Some(container(8192))), 1024);
        assert_eq!(cache(Some(limit(8192, LimitSource::Setting))), 1024);
        assert_eq!(cache(Some(limit(8192, LimitSource::PhysicalMemory))), 128);
        assert_eq!(cache(None), 128);
    }

    #[test]
    fn set_values_are_kept_or_refused_with_the_sum() {
        let settings = MemorySettings { max_connections: Some(1000), cache_bytes: Some(64 << 20), ..DEFAULTS };
        let plan = settings.plan(Some(container(768)));
        assert_eq!(plan.check(), Ok(()));
        assert_eq!((plan.max_connections, plan.cache_bytes, plan.response_budget_bytes), (1000, 64 << 20, 64 << 20));
        let refused = |settings: MemorySettings| settings.plan(Some(container(768))).check().unwrap_err();
        let (setting, message) = refused(MemorySettings { max_connections: Some(100_000), ..DEFAULTS });
        assert!(message.starts_with("needs too much memory: the sum of all limits is "), "{message}");
        assert_eq!(setting, "MAX_CONNECTIONS");
        assert!(message.contains("3610 MAX_CONNECTIONS") && message.ends_with("control group is 768 MiB"), "{message}");
        assert!(refused(MemorySettings { cache_bytes: Some(1 << 30), ..DEFAULTS }).0 == "CACHE_BYTES");
        assert!(refused(MemorySettings { cache_bytes: Some(usize::MAX), ..DEFAULTS }).0 == "CACHE_BYTES");
        assert!(refused(MemorySettings { imports: 20, ..DEFAULTS }).0 == "IMPORT_CONCURRENCY");
        assert!(DEFAULTS.plan(Some(container(100))).check().is_err());
    }
}
