//! Connection strings of PostgreSQL: one or several hosts, tried in turn until one accepts writes, with or without TLS.
//!
//! Supports the syntax of `tokio_postgres` and libpq's parameters `sslmode=verify-ca|verify-full` and `sslrootcert`.

use std::{
    fmt,
    path::PathBuf,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio_postgres::{
    Client, Config, Connection, Error, Socket,
    config::{Host, LoadBalanceHosts, SslMode, TargetSessionAttrs},
    tls::{MakeTlsConnect, TlsConnect},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::tls::{self, Verify};

/// A parsed connection string. Clones share the preferred host.
#[derive(Clone)]
pub struct ConnInfo {
    /// One configuration per host.
    hosts: Arc<[Config]>,
    tls: MakeRustlsConnect,
    /// The index of the host that the next connection tries first.
    preferred: Arc<AtomicUsize>,
    /// Connections are spread over the hosts instead of preferring the last one that worked.
    balanced: bool,
}

/// With several hosts, one that has not responded after this time is skipped.
const HOST_TIMEOUT: Duration = Duration::from_millis(600);

/// Does not quote the text, because it may be a misplaced secret.
const INVALID_CONNINFO: &str = "is neither postgres://user:password@host:port/name nor name=value pairs";

type Stream = <<MakeRustlsConnect as MakeTlsConnect<Socket>>::TlsConnect as TlsConnect<Socket>>::Stream;

impl ConnInfo {
    /// Parses `postgres://...` or `host=... dbname=...`.
    ///
    /// Unless the text has `target_session_attrs`, hosts that do not accept writes are skipped: the versions on a
    /// standby may be out of date.
    pub fn primary(text: &str) -> Result<Self, String> {
        Self::parse(text, TargetSessionAttrs::ReadWrite)
    }

    /// Parses the connection string of a server for reads only; it need not accept writes.
    pub(crate) fn replica(text: &str) -> Result<Self, String> {
        Self::parse(text, TargetSessionAttrs::Any)
    }

    /// Returns an address without a server, as a placeholder.
    pub(crate) fn unreachable() -> Self {
        Self::primary("host=/nowhere").unwrap_or_else(|error| unreachable!("{error}"))
    }

    fn parse(text: &str, session_attrs: TargetSessionAttrs) -> Result<Self, String> {
        let (rest, params) = TlsParams::extract(text)?;
        let mut config = Config::from_str(&rest).map_err(|error| match std::error::Error::source(&error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        })?;
        if !params.has_session_attrs {
            config.target_session_attrs(session_attrs);
        }
        let mode = match params.mode.as_deref() {
            // as in libpq: public CAs sign for anyone, so trusting all of them requires verification of the host name
            None | Some("verify-full") if params.system_roots => Some("verify-full"),
            Some(_) if params.system_roots => return Err("sslrootcert=system requires sslmode=verify-full".to_owned()),
            mode => mode,
        };
        let verify = match mode {
            Some("verify-full") => Verify::Full,
            Some("verify-ca") => Verify::Ca,
            // as in libpq: with a root certificate, require behaves like verify-ca
            Some("require") if params.roots.is_some() => Verify::Ca,
            _ => Verify::None,
        };
        config.ssl_mode(match mode {
            Some("disable") => SslMode::Disable,
            None | Some("allow" | "prefer") => SslMode::Prefer,
            Some("require" | "verify-ca" | "verify-full") => SslMode::Require,
            Some(other) => {
                return Err(format!(
                    "sslmode is \"{other}\", which is none of disable, prefer, require, verify-ca, verify-full"
                ));
            }
        });
        let tls = tls::connector(verify, params.roots.as_deref())?;
        let count = config.get_hosts().len().max(config.get_hostaddrs().len());
        if count == 0 {
            return Err("names no host".to_owned());
        }
        let ports = config.get_ports().len();
        if ports > 1 && ports != count {
            return Err(format!("names {count} hosts and {ports} ports"));
        }
        let balanced = config.get_load_balance_hosts() == LoadBalanceHosts::Random;
        let hosts = (0..count).map(|index| host_config(&config, index)).collect();
        Ok(Self { hosts, tls, preferred: Arc::default(), balanced })
    }

    /// Applies `change` to the configuration of every host.
    pub(crate) fn map_hosts(mut self, change: impl Fn(&mut Config)) -> Self {
        let mut hosts = self.hosts.to_vec();
        hosts.iter_mut().for_each(change);
        self.hosts = hosts.into();
        self
    }

    /// Returns the configuration of the first host. User, password, database and options are the same for all hosts.
    pub(crate) fn base_config(&self) -> &Config {
        &self.hosts[0]
    }

    /// Connects to the first host that responds and has the required session attributes.
    ///
    /// There is no overall time limit: hosts that timed out are tried again at the end, without [`HOST_TIMEOUT`]. The
    /// caller limits the time.
    pub(crate) async fn connect(&self) -> Result<(Client, Connection<Socket, Stream>), Error> {
        let count = self.hosts.len();
        if count == 1 {
            return self.connect_to(0).await;
        }
        let first = if self.balanced { self.preferred.fetch_add(1, Relaxed) } else { self.preferred.load(Relaxed) };
        let mut last_error = None;
        let mut timed_out = Vec::new();
        for index in (first..first + count).map(|index| index % count) {
            match tokio::time::timeout(HOST_TIMEOUT, self.connect_to(index)).await {
                Ok(Ok(connected)) => return Ok(connected),
                Ok(Err(error)) => last_error = Some(error),
                Err(_) => {
                    timed_out.push(index);
                    self.prefer((index + 1) % count);
                }
            }
        }
        for index in timed_out {
            match self.connect_to(index).await {
                Ok(connected) => return Ok(connected),
                Err(error) => last_error = Some(error),
            }
        }
        Err(last_error.unwrap_or_else(|| unreachable!("every host connects, fails or is tried again")))
    }

    async fn connect_to(&self, index: usize) -> Result<(Client, Connection<Socket, Stream>), Error> {
        let host = &self.hosts[index];
        let connected = match host.connect(self.tls.clone()).await {
            // as in libpq: with sslmode=prefer, a failed TLS handshake is followed by an attempt without TLS
            Err(error) if host.get_ssl_mode() == SslMode::Prefer && tls::is_tls_error(&error) => {
                host.clone().ssl_mode(SslMode::Disable).connect(self.tls.clone()).await?
            }
            outcome => outcome?,
        };
        self.prefer(index);
        Ok(connected)
    }

    fn prefer(&self, index: usize) {
        if !self.balanced {
            self.preferred.store(index, Relaxed);
        }
    }
}

impl fmt::Debug for ConnInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnInfo").field("hosts", &self.hosts).finish_non_exhaustive()
    }
}

/// Returns the configuration of one of several hosts.
fn host_config(all: &Config, index: usize) -> Config {
    let mut one = Config::new();
    one.ssl_mode(all.get_ssl_mode()).ssl_negotiation(all.get_ssl_negotiation());
    match all.get_hosts().get(index) {
        Some(Host::Tcp(name)) => drop(one.host(name)),
        Some(Host::Unix(dir)) => {
            // PostgreSQL does not use TLS on Unix sockets
            one.host_path(dir).ssl_mode(SslMode::Disable);
        }
        None => {}
    }
    if let Some(address) = all.get_hostaddrs().get(index) {
        one.hostaddr(*address);
        if all.get_hosts().is_empty() {
            // the TLS handshake needs a name
            one.host(address.to_string());
        }
    }
    if let Some(port) = all.get_ports().get(index).or_else(|| all.get_ports().first()) {
        one.port(*port);
    }
    if let Some(user) = all.get_user() {
        one.user(user);
    }
    if let Some(password) = all.get_password() {
        one.password(password);
    }
    if let Some(name) = all.get_dbname() {
        one.dbname(name);
    }
    if let Some(options) = all.get_options() {
        one.options(options);
    }
    if let Some(name) = all.get_application_name() {
        one.application_name(name);
    }
    if let Some(timeout) = all.get_connect_timeout() {
        one.connect_timeout(*timeout);
    }
    one.target_session_attrs(all.get_target_session_attrs()).channel_binding(all.get_channel_binding());
    one
}

/// The parameters that `tokio_postgres` does not support.
#[derive(Debug, Default, PartialEq, Eq)]
struct TlsParams {
    mode: Option<String>,
    roots: Option<PathBuf>,
    system_roots: bool,
    /// The text contains `target_session_attrs`, which is not extracted.
    has_session_attrs: bool,
}

impl TlsParams {
    /// Extracts the parameters from the text. Returns the text without them.
    fn extract(text: &str) -> Result<(String, Self), String> {
        let mut params = Self::default();
        let text = text.trim();
        let is_url = ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme));
        let rest = if is_url { params.extract_from_url(text)? } else { params.extract_from_pairs(text)? };
        Ok((rest, params))
    }

    /// Stores the parameter and returns true if it is one of these. The error for an invalid name does not quote it,
    /// because it may be a password.
    fn set(&mut self, name: &str, value: &str) -> Result<bool, String> {
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') {
            return Err(INVALID_CONNINFO.to_owned());
        }
        match name {
            "sslmode" => self.mode = Some(value.to_owned()),
            "sslrootcert" if value == "system" => self.system_roots = true,
            "sslrootcert" => self.roots = Some(value.into()),
            _ => {
                self.has_session_attrs |= name == "target_session_attrs";
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn extract_from_url(&mut self, text: &str) -> Result<String, String> {
        let Some((before, query)) = text.split_once('?') else { return Ok(text.to_owned()) };
        let mut rest = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = form_urlencoded::parse(pair.as_bytes()).next().unwrap_or_default();
            if !self.set(&name, &value)? {
                rest.push(pair);
            }
        }
        Ok(format!("{before}?{}", rest.join("&")))
    }

    /// Parses `name = value` pairs. A value may be in single quotes; a backslash escapes the next character.
    fn extract_from_pairs(&mut self, text: &str) -> Result<String, String> {
        let mut rest = String::new();
        let mut chars = text.char_indices().peekable();
        while let Some(&(start, char)) = chars.peek() {
            if char.is_whitespace() {
                chars.next();
                continue;
            }
            let mut name = String::new();
            while let Some((_, char)) = chars.next_if(|(_, char)| *char != '=') {
                name.push(char);
            }
            chars.next().ok_or(INVALID_CONNINFO)?;
            while chars.next_if(|(_, char)| char.is_whitespace()).is_some() {}
            let quoted = chars.next_if(|(_, char)| *char == '\'').is_some();
            let mut value = String::new();
            let end = loop {
                match chars.next() {
                    None if quoted => return Err("has an unterminated quote".to_owned()),
                    None => break text.len(),
                    Some((index, '\'')) if quoted => break index + 1,
                    Some((index, char)) if !quoted && char.is_whitespace() => break index,
                    Some((_, '\\')) => value.extend(chars.next().map(|(_, char)| char)),
                    Some((_, char)) => value.push(char),
                }
            };
            if !self.set(name.trim(), &value)? {
                rest.push_str(&text[start..end]);
                rest.push(' ');
            }
        }
        Ok(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(mode: Option<&str>, roots: Option<&str>) -> TlsParams {
        TlsParams { mode: mode.map(str::to_owned), roots: roots.map(PathBuf::from), ..TlsParams::default() }
    }

    #[test]
    fn tls_parameters_are_extracted_from_urls_and_pairs() {
        let extracted =
            TlsParams::extract("postgres://u:p@h/db?sslmode=verify-full&sslrootcert=%2Fca%20x.pem&connect_timeout=1");
        assert_eq!(
            extracted,
            Ok(("postgres://u:p@h/db?connect_timeout=1".into(), params(Some("verify-full"), Some("/ca x.pem"))))
        );
        let extracted =
            TlsParams::extract(r"host=h sslmode = 'require'  password='it\'s sslmode=x' sslrootcert=/a\ b dbname=d");
        assert_eq!(
            extracted,
            Ok((r"host=h password='it\'s sslmode=x' dbname=d ".into(), params(Some("require"), Some("/a b"))))
        );
        let system = TlsParams { system_roots: true, has_session_attrs: true, ..TlsParams::default() };
        let extracted = TlsParams::extract("host=h sslrootcert=system target_session_attrs = any");
        assert_eq!(extracted, Ok(("host=h target_session_attrs = any ".into(), system)));
        assert!(TlsParams::extract("host=h password='open").is_err() && TlsParams::extract("host").is_err());
    }

    #[test]
    fn each_host_has_its_own_config_and_must_accept_writes() {
        let conninfo = ConnInfo::primary("postgres://u:p@one:1,two:2/shop?options=-c%20a%3Db").unwrap();
        let hosts: Vec<_> =
            conninfo.hosts.iter().map(|host| (host.get_hosts().to_vec(), host.get_ports().to_vec())).collect();
        assert_eq!(hosts, [(vec![Host::Tcp("one".into())], vec![1]), (vec![Host::Tcp("two".into())], vec![2])]);
        for host in conninfo.hosts.iter() {
            assert_eq!((host.get_user(), host.get_password()), (Some("u"), Some(&b"p"[..])));
            assert_eq!((host.get_dbname(), host.get_options()), (Some("shop"), Some("-c a=b")));
            assert_eq!(host.get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
        }
        assert!(format!("{conninfo:?}").contains("password: Some(_)"), "{conninfo:?}");
    }

    #[test]
    fn errors_are_specific_and_contain_no_secrets() {
        for (text, message) in [
            ("postgres://h/d?sslmode=always", "sslmode is \"always\""),
            ("postgres://h/d?sslmode=verify-full&sslrootcert=/nowhere.pem", "/nowhere.pem"),
            ("postgres://h/d?colour=red", "colour"),
            ("postgres://a:1,b:2,c/d?port=3", "hosts"),
            ("dbname=d", "no host"),
            ("", "no host"),
            ("postgres://h/d?sslrootcert=system&sslmode=require", "requires sslmode=verify-full"),
            // may contain a secret
            ("postgresq://u:s3cret@h/d", "is neither"),
            ("jdbc:postgresql://u:s3cret@h/d?x=y", "is neither"),
            ("s3cret", "is neither"),
            ("host=h passwords3cret dbname=d", "is neither"),
            ("postgres://h/d?s3cret=1", "is neither"),
        ] {
            let error = ConnInfo::primary(text).unwrap_err();
            assert!(error.contains(message) && !error.contains("s3cret"), "{text}: {error}");
        }
    }
}
