//! Settings of streamed lists, exports and imports.

use std::{path::PathBuf, time::Duration};

use super::parser::Parser;

const HEADING: &str = "Large lists and files";

#[derive(Debug, Clone, clap::Args)]
pub(super) struct FileArgs {
    /// Time limit of an export, an import or a streamed list
    #[arg(long, env = "EXPORT_TIMEOUT", default_value = "300s", help_heading = HEADING)]
    export_timeout: String,
    /// Concurrent streamed lists, each on its own database connection
    #[arg(long, env = "STREAM_CONCURRENCY", default_value = "16", help_heading = HEADING)]
    stream_concurrency: String,
    /// Concurrent export builds
    #[arg(long, env = "EXPORT_CONCURRENCY", default_value = "2", help_heading = HEADING)]
    export_concurrency: String,
    /// Directory for unnamed files: exports and uploads [default: the system's temporary directory]
    #[arg(long, env = "EXPORT_DIR", help_heading = HEADING)]
    export_dir: Option<PathBuf>,
    /// Total size of cached exports in bytes
    #[arg(long, env = "EXPORT_BYTES", default_value = "1073741824", help_heading = HEADING)]
    export_bytes: String,
    /// Size limit of an uploaded file in bytes
    #[arg(long, env = "IMPORT_BYTES", default_value = "67108864", help_heading = HEADING)]
    import_bytes: String,
    /// Concurrent imports
    #[arg(long, env = "IMPORT_CONCURRENCY", default_value = "2", help_heading = HEADING)]
    import_concurrency: String,
}

#[derive(Debug, Clone)]
pub(crate) struct FileSettings {
    /// Of an export, an import or a streamed list.
    pub(crate) export_timeout: Duration,
    pub(crate) stream_concurrency: usize,
    pub(crate) export_concurrency: usize,
    /// For exports and uploads; the system's temporary directory if it is `None`.
    pub(crate) export_dir: Option<PathBuf>,
    /// Total size of cached exports while the cache is on.
    pub(crate) export_bytes: u64,
    /// Size limit of an uploaded file.
    pub(crate) import_bytes: u64,
    pub(crate) import_concurrency: usize,
}

impl FileArgs {
    pub(super) fn parse(&self, parser: &mut Parser) -> FileSettings {
        FileSettings {
            export_timeout: parser.duration("EXPORT_TIMEOUT", &self.export_timeout),
            stream_concurrency: parser.number("STREAM_CONCURRENCY", &self.stream_concurrency, 1, 10_000),
            export_concurrency: parser.number("EXPORT_CONCURRENCY", &self.export_concurrency, 1, 100),
            export_dir: self.export_dir.clone().filter(|dir| !dir.as_os_str().is_empty()),
            export_bytes: parser.number("EXPORT_BYTES", &self.export_bytes, 0, u64::MAX),
            import_bytes: parser.number("IMPORT_BYTES", &self.import_bytes, 1, 1 << 40),
            import_concurrency: parser.number("IMPORT_CONCURRENCY", &self.import_concurrency, 1, 100),
        }
    }
}
