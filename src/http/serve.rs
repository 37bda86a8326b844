//! The accept loop: takes connections up to a bound, guards them, and stops without losing what runs.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper::{header, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
};
use tracing::{info, warn};

use super::{
    connection::{Connections, OpenConnection, Timeouts},
    dispatch::Dispatch,
    monitored_stream::MonitoredStream,
    protocol_error::{ErrorResponder, written},
    response::CLOSE,
};
use crate::error::Error;

/// The bounds of a server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ServerLimits {
    /// Connections at a time.
    pub(crate) connections: usize,
    /// The bounds of each.
    pub(crate) timeouts: Timeouts,
    /// After a stop was asked for, how long connections are still taken.
    pub(crate) delay: Duration,
    /// The time that running requests get after that.
    pub(crate) drain: Duration,
}

/// hyper's buffer for one connection, in bytes.
const BUFFER_BYTES: usize = 64 * 1024;
const BACKLOG: u32 = 4096;
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(50);
/// How long, and how much, whoever is refused is heard out.
const GOODBYE: Duration = Duration::from_secs(1);
const HEARD_OUT_BYTES: usize = 1 << 20;
/// So many that are over the bound of connections hear so at a time; the others are just closed, and hold no descriptor.
const GOODBYES: usize = 128;

/// A socket that listens on this address.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves until `stop` completes, goes on for `delay` while every reply says that its connection ends with it, then stops
/// accepting and gives what runs its time. Gives back whether everything came to its end within it.
pub(crate) async fn serve<S: Send + Sync + 'static>(
    listener: TcpListener,
    dispatch: Dispatch<S>,
    mut writes: mpsc::Receiver<Infallible>,
    connections: Arc<Connections>,
    limits: ServerLimits,
    stop: impl Future<Output = ()>,
) -> bool {
    let dispatch = Arc::new(dispatch);
    let goodbyes = Arc::new(Semaphore::new(GOODBYES));
    let (alive, mut all_closed) = mpsc::channel::<Infallible>(1);
    let sweeping = {
        let connections = Arc::clone(&connections);
        tokio::spawn(async move { connections.sweep().await })
    };
    {
        let mut leave = pin!(async {
            stop.await;
            connections.leave();
            tokio::time::sleep(limits.delay).await;
        });
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = &mut leave => break,
            };
            match accepted {
                Ok((socket, peer)) if connections.len() >= limits.connections => {
                    let Ok(turn) = Arc::clone(&goodbyes).try_acquire_owned() else { continue };
                    let full = Error::unavailable("too many connections");
                    turn_away(socket, written(&dispatch.refuse(&full, peer.ip().to_canonical())), turn);
                }
                Ok((socket, peer)) => {
                    let open = connections.open();
                    tokio::spawn(run(socket, peer, open, Arc::clone(&dispatch), alive.clone()));
                }
                // no descriptors left, or a connection that was gone before it was taken: go on in a moment
                Err(error) => {
                    warn!(%error, "accept failed");
                    tokio::time::sleep(ACCEPT_BACK_OFF).await;
                }
            }
        }
    }
    drop(listener);
    drop(alive);
    drop(dispatch);
    connections.stop();
    info!(connections = connections.len(), "stopped accepting; finishing what runs");
    let drained = tokio::time::timeout(limits.drain, async {
        all_closed.recv().await;
        writes.recv().await;
    })
    .await
    .is_ok();
    sweeping.abort();
    drained
}

/// What a connection over the bound hears before it is closed.
fn turn_away(mut socket: TcpStream, words: Vec<u8>, turn: OwnedSemaphorePermit) {
    tokio::spawn(async move {
        let goodbye = async {
            socket.write_all(&words).await?;
            hear_out(&mut socket).await
        };
        let _ = tokio::time::timeout(GOODBYE, goodbye).await;
        drop((socket, turn));
    });
}

/// Reads what is still coming, within bounds: a socket that is closed with something unread resets the connection, and the
/// answer is lost.
async fn hear_out(socket: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<()> {
    socket.shutdown().await?;
    let (mut bytes, mut heard) = ([0; 4096], 0);
    while heard < HEARD_OUT_BYTES {
        match socket.read(&mut bytes).await? {
            0 => break,
            count => heard += count,
        }
    }
    Ok(())
}

/// One connection. hyper holds some 20 KiB of buffers for each as long as it has it: so it gets a connection when something
/// is to be read on it, and gives it back when it has been idle for long.
async fn run<S: Send + Sync + 'static>(
    socket: TcpStream,
    peer: SocketAddr,
    open: OpenConnection,
    dispatch: Arc<Dispatch<S>>,
    alive: mpsc::Sender<Infallible>,
) {
    let _ = socket.set_nodelay(true);
    let (state, all) = (&open.state, &open.all);
    let service = || {
        service_fn(|request| {
            let dispatch = &dispatch;
            async move {
                let mut reply = dispatch.answer(request, peer.ip().to_canonical(), state).await;
                if all.are_leaving() {
                    reply.headers_mut().insert(header::CONNECTION, CLOSE);
                }
                Ok::<_, Infallible>(reply)
            }
        })
    };
    let mut socket =
        MonitoredStream::new(socket, peer.ip().to_canonical(), Arc::clone(state), Arc::clone(&dispatch) as _);
    while poll_fn(|cx| heard(&socket, &open, cx)).await {
        let mut connection = Box::new(
            http1::Builder::new()
                .header_read_timeout(None) // `connection.rs` keeps all the bounds of time
                .max_buf_size(BUFFER_BYTES)
                .serve_connection(TokioIo::new(socket), service()),
        );
        let mut asked_to_stop = false;
        let ended = poll_fn(|cx| {
            if state.is_killed(cx) {
                return Poll::Ready(true);
            }
            if !asked_to_stop && all.are_stopping() {
                asked_to_stop = true;
                Pin::new(&mut *connection).graceful_shutdown();
            }
            // what a client does wrong or a broken line ends the connection and nothing else
            match Pin::new(&mut *connection).poll(cx) {
                Poll::Ready(_) => Poll::Ready(true),
                Poll::Pending if state.rests() => Poll::Ready(false),
                Poll::Pending => Poll::Pending,
            }
        });
        let has_ended = ended.await;
        let parts = connection.into_parts();
        socket = parts.io.into_inner();
        socket.put_back(parts.read_buf);
        if has_ended {
            break;
        }
    }
    if socket.is_refused() {
        // apart: what it needs is no part of every connection's future
        let _ = tokio::time::timeout(GOODBYE, Box::pin(hear_out(&mut socket))).await;
    }
    drop((socket, alive));
}

/// Ready with `true` when there is something to read, with `false` when the connection is to end.
fn heard(socket: &MonitoredStream, open: &OpenConnection, cx: &mut Context<'_>) -> Poll<bool> {
    if open.state.is_killed(cx) {
        return Poll::Ready(false);
    }
    match socket.poll_heard(cx) {
        Poll::Ready(()) => Poll::Ready(true),
        Poll::Pending if open.all.are_stopping() => Poll::Ready(false),
        Poll::Pending => Poll::Pending,
    }
}
