//! Settings of the HTTP server.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use ipnet::IpNet;

use super::parser::Parser;
use crate::http::{
    connection::ConnectionTimeouts, forwarded::TrustedProxies, request::BodyLimits, serve::ServerLimits,
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
    pub(crate) worker_threads: usize,
    pub(crate) server: ServerLimits,
    pub(crate) body: BodyLimits,
    /// Time until the response begins.
    pub(crate) request_timeout: Duration,
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
            body: BodyLimits {
                max_bytes: parser.number("MAX_BODY_BYTES", &self.max_body_bytes, 1, 1 << 30),
                timeout: parser.duration("BODY_TIMEOUT", &self.body_timeout),
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
}
