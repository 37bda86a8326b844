//! Where Redis is: one server, or whichever one the Sentinels say is the master, over TLS or not.

use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ErrorKind, IntoConnectionInfo, RedisError, RedisResult,
    TlsCertificates, TlsMode,
    aio::MultiplexedConnection,
    io::tcp::TcpSettings,
    sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType},
};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Mutex;

/// How to reach Redis.
#[derive(Debug, Clone)]
pub(crate) struct RedisSettings {
    /// `redis://...`, or `rediss://...` over TLS; `redis+sentinel://user:password@one:26379,two:26379/master/db` asks
    /// Sentinels (without credentials) where the master is, and `rediss+sentinel://` then speaks TLS with it.
    pub(crate) url: SecretString,
    /// PEM of the certificates that its may be signed with, instead of those that this machine trusts.
    pub(crate) roots: Option<Vec<u8>>,
    /// Begins each key.
    pub(crate) prefix: String,
}

/// What connects.
pub(crate) enum Target {
    Server(Box<Client>),
    /// One connection is sought at a time.
    Sentinels(Box<Mutex<SentinelClient>>),
}

impl RedisSettings {
    /// Fails when the URL is no URL, or the PEM no PEM.
    pub(crate) fn source(&self) -> RedisResult<Target> {
        let url = self.url.expose_secret();
        for (scheme, plain, tls) in
            [("redis+sentinel://", "redis", None), ("rediss+sentinel://", "rediss", Some(TlsMode::Secure))]
        {
            if let Some(rest) = url.strip_prefix(scheme) {
                return self.sentinels(rest, plain, tls);
            }
        }
        let info = url.into_connection_info()?.set_tcp_settings(tcp());
        Ok(Target::Server(Box::new(match self.certificates() {
            None => Client::open(info)?,
            Some(certificates) => Client::build_with_tls(info, certificates)?,
        })))
    }

    /// Whether the settings name a Redis at all.
    pub(crate) fn check(&self) -> RedisResult<()> {
        self.source().map(drop)
    }

    fn certificates(&self) -> Option<TlsCertificates> {
        Some(TlsCertificates { client_tls: None, root_cert: Some(self.roots.clone()?) })
    }

    fn sentinels(&self, rest: &str, scheme: &str, tls: Option<TlsMode>) -> RedisResult<Target> {
        let wrong = |words| RedisError::from((ErrorKind::InvalidClientConfig, words));
        let (credentials, place) = rest.rsplit_once('@').map_or(("", rest), |(before, place)| (before, place));
        let mut parts = place.splitn(3, '/');
        let hosts = parts.next().unwrap_or_default();
        let master = parts.next().filter(|name| !name.is_empty()).ok_or_else(|| wrong("names no master"))?;
        let db = parts.next().unwrap_or("0");
        // user, password and database are read as they are for one server
        let like_one = format!("{scheme}://{credentials}@localhost/{db}").into_connection_info()?;
        let like_one = like_one.redis_settings();
        let mut addresses = Vec::new();
        for host in hosts.split(',') {
            match format!("redis://{}", with_port(host)).into_connection_info()?.addr() {
                ConnectionAddr::Tcp(host, port) => addresses.push(ConnectionAddr::Tcp(host.clone(), *port)),
                _ => return Err(wrong("names a Sentinel that is no host")),
            }
        }
        let mut builder = SentinelClientBuilder::new(addresses, master, SentinelServerType::Master)?
            .set_client_to_redis_tcp_settings(tcp())
            .set_client_to_redis_db(like_one.db());
        if let Some(user) = like_one.username() {
            builder = builder.set_client_to_redis_username(user);
        }
        if let Some(password) = like_one.password() {
            builder = builder.set_client_to_redis_password(password);
        }
        if let Some(mode) = tls {
            builder = builder.set_client_to_redis_tls_mode(mode);
        }
        if let Some(certificates) = self.certificates() {
            builder = builder.set_client_to_redis_certificates(certificates);
        }
        Ok(Target::Sentinels(Box::new(Mutex::new(builder.build()?))))
    }
}

impl Target {
    /// A connection; bounded in time by the caller.
    pub(crate) async fn connect(&self, config: &AsyncConnectionConfig) -> RedisResult<MultiplexedConnection> {
        match self {
            Self::Server(client) => client.get_multiplexed_async_connection_with_config(config).await,
            Self::Sentinels(client) => client.lock().await.get_async_connection_with_config(config).await,
        }
    }
}

fn tcp() -> TcpSettings {
    TcpSettings::default().set_nodelay(true)
}

/// Sentinels listen on 26379 unless somebody says otherwise.
fn with_port(host: &str) -> String {
    let after_address = host.rsplit_once(']').map_or(host, |(_, after)| after);
    if after_address.contains(':') { host.to_owned() } else { format!("{host}:26379") }
}
