//! The state that all handlers share. Handlers receive it by reference.

use std::{
    net::IpAddr,
    sync::{Arc, Weak},
    time::Duration,
};

use prometheus_client::metrics::counter::Counter;
use tokio::sync::watch;
use tracing::warn;

use crate::{
    auth::{Authenticator, PasswordHasherPool, RevocationHints, Tokens, User},
    cache::{Cache, ChangePages, CountCache, ExportFileCache, RedisCache},
    config::{Config, MAX_DOWNLOADS},
    db::{
        Database, Statement,
        replica::Replica,
        schema_monitor::SchemaMonitor,
        statements::{IDEMPOTENCY_PRUNE, REVOCATIONS_PRUNE, SESSIONS_PRUNE, TRUSTED_ADDRESSES_PRUNE, VERSIONS_PRUNE},
    },
    error::{Error, Result},
    http::{Request, forwarded::client_address, static_asset::StaticAssets},
    limits::{Client, FairSemaphore, ImportPool, Permit, RateLimiter, ResponseBudget, ShareDivisors, Tarpit},
    mac::MacKeys,
    network::ClientNetwork,
    redis::{CONNECT_TIMEOUT, RedisClient},
    versions::{Revocations, VersionReader, VersionWatch},
};

// One network holds at most half of the permits, however many accounts it has.
const EXPORT_SHARES: ShareDivisors = ShareDivisors { user: 2, network: 2 };
const DOWNLOAD_SHARES: ShareDivisors = ShareDivisors { user: 4, network: 2 };
const FILL_SHARES: ShareDivisors = ShareDivisors { user: 2, network: 2 };
const STREAM_SHARES: ShareDivisors = ShareDivisors { user: 4, network: 2 };
/// Only staff may import, and nobody can register as staff, so there is no share per network: an office with several
/// members of the staff has one address.
const IMPORT_SHARES: ShareDivisors = ShareDivisors { user: 2, network: 1 };
/// One account may serve many programs, such as the instances of a shop front.
const LISTENER_SHARES: ShareDivisors = ShareDivisors { user: 2, network: 2 };
const RETRY_AFTER_LISTENERS_SECONDS: u64 = 10;
const PRUNE_INTERVAL: Duration = Duration::from_secs(600);
const PRUNE_STATEMENTS: [&Statement; 5] =
    [&REVOCATIONS_PRUNE, &SESSIONS_PRUNE, &IDEMPOTENCY_PRUNE, &TRUSTED_ADDRESSES_PRUNE, &VERSIONS_PRUNE];

/// Returns how many listeners may hold a connection. They leave a quarter of the connections to other requests.
fn max_listeners(max_connections: usize) -> usize {
    (max_connections - max_connections / 4).max(1)
}

pub struct App {
    pub(crate) config: Config,
    pub(crate) database: Database,
    pub(crate) schema_monitor: SchemaMonitor,
    /// For large reads, if configured.
    pub(crate) replica: Option<Arc<Replica>>,
    pub authenticator: Authenticator,
    pub(crate) password_hasher: PasswordHasherPool,
    /// For login, register and password change.
    pub(crate) rate_limiter: RateLimiter,
    pub(crate) tarpit: Tarpit,
    /// Sessions revoked because a spent refresh token was used again.
    pub(crate) refresh_token_reuse: Counter,
    /// Requests of trusted proxies with an entry in `X-Forwarded-For` that cannot be read.
    pub(crate) forwarded_unreadable: Counter,
    /// Redis, if configured.
    pub(crate) redis: Option<Arc<RedisClient>>,
    pub(crate) cache: Arc<Cache>,
    pub response_budget: ResponseBudget,
    /// Numbers of products that match a filter.
    pub(crate) count_cache: Arc<CountCache>,
    pub(crate) change_pages: ChangePages,
    pub(crate) export_cache: Arc<ExportFileCache>,
    pub(crate) static_assets: StaticAssets,
    /// For building export files.
    pub export_permits: Arc<FairSemaphore>,
    /// For bodies that are sent piece by piece, from an export file or from the cache: each holds buffers until its
    /// client has read it.
    pub download_permits: Arc<FairSemaphore>,
    pub import_permits: Arc<FairSemaphore>,
    /// The memory of all imports.
    pub import_pool: Arc<ImportPool>,
    /// For filling the cache with lists that have parameters: half of the database pool.
    pub fill_permits: Arc<FairSemaphore>,
    /// For lists too large to cache: each holds a snapshot and a database connection until its client has read it.
    pub stream_permits: Arc<FairSemaphore>,
    /// For requests that wait for changes of the catalogue, and for event streams.
    pub(crate) listener_permits: Arc<FairSemaphore>,
    pub(crate) version_watch: Arc<VersionWatch>,
    stopping: watch::Sender<bool>,
    this: Weak<Self>,
}

impl App {
    /// Creates the state. Connects to Redis if configured; the first request connects to PostgreSQL.
    pub(crate) async fn new(config: Config) -> anyhow::Result<Arc<Self>> {
        let database = Database::new(&config.database);
        let redis = config.redis.as_ref().map(RedisClient::new).transpose()?;
        if let Some(redis) = &redis {
            redis.connect_within(CONNECT_TIMEOUT).await;
        }
        let revocations = Arc::<Revocations>::default();
        let version_reader = VersionReader::start(
            database.clone(),
            Arc::clone(&revocations) as _,
            config.cache.stale_if_error,
            config.lease,
        );
        let secrets = &config.accounts.jwt_secrets;
        let redis_cache =
            redis.clone().map(|client| RedisCache::new(client, MacKeys::derive(secrets, "redis cache entries")));
        let tokens = Tokens::new(secrets, config.accounts.access_token_ttl);
        let revocation_hints = RevocationHints::new(config.cache.stale_if_error, redis.clone(), secrets);
        let authenticator =
            Authenticator { tokens, version_reader, revocations, revocation_hints, database: database.clone() };
        let password_hasher =
            PasswordHasherPool::start(config.accounts.pbkdf2_threads, config.accounts.pbkdf2_iterations);
        let rate_limiter = RateLimiter::new(config.accounts.rate_limit, redis.clone(), secrets);
        let version_watch = VersionWatch::start(Arc::clone(&authenticator.version_reader));
        Ok(Arc::new_cyclic(|this| Self {
            authenticator,
            password_hasher,
            rate_limiter,
            tarpit: Tarpit::default(),
            refresh_token_reuse: Counter::default(),
            cache: Cache::new(config.cache.mode, config.memory.cache_bytes, config.memory.entry_bytes, redis_cache),
            forwarded_unreadable: Counter::default(),
            response_budget: ResponseBudget::new(config.memory.response_budget_bytes),
            count_cache: Arc::default(),
            change_pages: ChangePages::default(),
            export_cache: ExportFileCache::new(config.files.export_dir.clone(), config.export_cache_bytes()),
            static_assets: StaticAssets::default(),
            export_permits: FairSemaphore::new(config.files.export_concurrency, EXPORT_SHARES),
            download_permits: FairSemaphore::new(MAX_DOWNLOADS, DOWNLOAD_SHARES),
            import_permits: FairSemaphore::new(config.files.import_concurrency, IMPORT_SHARES),
            import_pool: ImportPool::new(),
            fill_permits: FairSemaphore::new((config.database.pool_size / 2).max(1), FILL_SHARES),
            stream_permits: FairSemaphore::new(config.files.stream_concurrency, STREAM_SHARES),
            listener_permits: FairSemaphore::new(max_listeners(config.http.server.max_connections), LISTENER_SHARES),
            version_watch,
            stopping: watch::Sender::new(false),
            this: Weak::clone(this),
            schema_monitor: SchemaMonitor::default(),
            replica: config.replica.as_ref().map(|settings| Arc::new(Replica::new(settings))),
            redis,
            database,
            config,
        }))
    }

    /// Returns another handle to this state, for what outlives its request.
    pub(crate) fn shared(&self) -> Arc<Self> {
        self.this.upgrade().unwrap_or_else(|| unreachable!("the state is in an Arc"))
    }

    /// Acquires a permit for a request that waits for changes.
    pub(crate) fn listener_permit(&self, client: Client) -> Result<Permit> {
        let permit = self.listener_permits.try_acquire(client);
        permit.ok_or_else(|| Error::overloaded("too many listeners", RETRY_AFTER_LISTENERS_SECONDS))
    }

    /// Returns the number of requests that wait for changes.
    pub(crate) fn listeners(&self) -> usize {
        max_listeners(self.config.http.server.max_connections) - self.listener_permits.available_permits()
    }

    pub(crate) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Returns a receiver that becomes true when the server stops.
    pub(crate) fn stop_signal(&self) -> watch::Receiver<bool> {
        self.stopping.subscribe()
    }

    /// Makes `/readyz` fail, so that load balancers send no further requests, and ends what waits for changes.
    pub(crate) fn begin_shutdown(&self) {
        self.stopping.send_replace(true);
    }

    /// Returns the network of the client, the unit of limits per address.
    pub(crate) fn client_network(&self, request: &Request) -> ClientNetwork {
        self.client_address(request).into()
    }

    /// Returns the client as limits count it. A request that names no address but those of trusted proxies has no
    /// network.
    pub(crate) fn client(&self, user: &User, request: &Request) -> Client {
        let address = self.client_address(request);
        let is_proxy = self.config.http.trusted_proxies.contains(&address);
        Client::new(user.id, (!is_proxy).then_some(address))
    }

    /// Returns the address of the client, from `X-Forwarded-For` if a trusted proxy sent the request.
    fn client_address(&self, request: &Request) -> IpAddr {
        request.client_address(|| {
            let client = client_address(&self.config.http.trusted_proxies, request.peer(), request.headers());
            if client.has_unreadable_entry {
                self.forwarded_unreadable.inc();
            }
            client.address
        })
    }

    /// Deletes expired rows and old versions every [`PRUNE_INTERVAL`]. Instances may do this at the same time. Never returns.
    pub(crate) async fn run_pruner(&self) {
        loop {
            tokio::time::sleep(PRUNE_INTERVAL).await;
            for statement in PRUNE_STATEMENTS {
                // a statement that deletes in steps returns a row while there may be more
                loop {
                    match self.database.rows(statement, &[]).await {
                        Ok(rows) if rows.is_empty() => break,
                        Ok(_) => {}
                        Err(error) => {
                            warn!(%error, "pruning expired rows failed");
                            break;
                        }
                    }
                }
            }
        }
    }
}
