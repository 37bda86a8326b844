//! The accept loop: connection limit, one task per connection, graceful shutdown.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    io,
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    task::Poll,
    time::Duration,
};

use hyper::{Method, Version, body::Incoming, header, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
};
use tracing::{info, warn};

use super::{
    body::LiveStream,
    connection::ConnectionTimeouts,
    connections::{Connections, OpenConnection},
    dispatch::Dispatch,
    head::MAX_HEAD_BYTES,
    linger::{AFTER_REJECTION, AFTER_RESPONSE, lingering_close},
    listener::limit_buffers,
    live::send_live,
    monitored_stream::MonitoredStream,
    protocol_error::{ErrorResponder, serialize_response},
    response::CLOSE,
    tracked_body::TrackedBody,
};
use crate::{error::Error, sync::lock};

#[derive(Debug, Clone, Copy)]
pub(crate) struct ServerLimits {
    /// Connections open at the same time.
    pub(crate) max_connections: usize,
    pub(crate) timeouts: ConnectionTimeouts,
    /// Bytes of unfinished requests, of all connections together.
    pub(crate) request_budget_bytes: usize,
    /// How long a server that is to stop still accepts connections.
    pub(crate) shutdown_delay: Duration,
    /// How long running requests may take after that.
    pub(crate) drain_timeout: Duration,
}

/// Limit of hyper's read buffer per connection. hyper responds with 431 when the buffer is full and holds no complete
/// head. A full write buffer is flushed before more of a body is read.
const BUFFER_BYTES: usize = MAX_HEAD_BYTES;
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);
/// Connections above the limit that receive a 503 at the same time. Further ones are closed without a response, so that
/// they hold no file descriptors.
const MAX_CONCURRENT_REJECTIONS: usize = 128;

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
        () = accept(&listener, Arc::new(dispatch), &connections, connection_guard) => {}
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
    connection_guard: mpsc::Sender<Infallible>,
) {
    let rejections = Arc::new(Semaphore::new(MAX_CONCURRENT_REJECTIONS));
    loop {
        match listener.accept().await {
            Ok((socket, peer)) => {
                let peer = peer.ip().to_canonical();
                let Some(connection) = connections.register(peer) else {
                    let Ok(permit) = Arc::clone(&rejections).try_acquire_owned() else { continue };
                    let response = dispatch.error_response(&Error::unavailable("too many connections"), peer);
                    reject_over_limit(socket, serialize_response(&response), Arc::clone(connections), permit);
                    continue;
                };
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
fn reject_over_limit(
    mut socket: TcpStream,
    response: Vec<u8>,
    connections: Arc<Connections>,
    permit: OwnedSemaphorePermit,
) {
    tokio::spawn(async move {
        if tokio::time::timeout(AFTER_REJECTION.idle, socket.write_all(&response)).await.is_ok_and(|sent| sent.is_ok())
        {
            let _ = lingering_close(&mut socket, &connections, AFTER_REJECTION).await;
        }
        drop((socket, permit));
    });
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
    // fails only if the client has disconnected already
    let _ = socket.set_nodelay(true);
    let _ = limit_buffers(&socket, open.number);
    let state = &open.state;
    let mut stream = MonitoredStream::new(socket, peer, Arc::clone(state), Arc::clone(&dispatch) as _);
    let live = Mutex::new(None);
    while wait_readable(&stream, &open).await {
        let mut connection = Box::new(
            http1::Builder::new()
                .header_read_timeout(None) // the reaper enforces all time limits
                .max_buf_size(BUFFER_BYTES)
                .half_close(true) // a client that has sent its last request may close its sending side
                .serve_connection(
                    TokioIo::new(stream),
                    service_fn(|request| respond(&dispatch, request, peer, &open, &live)),
                ),
        );
        let mut shutdown_started = false;
        let ended = poll_fn(|cx| {
            if state.is_timed_out(cx) {
                return Poll::Ready(Some(End::TimedOut));
            }
            if !shutdown_started && open.connections.is_stopping() {
                shutdown_started = true;
                Pin::new(&mut *connection).graceful_shutdown();
            }
            // a protocol or network error ends this connection and has no other effect
            match Pin::new(&mut *connection).poll(cx) {
                Poll::Ready(_) => Poll::Ready(Some(End::Closed)),
                // hyper has flushed the head, or waits for the client to read it
                Poll::Pending if !state.is_write_blocked() && lock(&live).is_some() => {
                    Poll::Ready(Some(End::HandedOver))
                }
                Poll::Pending if state.should_park() => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        });
        let end = ended.await;
        let http1::Parts { io, read_buf, .. } = connection.into_parts();
        stream = io.into_inner();
        stream.unread(&read_buf);
        // frees hyper's buffer, for as long as a live body lasts
        drop(read_buf);
        match end {
            None => {}
            Some(End::TimedOut) => break,
            Some(End::HandedOver) => {
                let body = lock(&live).take();
                if let Some(body) = body {
                    state.request_started();
                    let _ = Box::pin(send_live(&mut stream, state, body)).await;
                }
                break;
            }
            Some(End::Closed) => {
                // boxed, so that its state does not enlarge the future of every connection
                let _ = Box::pin(close(&mut stream, &open)).await;
                break;
            }
        }
    }
    drop((stream, connection_guard));
}

/// Why hyper no longer serves a connection.
enum End {
    /// The reaper found a time limit exceeded.
    TimedOut,
    /// hyper has sent the head of a response with a live body.
    HandedOver,
    /// hyper has sent its last response, or found that the client has disconnected.
    Closed,
}

/// Closes a connection so that its client receives the last response, also if it is still sending a request.
async fn close(stream: &mut MonitoredStream, open: &OpenConnection) -> io::Result<()> {
    let limits = if stream.has_error_response() {
        tokio::time::timeout(AFTER_REJECTION.idle, stream.finish_error_response()).await??;
        AFTER_REJECTION
    } else if open.state.has_unread_body() {
        AFTER_RESPONSE
    } else {
        return Ok(());
    };
    lingering_close(stream.socket(), &open.connections, limits).await
}

async fn respond<S: Send + Sync + 'static>(
    dispatch: &Dispatch<S>,
    request: hyper::Request<Incoming>,
    peer: IpAddr,
    open: &OpenConnection,
    live: &Mutex<Option<LiveStream>>,
) -> Result<hyper::Response<TrackedBody>, Infallible> {
    // HTTP/1.0 has no chunked coding
    let is_handed_over = request.method() == Method::GET && request.version() == Version::HTTP_11;
    let mut response = dispatch.handle(request, peer, &open.state).await;
    let body = if is_handed_over { response.body_mut().hand_over() } else { None };
    if body.is_some() || open.connections.is_draining() {
        response.headers_mut().insert(header::CONNECTION, CLOSE);
    }
    *lock(live) = body;
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
