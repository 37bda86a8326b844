//! Settings of the HTTP server.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use ipnet::IpNet;

use super::parser::Parser;
use crate::http::{
    connection::ConnectionTimeouts,
    cors::{AllowedOrigins, parse_origin},
    dispatch::DispatchSettings,
    forwarded::TrustedProxies,
    public_url::PublicUrl,
    request::BodyLimits,
    serve::ServerLimits,
};

const HEADING: &str = "HTTP";
/// Size of the budget for unfinished requests. A quarter of it holds 32 bodies of the default size limit.
pub(super) const REQUEST_BUDGET_BYTES: usize = 32 << 20;

#[derive(Debug, Clone, clap::Args)]
pub(super) struct HttpArgs {
    /// Address for clients; port 0 selects a free port, which is printed at the start
    #[arg(long, env = "LISTEN_ADDR", default_value = "0.0.0.0:8000", help_heading = HEADING)]
    listen_addr: String,
    /// Address for health checks and metrics
    #[arg(long, env = "ADMIN_ADDR", default_value = "127.0.0.1:9000", help_heading = HEADING)]
    admin_addr: String,
    /// Networks (CIDR, separated by commas) whose X-Forwarded-For is used
    #[arg(long, env = "TRUSTED_PROXIES", default_value = "", help_heading = HEADING)]
    trusted_proxies: String,
    /// URL of the server for clients, if a proxy serves it under a path prefix: https://shop.example/api-root
    #[arg(long, env = "PUBLIC_URL", default_value = "", help_heading = HEADING)]
    public_url: String,
    /// Origins (separated by commas) whose scripts may use the API from a browser (CORS); *: all
    #[arg(long, env = "CORS_ORIGINS", default_value = "", help_heading = HEADING)]
    cors_origins: String,
    /// The page on which staff maintain the catalogue, /admin/: on or off
    #[arg(long, env = "ADMIN_PAGE", default_value = "on", help_heading = HEADING)]
    admin_page: String,
    /// Threads that serve requests; 0: one less than the number of cores, at least one
    #[arg(long, env = "WORKER_THREADS", default_value = "0", help_heading = HEADING)]
    worker_threads: String,
    /// Concurrent client connections, half of them from one network; further connections get 503; auto: 8192, or fewer if
    /// the memory limit is too low
    #[arg(long, env = "MAX_CONNECTIONS", default_value = "auto", help_heading = HEADING)]
    max_connections: String,
    /// Size limit of a request body in bytes; imports have IMPORT_BYTES
    #[arg(long, env = "MAX_BODY_BYTES", default_value = "262144", help_heading = HEADING)]
    max_body_bytes: String,
    /// Time to receive the request head, from its first byte
    #[arg(long, env = "HEAD_TIMEOUT", default_value = "10s", help_heading = HEADING)]
    head_timeout: String,
    /// Time to receive the request body; an import gets one more second per 64 KiB
    #[arg(long, env = "BODY_TIMEOUT", default_value = "10s", help_heading = HEADING)]
    body_timeout: String,
    /// Keep-alive timeout
    #[arg(long, env = "IDLE_TIMEOUT", default_value = "75s", help_heading = HEADING)]
    idle_timeout: String,
    /// Abort a response whose writes make no progress for this long
    #[arg(long, env = "WRITE_TIMEOUT", default_value = "30s", help_heading = HEADING)]
    write_timeout: String,
    /// Time until the response begins
    #[arg(long, env = "REQUEST_TIMEOUT", default_value = "10s", help_heading = HEADING)]
    request_timeout: String,
    /// After SIGTERM: time during which the server still serves but reports that it is stopping, for load balancers
    #[arg(long, env = "SHUTDOWN_DELAY", default_value = "0s", help_heading = HEADING)]
    shutdown_delay: String,
    /// Time for requests in flight to finish after SHUTDOWN_DELAY
    #[arg(long, env = "DRAIN_TIMEOUT", default_value = "25s", help_heading = HEADING)]
    drain_timeout: String,
}

#[derive(Debug, Clone)]
pub(crate) struct HttpSettings {
    pub(crate) listen_addr: SocketAddr,
    pub(crate) admin_addr: SocketAddr,
    pub(crate) trusted_proxies: TrustedProxies,
    pub(crate) admin_page: bool,
    pub(crate) worker_threads: usize,
    pub(crate) server: ServerLimits,
    pub(crate) dispatch: DispatchSettings,
    /// Time until the response begins.
    pub(crate) request_timeout: Duration,
}

impl HttpSettings {
    /// Returns what precedes a path in a URL for clients: nothing, or `PUBLIC_URL`.
    pub(crate) fn base_url(&self) -> &str {
        self.dispatch.public_url.as_ref().map_or("", PublicUrl::as_str)
    }
}

impl HttpArgs {
    /// Returns the limit of client connections, or `None` if it follows from the memory.
    pub(super) fn max_connections(&self, parser: &mut Parser) -> Option<usize> {
        parser.number_or_auto("MAX_CONNECTIONS", &self.max_connections, 1, 1_000_000)
    }

    pub(super) fn parse(&self, parser: &mut Parser, max_connections: usize) -> HttpSettings {
        HttpSettings {
            listen_addr: parser.socket_addr("LISTEN_ADDR", &self.listen_addr),
            admin_addr: parser.socket_addr("ADMIN_ADDR", &self.admin_addr),
            trusted_proxies: self.trusted_proxies(parser),
            admin_page: parser.one_of("ADMIN_PAGE", &self.admin_page, &[("on", true), ("off", false)]),
            worker_threads: parser.threads("WORKER_THREADS", &self.worker_threads),
            server: ServerLimits {
                max_connections,
                timeouts: ConnectionTimeouts {
                    head: parser.duration("HEAD_TIMEOUT", &self.head_timeout),
                    idle: parser.duration("IDLE_TIMEOUT", &self.idle_timeout),
                    write: parser.duration("WRITE_TIMEOUT", &self.write_timeout),
                },
                request_budget_bytes: REQUEST_BUDGET_BYTES,
                shutdown_delay: parser.duration("SHUTDOWN_DELAY", &self.shutdown_delay),
                drain_timeout: parser.duration("DRAIN_TIMEOUT", &self.drain_timeout),
            },
            dispatch: DispatchSettings {
                body_limits: BodyLimits {
                    max_bytes: parser.number("MAX_BODY_BYTES", &self.max_body_bytes, 1, 1 << 30),
                    timeout: parser.duration("BODY_TIMEOUT", &self.body_timeout),
                },
                allowed_origins: self.allowed_origins(parser),
                public_url: self.public_url(parser),
            },
            request_timeout: parser.duration("REQUEST_TIMEOUT", &self.request_timeout),
        }
    }

    /// An address without a prefix length is a network of one address.
    fn trusted_proxies(&self, parser: &mut Parser) -> TrustedProxies {
        let mut networks = Vec::<IpNet>::new();
        for text in self.trusted_proxies.split(',').map(str::trim).filter(|text| !text.is_empty()) {
            match text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)) {
                Ok(network) => networks.push(network),
                Err(_) => parser.error("TRUSTED_PROXIES", format!("is \"{text}\", which is not a network")),
            }
        }
        networks.into()
    }

    fn public_url(&self, parser: &mut Parser) -> Option<PublicUrl> {
        let text = Some(self.public_url.trim()).filter(|text| !text.is_empty())?;
        let url = PublicUrl::parse(text);
        if url.is_none() {
            let expected = "an http or https URL with an optional path, like https://shop.example/api-root";
            parser.error("PUBLIC_URL", format!("is \"{text}\", which is not {expected}"));
        }
        url
    }

    /// Returns the origins of CORS, `None` if there are none.
    fn allowed_origins(&self, parser: &mut Parser) -> Option<AllowedOrigins> {
        let texts: Vec<&str> = self.cors_origins.split(',').map(str::trim).filter(|text| !text.is_empty()).collect();
        if texts == ["*"] {
            return Some(AllowedOrigins::Any);
        }
        let expected = "an origin like https://shop.example, without a path; * stands alone";
        let mut origins = Vec::new();
        for text in texts {
            match parse_origin(text) {
                Some(origin) => origins.push(origin),
                None => parser.error("CORS_ORIGINS", format!("is \"{text}\", which is not {expected}")),
            }
        }
        (!origins.is_empty()).then_some(AllowedOrigins::List(origins))
    }
}
