//! The accept loop: connection limit, one task per connection, graceful shutdown.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use hyper::{body::Incoming, header, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
};
use tracing::{info, warn};

use super::{
    connection::{ConnectionTimeouts, Connections, OpenConnection},
    dispatch::Dispatch,
    monitored_stream::MonitoredStream,
    protocol_error::{ErrorResponder, serialize_response},
    response::CLOSE,
    tracked_body::TrackedBody,
};
use crate::error::Error;

#[derive(Debug, Clone, Copy)]
pub(crate) struct ServerLimits {
    /// Connections open at the same time.
    pub(crate) max_connections: usize,
    pub(crate) timeouts: ConnectionTimeouts,
    /// How long a server that is to stop still accepts connections.
    pub(crate) shutdown_delay: Duration,
    /// How long running requests may take after that.
    pub(crate) drain_timeout: Duration,
}

/// Limit of hyper's read and write buffers, per connection.
const BUFFER_BYTES: usize = 64 * 1024;
const BACKLOG: u32 = 4096;
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);
/// Time limit of a lingering close.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);
/// Byte limit of a lingering close.
const LINGER_MAX_BYTES: usize = 1 << 20;
/// Connections above the limit that receive a 503 at the same time. Further ones are closed without a response, so that
/// they hold no file descriptors.
const MAX_CONCURRENT_REJECTIONS: usize = 128;

/// Returns a socket that listens on `address`.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves connections until `stop` completes, then shuts down: for `shutdown_delay` it still accepts connections while
/// every response closes its own, then it stops accepting and waits for running requests, at most `drain_timeout`.
///
/// Returns whether all requests finished in time.
pub(crate) async fn serve<S: Send + Sync + 'static>(
    listener: TcpListener,
    dispatch: Dispatch<S>,
    mut writes: mpsc::Receiver<Infallible>,
    connections: Arc<Connections>,
    limits: ServerLimits,
    stop: impl Future<Output = ()>,
) -> bool {
    let (connection_guard, mut all_closed) = mpsc::channel(1);
    let reaper = {
        let connections = Arc::clone(&connections);
        tokio::spawn(async move { connections.reap_timed_out().await })
    };
    let drain_signal = async {
        stop.await;
        connections.start_draining();
        tokio::time::sleep(limits.shutdown_delay).await;
    };
    tokio::select! {
        () = accept(&listener, Arc::new(dispatch), &connections, limits.max_connections, connection_guard) => {}
        () = drain_signal => {}
    }
    drop(listener);
    connections.stop();
    info!(connections = connections.len(), "stopped accepting connections");
    let drained = tokio::time::timeout(limits.drain_timeout, async {
        all_closed.recv().await;
        writes.recv().await;
    })
    .await
    .is_ok();
    reaper.abort();
    drained
}

/// Accepts connections and starts a task for each. Every task holds a clone of `connection_guard`. Never returns.
async fn accept<S: Send + Sync + 'static>(
    listener: &TcpListener,
    dispatch: Arc<Dispatch<S>>,
    connections: &Arc<Connections>,
    max_connections: usize,
    connection_guard: mpsc::Sender<Infallible>,
) {
    let rejections = Arc::new(Semaphore::new(MAX_CONCURRENT_REJECTIONS));
    loop {
        match listener.accept().await {
            Ok((socket, peer)) if connections.len() >= max_connections => {
                let Ok(permit) = Arc::clone(&rejections).try_acquire_owned() else { continue };
                let error = Error::unavailable("too many connections");
                let response = dispatch.error_response(&error, peer.ip().to_canonical());
                reject_over_limit(socket, serialize_response(&response), permit);
            }
            Ok((socket, peer)) => {
                let connection = connections.register();
                let peer = peer.ip().to_canonical();
                tokio::spawn(serve_connection(
                    socket,
                    peer,
                    connection,
                    Arc::clone(&dispatch),
                    connection_guard.clone(),
                ));
            }
            // no file descriptor is free, or the client has disconnected already
            Err(error) => {
                warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

/// Sends `response` to a connection above the limit, and closes it.
fn reject_over_limit(mut socket: TcpStream, response: Vec<u8>, permit: OwnedSemaphorePermit) {
    tokio::spawn(async move {
        let rejection = async {
            socket.write_all(&response).await?;
            lingering_close(&mut socket).await
        };
        let _ = tokio::time::timeout(LINGER_TIMEOUT, rejection).await;
        drop((socket, permit));
    });
}

/// Closes the sending side, then reads and discards input up to [`LINGER_MAX_BYTES`]. Closing a socket with unread
/// input resets the connection, and the client may lose the response.
async fn lingering_close(socket: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<()> {
    socket.shutdown().await?;
    let (mut buffer, mut discarded) = ([0; 4096], 0);
    while discarded < LINGER_MAX_BYTES {
        match socket.read(&mut buffer).await? {
            0 => break,
            count => discarded += count,
        }
    }
    Ok(())
}

/// Serves one connection until it ends. hyper holds about 20 KiB of buffers for a connection, so hyper gets the
/// connection only when there is something to read, and returns it when it is to be parked.
async fn serve_connection<S: Send + Sync + 'static>(
    socket: TcpStream,
    peer: IpAddr,
    open: OpenConnection,
    dispatch: Arc<Dispatch<S>>,
    connection_guard: mpsc::Sender<Infallible>,
) {
    let _ = socket.set_nodelay(true);
    let state = &open.state;
    let mut stream = MonitoredStream::new(socket, peer, Arc::clone(state), Arc::clone(&dispatch) as _);
    while wait_readable(&stream, &open).await {
        let mut connection = Box::new(
            http1::Builder::new()
                .header_read_timeout(None) // the reaper enforces all time limits
                .max_buf_size(BUFFER_BYTES)
                .serve_connection(TokioIo::new(stream), service_fn(|request| respond(&dispatch, request, peer, &open))),
        );
        let mut shutdown_started = false;
        let ended = poll_fn(|cx| {
            if state.is_timed_out(cx) {
                return Poll::Ready(true);
            }
            if !shutdown_started && open.connections.is_stopping() {
                shutdown_started = true;
                Pin::new(&mut *connection).graceful_shutdown();
            }
            // a protocol or network error ends this connection and has no other effect
            match Pin::new(&mut *connection).poll(cx) {
                Poll::Ready(_) => Poll::Ready(true),
                Poll::Pending if state.should_park() => Poll::Ready(false),
                Poll::Pending => Poll::Pending,
            }
        });
        let has_ended = ended.await;
        let parts = connection.into_parts();
        stream = parts.io.into_inner();
        stream.unread(parts.read_buf);
        if has_ended {
            break;
        }
    }
    if stream.has_error_response() {
        // boxed, so that its buffer does not enlarge the future of every connection
        let _ = tokio::time::timeout(LINGER_TIMEOUT, Box::pin(lingering_close(&mut stream))).await;
    }
    drop((stream, connection_guard));
}

async fn respond<S: Send + Sync + 'static>(
    dispatch: &Dispatch<S>,
    request: hyper::Request<Incoming>,
    peer: IpAddr,
    open: &OpenConnection,
) -> Result<hyper::Response<TrackedBody>, Infallible> {
    let mut response = dispatch.handle(request, peer, &open.state).await;
    if open.connections.is_draining() {
        response.headers_mut().insert(header::CONNECTION, CLOSE);
    }
    Ok(response)
}

/// Returns `true` when there is something to read, `false` when the connection must end.
async fn wait_readable(stream: &MonitoredStream, open: &OpenConnection) -> bool {
    poll_fn(|cx| {
        if open.state.is_timed_out(cx) {
            return Poll::Ready(false);
        }
        match stream.poll_readable(cx) {
            Poll::Ready(()) => Poll::Ready(true),
            Poll::Pending if open.connections.is_stopping() => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}
