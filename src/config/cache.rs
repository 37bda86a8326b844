//! Settings of the cache and of Redis.

use std::{path::PathBuf, time::Duration};

use super::parser::Parser;
use crate::{cache::CacheMode, redis::RedisSettings};

const HEADING: &str = "Cache";

#[derive(Debug, Clone, clap::Args)]
pub(super) struct CacheArgs {
    /// Redis or Valkey: redis://:password@host:port/db, rediss:// with TLS,
    /// redis+sentinel://:password@host,host/master; without it, each instance has its own cache and rate limits
    #[arg(long, env = "REDIS_URL", hide_env_values = true, help_heading = HEADING)]
    redis_url: Option<String>,
    /// File that contains REDIS_URL
    #[arg(long, env = "REDIS_URL_FILE", help_heading = HEADING)]
    redis_url_file: Option<PathBuf>,
    /// PEM file with the CA certificates for rediss:// [default: system roots]
    #[arg(long, env = "REDIS_CA_FILE", help_heading = HEADING)]
    redis_ca_file: Option<PathBuf>,
    /// Prefix of all Redis keys; shops that share a Redis need different prefixes
    #[arg(long, env = "REDIS_PREFIX", default_value = "testshop", help_heading = HEADING)]
    redis_prefix: String,
    /// full (process memory over Redis); redis and off are for measurements only
    #[arg(long, env = "CACHE_MODE", default_value = "full", help_heading = HEADING)]
    cache_mode: String,
    /// Size of the in-process cache in bytes: one half for complete lists, the other half for all other lists; auto: 128
    /// MiB, or an eighth of the memory limit, or what fits it
    #[arg(long, env = "CACHE_BYTES", default_value = "auto", help_heading = HEADING)]
    cache_bytes: String,
    /// A list of more bytes, or of more than half of CACHE_BYTES, is streamed and not cached
    #[arg(long, env = "CACHE_ENTRY_BYTES", default_value = "33554432", help_heading = HEADING)]
    cache_entry_bytes: String,
    /// Maximum age of a list that is served, labelled as stale, while the database is unavailable; 0s: respond with 503
    #[arg(long, env = "STALE_IF_ERROR", default_value = "30s", help_heading = HEADING)]
    stale_if_error: String,
}

#[derive(Debug, Clone)]
pub(crate) struct CacheSettings {
    pub(crate) mode: CacheMode,
    /// Maximum age of a list that is served while the database is unavailable.
    pub(crate) stale_if_error: Duration,
}

const CACHE_MODES: [(&str, CacheMode); 3] =
    [("full", CacheMode::Full), ("redis", CacheMode::Redis), ("off", CacheMode::Off)];

impl CacheArgs {
    /// Returns the size of the in-process cache, or `None` if it follows from the memory.
    pub(super) fn bytes(&self, parser: &mut Parser) -> Option<usize> {
        parser.number_or_auto("CACHE_BYTES", &self.cache_bytes, 0, usize::MAX)
    }

    /// Returns the size limit of a list that is set; a small cache reduces it.
    pub(super) fn entry_bytes(&self, parser: &mut Parser) -> usize {
        parser.number("CACHE_ENTRY_BYTES", &self.cache_entry_bytes, 0, usize::MAX)
    }

    pub(super) fn parse(&self, parser: &mut Parser) -> CacheSettings {
        CacheSettings {
            mode: parser.one_of("CACHE_MODE", &self.cache_mode, &CACHE_MODES),
            stale_if_error: parser.duration("STALE_IF_ERROR", &self.stale_if_error),
        }
    }

    pub(super) fn parse_redis(&self, parser: &mut Parser) -> Option<RedisSettings> {
        let url = parser.secret("REDIS_URL", self.redis_url.as_deref(), self.redis_url_file.as_ref())?;
        let roots = match self.redis_ca_file.as_ref().filter(|path| !path.as_os_str().is_empty()) {
            None => None,
            Some(path) => match std::fs::read(path) {
                Ok(pem) => Some(pem),
                Err(error) => {
                    parser.error("REDIS_CA_FILE", format!("{} cannot be read: {error}", path.display()));
                    None
                }
            },
        };
        let settings = RedisSettings { url, roots, prefix: self.redis_prefix.clone() };
        if let Err(error) = settings.check() {
            parser.error("REDIS_URL", error);
        }
        Some(settings)
    }
}
