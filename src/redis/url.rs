//! Redis URLs: one server, or the master that Sentinels name, with or without TLS.

use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ErrorKind, IntoConnectionInfo, RedisError, RedisResult,
    TlsCertificates, TlsMode,
    aio::MultiplexedConnection,
    io::tcp::TcpSettings,
    sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType},
};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Mutex;

#[derive(Debug, Clone)]
pub(crate) struct RedisSettings {
    /// `redis://...`, or `rediss://...` with TLS. `redis+sentinel://user:password@one:26379,two:26379/master/db` queries
    /// Sentinels, without credentials, for the master's address; `rediss+sentinel://` uses TLS to the master.
    pub(crate) url: SecretString,
    /// The root certificates (PEM) for TLS, in place of the system's.
    pub(crate) roots: Option<Vec<u8>>,
    /// The prefix of every key.
    pub(crate) prefix: String,
}

pub(crate) enum Target {
    Server(Box<Client>),
    /// The mutex allows one connection attempt at a time.
    Sentinels(Box<Mutex<SentinelClient>>),
}

impl RedisSettings {
    /// Parses the URL and the certificates.
    pub(crate) fn target(&self) -> RedisResult<Target> {
        let url = self.url.expose_secret();
        for (scheme, server_scheme, tls) in
            [("redis+sentinel://", "redis", None), ("rediss+sentinel://", "rediss", Some(TlsMode::Secure))]
        {
            if let Some(rest) = url.strip_prefix(scheme) {
                return self.sentinels(rest, server_scheme, tls);
            }
        }
        let info = url.into_connection_info()?.set_tcp_settings(tcp_settings());
        Ok(Target::Server(Box::new(match self.certificates() {
            None => Client::open(info)?,
            Some(certificates) => Client::build_with_tls(info, certificates)?,
        })))
    }

    /// Fails when the URL or the certificates are invalid.
    pub(crate) fn check(&self) -> RedisResult<()> {
        self.target().map(drop)
    }

    fn certificates(&self) -> Option<TlsCertificates> {
        Some(TlsCertificates { client_tls: None, root_cert: Some(self.roots.clone()?) })
    }

    fn sentinels(&self, rest: &str, server_scheme: &str, tls: Option<TlsMode>) -> RedisResult<Target> {
        let invalid = |message| RedisError::from((ErrorKind::InvalidClientConfig, message));
        let (credentials, rest) = rest.rsplit_once('@').unwrap_or(("", rest));
        let mut segments = rest.splitn(3, '/');
        let hosts = segments.next().unwrap_or_default();
        let master = segments.next().filter(|name| !name.is_empty()).ok_or_else(|| invalid("names no master"))?;
        let db = segments.next().unwrap_or("0");
        // user, password and database have the syntax of a single server's URL
        let parsed = format!("{server_scheme}://{credentials}@localhost/{db}").into_connection_info()?;
        let parsed = parsed.redis_settings();
        let mut addresses = Vec::new();
        for host in hosts.split(',') {
            match format!("redis://{}", with_port(host)).into_connection_info()?.addr() {
                ConnectionAddr::Tcp(host, port) => addresses.push(ConnectionAddr::Tcp(host.clone(), *port)),
                _ => return Err(invalid("names a Sentinel that is not a TCP address")),
            }
        }
        let mut builder = SentinelClientBuilder::new(addresses, master, SentinelServerType::Master)?
            .set_client_to_redis_tcp_settings(tcp_settings())
            .set_client_to_redis_db(parsed.db());
        if let Some(user) = parsed.username() {
            builder = builder.set_client_to_redis_username(user);
        }
        if let Some(password) = parsed.password() {
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
    /// Connects. The caller limits the time.
    pub(crate) async fn connect(&self, config: &AsyncConnectionConfig) -> RedisResult<MultiplexedConnection> {
        match self {
            Self::Server(client) => client.get_multiplexed_async_connection_with_config(config).await,
            Self::Sentinels(client) => client.lock().await.get_async_connection_with_config(config).await,
        }
    }
}

fn tcp_settings() -> TcpSettings {
    TcpSettings::default().set_nodelay(true)
}

/// Returns `host` with the default port of Sentinels if it has none.
fn with_port(host: &str) -> String {
    let after_ipv6_address = host.rsplit_once(']').map_or(host, |(_, after)| after);
    if after_ipv6_address.contains(':') { host.to_owned() } else { format!("{host}:26379") }
}
