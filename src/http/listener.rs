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

/// While few connections are open: a list of 200 kB fits the send buffer.
const LARGE: SocketBuffers = SocketBuffers { send: 256 << 10, receive: 128 << 10 };
/// Connections that may be open when a new one gets [`LARGE`] buffers.
const MAX_LARGE: usize = 256;
/// While many connections are open.
const SMALL: SocketBuffers = SocketBuffers { send: 16 << 10, receive: 16 << 10 };

/// Returns a socket that listens on `address`. Its connections have [`LARGE`] buffers.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    // accepted sockets inherit the sizes, without a system call for each
    set_buffers(&socket, LARGE)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Reduces the buffers of a new connection if many are open.
pub(super) fn limit_buffers(socket: &impl AsFd, open_connections: usize) -> io::Result<()> {
    if open_connections > MAX_LARGE { set_buffers(socket, SMALL) } else { Ok(()) }
}

/// Returns the bytes that the kernel holds at most for the buffers of `connections`.
pub(crate) fn max_kernel_bytes(connections: usize) -> usize {
    let bytes = |buffers: SocketBuffers, count: usize| count.saturating_mul(buffers.send + buffers.receive);
    bytes(LARGE, connections.min(MAX_LARGE)).saturating_add(bytes(SMALL, connections.saturating_sub(MAX_LARGE)))
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
        assert_eq!(max_kernel_bytes(1), 384 << 10);
        assert_eq!(max_kernel_bytes(8192) >> 20, 344);
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
        limit_buffers(&socket, MAX_LARGE).unwrap();
        assert_eq!(sizes(), LARGE);
        limit_buffers(&socket, MAX_LARGE + 1).unwrap();
        assert_eq!(sizes(), SMALL);
    }
}
