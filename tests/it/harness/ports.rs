//! TCP ports that a test reserves for a server, and can bind again after the server has stopped.
//!
//! A port that the kernel chose for a socket, which is then closed, is not safe: the kernel may assign it to another
//! socket before the server binds it. Reserved ports lie below the kernel's ephemeral range, so the kernel assigns them
//! to no other socket. An abstract Unix socket named after the port reserves it among all tests and test runs in the
//! same network namespace.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr as UnixAddr, UnixListener},
    },
    sync::atomic::{AtomicU16, Ordering::SeqCst},
};

/// `scripts/services` uses the ports 15000 to 29999.
const FIRST_PORT: u16 = 30_000;

static NEXT_OFFSET: AtomicU16 = AtomicU16::new(0);

/// A port on 127.0.0.1 that is reserved until this is dropped.
pub struct ReservedPort {
    port: u16,
    _marker: UnixListener,
}

impl ReservedPort {
    /// # Panics
    /// When no port below the ephemeral range is free.
    pub fn new() -> Self {
        let count = first_ephemeral_port() - FIRST_PORT;
        for _ in 0..count {
            let port = FIRST_PORT + NEXT_OFFSET.fetch_add(1, SeqCst) % count;
            let name = UnixAddr::from_abstract_name(format!("testshop-it-port-{port}")).unwrap();
            let Ok(marker) = UnixListener::bind_addr(&name) else { continue };
            // a socket of another program may listen there
            if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Self { port, _marker: marker };
            }
        }
        panic!("no free port in {FIRST_PORT}..{}", FIRST_PORT + count);
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }
}

/// The ephemeral range starts here; Linux starts it at 32768 unless configured otherwise.
fn first_ephemeral_port() -> u16 {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let first = range.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(32_768);
    assert!(first > FIRST_PORT, "the ephemeral port range starts at {first}: no ports are left to reserve");
    first
}
