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
    auth::{Gate, Passwords, Refusals, Revocations, Throttle, Tokens, Turns},
    cache::{Cache, Counts, Files, Freshness, Lent, Shared, shared::CONNECT_TIMEOUT},
    config::Config,
    db::{Database, replica::Replica},
    http::Request,
};

/// Everything that outlives a request.
pub struct App {
    /// The settings.
    pub config: Config,
    /// PostgreSQL.
    pub database: Database,
    /// A replica for large reads, if there is one.
    pub replica: Option<Arc<Replica>>,
    /// Who may come in.
    pub gate: Gate,
    /// Hashing threads.
    pub passwords: Passwords,
    /// Throttles of login and register.
    pub throttle: Throttle,
    /// Where many are refused at once, they wait for it.
    pub refusals: Refusals,
    /// Sessions that ended because a spent refresh token came again.
    pub sessions_copied: Counter,
    /// Redis, if there is one.
    pub shared: Option<Arc<Shared>>,
    /// Rendered lists.
    pub cache: Arc<Cache>,
    /// Rendered lists that somebody is reading.
    pub lent: Lent,
    /// How many products filters let through.
    pub counts: Arc<Counts>,
    /// Finished exports.
    pub files: Arc<Files>,
    /// At making exports.
    pub exports: Arc<Turns>,
    /// At reading exports, each of which holds some buffers at its client's pace.
    pub downloads: Arc<Turns>,
    /// Permits for imports.
    pub imports: Arc<Semaphore>,
    /// At filling the cache with what somebody asked for with parameters.
    pub fills: Arc<Turns>,
    /// At lists too large to keep, which hold a snapshot and a connection at their clients' pace.
    pub streams: Arc<Turns>,
    stopping: AtomicBool,
}

impl App {
    /// Puts everything together. Connects to Redis if there is one; to PostgreSQL with the first request.
    pub async fn new(config: Config) -> anyhow::Result<Arc<Self>> {
        let database = Database::new(&config.database);
        let shared = config.shared.as_ref().map(Shared::new).transpose()?;
        if let Some(shared) = &shared {
            shared.start(CONNECT_TIMEOUT).await;
        }
        let revocations = Arc::<Revocations>::default();
        let freshness = Freshness::start(database.clone(), Arc::clone(&revocations) as _, config.stale_if_error);
        let tokens = Tokens::new(&config.jwt_secrets, config.access_token_ttl);
        Ok(Arc::new(Self {
            gate: Gate { tokens, freshness, revocations, database: database.clone() },
            passwords: Passwords::start(config.pbkdf2_threads, config.pbkdf2_iterations),
            throttle: Throttle::new(config.rate_limit, shared.clone()),
            refusals: Refusals::default(),
            sessions_copied: Counter::default(),
            cache: Cache::new(config.cache_mode, config.cache_bytes, config.cache_entry_bytes, shared.clone()),
            lent: Lent::new(config.cache_bytes.max(LEAST_LENT)),
            counts: Arc::default(),
            files: Files::new(config.export_dir.clone(), config.kept_export_bytes()),
            exports: Turns::new(config.export_concurrency, EXPORT_PARTS),
            downloads: Turns::new(DOWNLOADS, DOWNLOAD_PARTS),
            imports: Arc::new(Semaphore::new(config.import_concurrency)),
            fills: Turns::new((config.database.pool_size / 2).max(1), FILL_PARTS),
            streams: Turns::new(config.stream_concurrency, STREAM_PARTS),
            stopping: AtomicBool::new(false),
            replica: config.replica.as_ref().map(|settings| Arc::new(Replica::new(settings))),
            shared,
            database,
            config,
        }))
    }

    /// Whether a stop was asked for: no new work should be sent here.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Relaxed)
    }

    /// A stop was asked for.
    pub fn stop(&self) {
        self.stopping.store(true, Relaxed);
    }

    /// The client's address: the last one in `X-Forwarded-For` that no trusted proxy added, or the peer's.
    pub fn client_address(&self, request: &Request) -> IpAddr {
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
    pub async fn prune_for_ever(&self) {
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
