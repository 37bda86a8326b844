//! Where the database is: one or several hosts, tried in turn until one takes writes, over TLS or not.
//!
//! Reads what `tokio_postgres` reads, and of libpq's parameters also `sslmode=verify-ca|verify-full` and `sslrootcert`.

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

/// Where the database is. A clone shares what was learnt about its hosts.
#[derive(Clone)]
pub struct ConnInfo {
    /// One host each.
    hosts: Arc<[Config]>,
    tls: MakeRustlsConnect,
    /// Where the next connection is tried first.
    first: Arc<AtomicUsize>,
    /// Connections are spread over the hosts, instead of going where the last one went.
    balanced: bool,
}

/// With several hosts, one that keeps silent for so long is passed over.
const HOST_TIMEOUT: Duration = Duration::from_millis(600);

/// What is said of a text that may be a secret, misplaced: nothing of it.
const NOT_UNDERSTOOD: &str = "is neither postgres://user:password@host:port/name nor name=value pairs";

type Stream = <<MakeRustlsConnect as MakeTlsConnect<Socket>>::TlsConnect as TlsConnect<Socket>>::Stream;

impl ConnInfo {
    /// Reads `postgres://...` or `host=... dbname=...`. Unless the text says otherwise, a host counts only if it takes
    /// writes: what a standby told about versions would be the past.
    pub fn primary(text: &str) -> Result<Self, String> {
        Self::parse(text, TargetSessionAttrs::ReadWrite)
    }

    /// Reads the address of a server that is only read from: any kind is good.
    pub(crate) fn replica(text: &str) -> Result<Self, String> {
        Self::parse(text, TargetSessionAttrs::Any)
    }

    /// Where nobody answers.
    pub(crate) fn nowhere() -> Self {
        Self::primary("host=/nowhere").unwrap_or_else(|fault| unreachable!("{fault}"))
    }

    fn parse(text: &str, kind: TargetSessionAttrs) -> Result<Self, String> {
        let (rest, own) = TlsParams::take(text)?;
        let mut config = Config::from_str(&rest).map_err(|error| match std::error::Error::source(&error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        })?;
        if !own.says_kind {
            config.target_session_attrs(kind);
        }
        let mode = match own.mode.as_deref() {
            // as libpq has it: who trusts the whole world's authorities at least wants the name to be right
            None | Some("verify-full") if own.system_roots => Some("verify-full"),
            Some(_) if own.system_roots => return Err("sslrootcert=system asks for sslmode=verify-full".to_owned()),
            mode => mode,
        };
        let verify = match mode {
            Some("verify-full") => Verify::Full,
            Some("verify-ca") => Verify::Chain,
            // libpq's own exception: who names roots wants them used
            Some("require") if own.roots.is_some() => Verify::Chain,
            _ => Verify::Nothing,
        };
        config.ssl_mode(match mode {
            Some("disable") => SslMode::Disable,
            None | Some("allow" | "prefer") => SslMode::Prefer,
            Some("require" | "verify-ca" | "verify-full") => SslMode::Require,
            Some(other) => {
                return Err(format!("sslmode is \"{other}\": disable, prefer, require, verify-ca or verify-full"));
            }
        });
        let tls = tls::connector(verify, own.roots.as_deref())?;
        let count = config.get_hosts().len().max(config.get_hostaddrs().len());
        if count == 0 {
            return Err("names no host".to_owned());
        }
        let ports = config.get_ports().len();
        if ports > 1 && ports != count {
            return Err(format!("names {count} hosts and {ports} ports"));
        }
        let balanced = config.get_load_balance_hosts() == LoadBalanceHosts::Random;
        let hosts = (0..count).map(|place| one_host(&config, place)).collect();
        Ok(Self { hosts, tls, first: Arc::default(), balanced })
    }

    /// The same place, with every host's settings changed.
    pub(crate) fn with(mut self, change: impl Fn(&mut Config)) -> Self {
        let mut hosts = self.hosts.to_vec();
        hosts.iter_mut().for_each(change);
        self.hosts = hosts.into();
        self
    }

    /// What all hosts have in common: user, password, database, options.
    pub(crate) fn common(&self) -> &Config {
        &self.hosts[0]
    }

    /// A connection to the first host that answers and is of the right kind. Not bounded in time as a whole: hosts that
    /// kept silent are asked once more at the end, and then have all the time that the caller gives.
    pub(crate) async fn connect(&self) -> Result<(Client, Connection<Socket, Stream>), Error> {
        let count = self.hosts.len();
        if count == 1 {
            return self.connect_to(0).await;
        }
        let first = if self.balanced { self.first.fetch_add(1, Relaxed) } else { self.first.load(Relaxed) };
        let mut failure = None;
        let mut silent = Vec::new();
        for place in (first..first + count).map(|place| place % count) {
            match tokio::time::timeout(HOST_TIMEOUT, self.connect_to(place)).await {
                Ok(Ok(connected)) => return Ok(connected),
                Ok(Err(error)) => failure = Some(error),
                Err(_) => {
                    silent.push(place);
                    self.begin_with((place + 1) % count);
                }
            }
        }
        for place in silent {
            match self.connect_to(place).await {
                Ok(connected) => return Ok(connected),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or_else(|| unreachable!("every host connects, fails, or is asked once more")))
    }

    async fn connect_to(&self, place: usize) -> Result<(Client, Connection<Socket, Stream>), Error> {
        let host = &self.hosts[place];
        let connected = match host.connect(self.tls.clone()).await {
            // as libpq has it: who only prefers TLS can do without
            Err(error) if host.get_ssl_mode() == SslMode::Prefer && tls::is_cause(&error) => {
                host.clone().ssl_mode(SslMode::Disable).connect(self.tls.clone()).await?
            }
            outcome => outcome?,
        };
        self.begin_with(place);
        Ok(connected)
    }

    fn begin_with(&self, place: usize) {
        if !self.balanced {
            self.first.store(place, Relaxed);
        }
    }
}

impl fmt::Debug for ConnInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Address").field("hosts", &self.hosts).finish_non_exhaustive()
    }
}

/// The settings for one of several hosts.
fn one_host(all: &Config, place: usize) -> Config {
    let mut one = Config::new();
    one.ssl_mode(all.get_ssl_mode()).ssl_negotiation(all.get_ssl_negotiation());
    match all.get_hosts().get(place) {
        Some(Host::Tcp(name)) => drop(one.host(name)),
        Some(Host::Unix(folder)) => {
            // there is no TLS over a socket in the file system, and nobody on the way
            one.host_path(folder).ssl_mode(SslMode::Disable);
        }
        None => {}
    }
    if let Some(address) = all.get_hostaddrs().get(place) {
        one.hostaddr(*address);
        if all.get_hosts().is_empty() {
            // TLS asks for a name
            one.host(address.to_string());
        }
    }
    if let Some(port) = all.get_ports().get(place).or_else(|| all.get_ports().first()) {
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
    if let Some(bound) = all.get_connect_timeout() {
        one.connect_timeout(*bound);
    }
    one.target_session_attrs(all.get_target_session_attrs()).channel_binding(all.get_channel_binding());
    one
}

/// The parameters that `tokio_postgres` does not know, taken out of the text.
#[derive(Debug, Default, PartialEq, Eq)]
struct TlsParams {
    mode: Option<String>,
    roots: Option<PathBuf>,
    system_roots: bool,
    /// `target_session_attrs` is there; it stays in the text.
    says_kind: bool,
}

impl TlsParams {
    fn take(text: &str) -> Result<(String, Self), String> {
        let mut own = Self::default();
        let text = text.trim();
        let is_url = ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme));
        let rest = if is_url { own.take_from_url(text)? } else { own.take_from_pairs(text)? };
        Ok((rest, own))
    }

    /// Whether the parameter is one of ours; then it is remembered. What is no name may be a password: nobody repeats it.
    fn takes(&mut self, name: &str, value: &str) -> Result<bool, String> {
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') {
            return Err(NOT_UNDERSTOOD.to_owned());
        }
        match name {
            "sslmode" => self.mode = Some(value.to_owned()),
            "sslrootcert" if value == "system" => self.system_roots = true,
            "sslrootcert" => self.roots = Some(value.into()),
            _ => {
                self.says_kind |= name == "target_session_attrs";
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn take_from_url(&mut self, text: &str) -> Result<String, String> {
        let Some((before, query)) = text.split_once('?') else { return Ok(text.to_owned()) };
        let mut kept = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = form_urlencoded::parse(pair.as_bytes()).next().unwrap_or_default();
            if !self.takes(&name, &value)? {
                kept.push(pair);
            }
        }
        Ok(format!("{before}?{}", kept.join("&")))
    }

    /// `name = value` pairs; a value may stand in single quotes, a backslash takes the next letter as it is.
    fn take_from_pairs(&mut self, text: &str) -> Result<String, String> {
        let mut kept = String::new();
        let mut letters = text.char_indices().peekable();
        while let Some(&(start, letter)) = letters.peek() {
            if letter.is_whitespace() {
                letters.next();
                continue;
            }
            let mut name = String::new();
            while let Some((_, letter)) = letters.next_if(|(_, letter)| *letter != '=') {
                name.push(letter);
            }
            letters.next().ok_or(NOT_UNDERSTOOD)?;
            while letters.next_if(|(_, letter)| letter.is_whitespace()).is_some() {}
            let quoted = letters.next_if(|(_, letter)| *letter == '\'').is_some();
            let mut value = String::new();
            let end = loop {
                match letters.next() {
                    None if quoted => return Err("has a quote that is not closed".to_owned()),
                    None => break text.len(),
                    Some((place, '\'')) if quoted => break place + 1,
                    Some((place, letter)) if !quoted && letter.is_whitespace() => break place,
                    Some((_, '\\')) => value.extend(letters.next().map(|(_, letter)| letter)),
                    Some((_, letter)) => value.push(letter),
                }
            };
            if !self.takes(name.trim(), &value)? {
                kept.push_str(&text[start..end]);
                kept.push(' ');
            }
        }
        Ok(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(mode: Option<&str>, roots: Option<&str>) -> TlsParams {
        TlsParams { mode: mode.map(str::to_owned), roots: roots.map(PathBuf::from), ..TlsParams::default() }
    }

    #[test]
    fn our_own_parameters_are_taken_out_of_both_forms() {
        let taken =
            TlsParams::take("postgres://u:p@h/db?sslmode=verify-full&sslrootcert=%2Fca%20x.pem&connect_timeout=1");
        assert_eq!(
            taken,
            Ok(("postgres://u:p@h/db?connect_timeout=1".into(), own(Some("verify-full"), Some("/ca x.pem"))))
        );
        let taken =
            TlsParams::take(r"host=h sslmode = 'require'  password='it\'s sslmode=x' sslrootcert=/a\ b dbname=d");
        assert_eq!(
            taken,
            Ok((r"host=h password='it\'s sslmode=x' dbname=d ".into(), own(Some("require"), Some("/a b"))))
        );
        let system = TlsParams { system_roots: true, says_kind: true, ..TlsParams::default() };
        let taken = TlsParams::take("host=h sslrootcert=system target_session_attrs = any");
        assert_eq!(taken, Ok(("host=h target_session_attrs = any ".into(), system)));
        assert!(TlsParams::take("host=h password='open").is_err() && TlsParams::take("host").is_err());
    }

    #[test]
    fn hosts_are_told_apart_and_must_take_writes() {
        let address = ConnInfo::primary("postgres://u:p@one:1,two:2/shop?options=-c%20a%3Db").unwrap();
        let told: Vec<_> =
            address.hosts.iter().map(|host| (host.get_hosts().to_vec(), host.get_ports().to_vec())).collect();
        assert_eq!(told, [(vec![Host::Tcp("one".into())], vec![1]), (vec![Host::Tcp("two".into())], vec![2])]);
        for host in address.hosts.iter() {
            assert_eq!((host.get_user(), host.get_password()), (Some("u"), Some(&b"p"[..])));
            assert_eq!((host.get_dbname(), host.get_options()), (Some("shop"), Some("-c a=b")));
            assert_eq!(host.get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
        }
        assert!(format!("{address:?}").contains("password: Some(_)"), "{address:?}");
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, words) in [
            ("postgres://h/d?sslmode=always", "sslmode is \"always\""),
            ("postgres://h/d?sslmode=verify-full&sslrootcert=/nowhere.pem", "/nowhere.pem"),
            ("postgres://h/d?colour=red", "colour"),
            ("postgres://a:1,b:2,c/d?port=3", "hosts"),
            ("dbname=d", "no host"),
            ("", "no host"),
            ("postgres://h/d?sslrootcert=system&sslmode=require", "asks for sslmode=verify-full"),
            // what is not understood may be a secret
            ("postgresq://u:s3cret@h/d", "is neither"),
            ("jdbc:postgresql://u:s3cret@h/d?x=y", "is neither"),
            ("s3cret", "is neither"),
            ("host=h passwords3cret dbname=d", "is neither"),
            ("postgres://h/d?s3cret=1", "is neither"),
        ] {
            let fault = ConnInfo::primary(text).unwrap_err();
            assert!(fault.contains(words) && !fault.contains("s3cret"), "{text}: {fault}");
        }
    }
}
