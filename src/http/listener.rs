//! The listening socket, and the kernel's buffers of its connections.
//!
//! Without limits the kernel lets the buffers of a connection grow to megabytes, in memory that counts for the container
//! but not for any limit of the server: a client that pipelines requests and reads no response fills the send buffer, and
//! one that sends a body that no handler reads fills the receive buffer.

use std::{io, net::SocketAddr, os::fd::AsFd};

use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_send_buffer_size};
use tokio::net::{TcpListener, TcpSocket};

const BACKLOG: u32 = 4096;

/// Sizes of the buffers of a connection in bytes, as the kernel counts them: twice the value of the socket option
/// (socket(7)), with its overhead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SocketBuffers {
    send: usize,
    receive: usize,
}

/// A number of connections and the buffers of each of them.
struct Tier {
    connections: usize,
    buffers: SocketBuffers,
}

/// Buffers by the number of open connections when a connection is accepted. In the first tier a list of 200 kB fits the
/// send buffer. The kernel's minimum is 4.5 KiB and 2.25 KiB.
const TIERS: [Tier; 3] = [
    Tier { connections: 128, buffers: SocketBuffers { send: 256 << 10, receive: 64 << 10 } },
    Tier { connections: 1024 - 128, buffers: SocketBuffers { send: 64 << 10, receive: 16 << 10 } },
    Tier { connections: usize::MAX, buffers: SocketBuffers { send: 8 << 10, receive: 8 << 10 } },
];

/// Returns a socket that listens on `address`. Its connections have the buffers of the first tier.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    // accepted sockets inherit the sizes, without a system call for each
    set_buffers(&socket, TIERS[0].buffers)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Reduces the buffers of a new connection if many are open. `number` is their number, this one included.
pub(super) fn limit_buffers(socket: &impl AsFd, number: usize) -> io::Result<()> {
    let buffers = buffers_at(number);
    if buffers == TIERS[0].buffers { Ok(()) } else { set_buffers(socket, buffers) }
}

/// Returns the buffers of the connection that is accepted as this one.
fn buffers_at(number: usize) -> SocketBuffers {
    let mut before = 0_usize;
    let tier = TIERS.iter().find(|tier| {
        before = before.saturating_add(tier.connections);
        number <= before
    });
    tier.unwrap_or(&TIERS[TIERS.len() - 1]).buffers
}

/// Returns the bytes that the kernel holds at most for the buffers of `connections`.
pub(crate) fn max_kernel_bytes(connections: usize) -> usize {
    let mut remaining = connections;
    TIERS.iter().fold(0, |bytes, Tier { connections, buffers }| {
        let count = remaining.min(*connections);
        remaining -= count;
        bytes.saturating_add(count.saturating_mul(buffers.send + buffers.receive))
    })
}

fn set_buffers(socket: &impl AsFd, buffers: SocketBuffers) -> io::Result<()> {
    set_socket_send_buffer_size(socket, buffers.send / 2)?;
    set_socket_recv_buffer_size(socket, buffers.receive / 2)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_memory_of_all_connections_is_bounded() {
        assert_eq!(max_kernel_bytes(1), 320 << 10);
        assert_eq!(max_kernel_bytes(1024) >> 20, 110);
        assert_eq!(max_kernel_bytes(8192) >> 20, 222);
        assert_eq!(max_kernel_bytes(usize::MAX), usize::MAX);
    }

    #[tokio::test]
    async fn accepted_sockets_have_bounded_buffers() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let _client = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (socket, _) = listener.accept().await.unwrap();
        let sizes = || {
            let send = rustix::net::sockopt::socket_send_buffer_size(&socket).unwrap();
            SocketBuffers { send, receive: rustix::net::sockopt::socket_recv_buffer_size(&socket).unwrap() }
        };
        for (open, tier) in [(1, 0), (128, 0), (129, 1), (1024, 1), (1025, 2), (1_000_000, 2)] {
            limit_buffers(&socket, open).unwrap();
            assert_eq!(sizes(), TIERS[tier].buffers, "{open}");
        }
    }
}
