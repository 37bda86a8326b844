//! The state that all handlers share: one plain struct, passed by reference. It knows no handler.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use prometheus_client::metrics::counter::Counter;
use tokio::sync::Semaphore;

use crate::{
    auth::{Authenticator, PasswordHasherPool, Tokens},
    cache::{Cache, CountCache, ExportFileCache},
    config::Config,
    db::{Database, replica::Replica},
    http::Request,
    limits::{FairSemaphore, RateLimiter, ResponseBudget, Tarpit},
    redis::{CONNECT_TIMEOUT, RedisClient},
    versions::{Revocations, VersionReader},
};

/// Everything that outlives a request.
pub struct App {
    /// The settings.
    pub(crate) config: Config,
    /// PostgreSQL.
    pub(crate) database: Database,
    /// A replica for large reads, if there is one.
    pub(crate) replica: Option<Arc<Replica>>,
    /// Who may come in.
    pub gate: Authenticator,
    /// Hashing threads.
    pub(crate) passwords: PasswordHasherPool,
    /// Throttles of login and register.
    pub(crate) throttle: RateLimiter,
    /// Where many are refused at once, they wait for it.
    pub(crate) refusals: Tarpit,
    /// Sessions that ended because a spent refresh token came again.
    pub(crate) sessions_copied: Counter,
    /// Redis, if there is one.
    pub(crate) shared: Option<Arc<RedisClient>>,
    /// Rendered lists.
    pub(crate) cache: Arc<Cache>,
    /// Rendered lists that somebody is reading.
    pub lent: ResponseBudget,
    /// How many products filters let through.
    pub(crate) counts: Arc<CountCache>,
    /// Finished exports.
    pub(crate) files: Arc<ExportFileCache>,
    /// At making exports.
    pub exports: Arc<FairSemaphore>,
    /// At reading exports, each of which holds some buffers at its client's pace.
    pub downloads: Arc<FairSemaphore>,
    /// Permits for imports.
    pub imports: Arc<Semaphore>,
    /// At filling the cache with what somebody asked for with parameters.
    pub fills: Arc<FairSemaphore>,
    /// At lists too large to keep, which hold a snapshot and a connection at their clients' pace.
    pub(crate) streams: Arc<FairSemaphore>,
    stopping: AtomicBool,
}

impl App {
    /// Puts everything together. Connects to Redis if there is one; to PostgreSQL with the first request.
    pub(crate) async fn new(config: Config) -> anyhow::Result<Arc<Self>> {
        let database = Database::new(&config.database);
        let shared = config.shared.as_ref().map(RedisClient::new).transpose()?;
        if let Some(shared) = &shared {
            shared.start(CONNECT_TIMEOUT).await;
        }
        let revocations = Arc::<Revocations>::default();
        let freshness = VersionReader::start(database.clone(), Arc::clone(&revocations) as _, config.stale_if_error);
        let tokens = Tokens::new(&config.jwt_secrets, config.access_token_ttl);
        Ok(Arc::new(Self {
            gate: Authenticator { tokens, freshness, revocations, database: database.clone() },
            passwords: PasswordHasherPool::start(config.pbkdf2_threads, config.pbkdf2_iterations),
            throttle: RateLimiter::new(config.rate_limit, shared.clone()),
            refusals: Tarpit::default(),
            sessions_copied: Counter::default(),
            cache: Cache::new(config.cache_mode, config.cache_bytes, config.cache_entry_bytes, shared.clone()),
            lent: ResponseBudget::new(config.cache_bytes.max(LEAST_LENT)),
            counts: Arc::default(),
            files: ExportFileCache::new(config.export_dir.clone(), config.kept_export_bytes()),
            exports: FairSemaphore::new(config.export_concurrency, EXPORT_PARTS),
            downloads: FairSemaphore::new(DOWNLOADS, DOWNLOAD_PARTS),
            imports: Arc::new(Semaphore::new(config.import_concurrency)),
            fills: FairSemaphore::new((config.database.pool_size / 2).max(1), FILL_PARTS),
            streams: FairSemaphore::new(config.stream_concurrency, STREAM_PARTS),
            stopping: AtomicBool::new(false),
            replica: config.replica.as_ref().map(|settings| Arc::new(Replica::new(settings))),
            shared,
            database,
            config,
        }))
    }

    /// Whether a stop was asked for: no new work should be sent here.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Relaxed)
    }

    /// A stop was asked for.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Relaxed);
    }

    /// The client's address: the last one in `X-Forwarded-For` that no trusted proxy added, or the peer's.
    pub(crate) fn client_address(&self, request: &Request) -> IpAddr {
        let trusted = |address: &IpAddr| self.config.trusted_proxies.iter().any(|network| network.contains(address));
        let mut client = request.peer();
        if !trusted(&client) {
            return client;
        }
        let forwarded = request.headers().get_all("x-forwarded-for");
        let hops: Vec<&str> =
            forwarded.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).collect();
        for hop in hops.iter().rev() {
            let Ok(address) = hop.trim().parse::<IpAddr>() else { break };
            client = address.to_canonical();
            if !trusted(&client) {
                break;
            }
        }
        client
    }

    /// Forgets what has expired, again and again; every instance may do it at the same time.
    pub(crate) async fn prune_for_ever(&self) {
        use crate::db::statements::{IDEMPOTENCY_PRUNE, REVOCATIONS_PRUNE, SESSIONS_PRUNE};
        loop {
            tokio::time::sleep(PRUNE_INTERVAL).await;
            for statement in [&REVOCATIONS_PRUNE, &SESSIONS_PRUNE, &IDEMPOTENCY_PRUNE] {
                if let Err(failure) = self.database.rows(statement, &[]).await {
                    tracing::warn!(%failure, "what has expired could not be forgotten");
                }
            }
            self.gate.revocations.start_over();
        }
    }
}

/// Lists of so many bytes may be on their way, however few are kept.
const LEAST_LENT: usize = 64 << 20;
/// So many exports are read at a time: half a MiB of buffers each, at worst.
const DOWNLOADS: usize = 256;
/// What one user has at most of all that run at a time: a half of the exports and of the fills (which have a half of the pool),
/// a quarter of the streamed lists, an eighth of the downloads.
const EXPORT_PARTS: usize = 2;
const DOWNLOAD_PARTS: usize = 8;
const FILL_PARTS: usize = 2;
const STREAM_PARTS: usize = 4;
const PRUNE_INTERVAL: Duration = Duration::from_secs(600);
