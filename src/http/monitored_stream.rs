//! The socket of a connection: reports progress to the connection's state, and replaces hyper's own error responses.

use std::{
    io,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
};

use super::{
    connection::ConnectionState,
    protocol_error::{ErrorResponder, replace_hyper_error, serialize_response},
    request_budget::RequestReservation,
};
use crate::error::Error;

/// A TCP stream that reports reads and writes to the [`ConnectionState`], and sends the standard error response where
/// hyper would send its own (docs/adr/0007).
pub(crate) struct MonitoredStream {
    socket: TcpStream,
    state: Arc<ConnectionState>,
    /// Bytes that the next reads return before any from the socket.
    read_ahead: Bytes,
    /// Upper limit of the bytes that hyper has not parsed, except those of a body; the reservation is for them.
    unparsed: usize,
    /// Length of the latest read from the socket.
    last_read: usize,
    reservation: RequestReservation,
    peer: IpAddr,
    responder: Arc<dyn ErrorResponder>,
    has_error_response: bool,
    /// The unsent rest of the response that replaces hyper's.
    error_response: Bytes,
}

impl MonitoredStream {
    pub(crate) fn new(
        socket: TcpStream,
        peer: IpAddr,
        state: Arc<ConnectionState>,
        responder: Arc<dyn ErrorResponder>,
    ) -> Self {
        Self {
            socket,
            unparsed: 0,
            last_read: 0,
            reservation: state.request_reservation(),
            state,
            read_ahead: Bytes::new(),
            peer,
            responder,
            has_error_response: false,
            error_response: Bytes::new(),
        }
    }

    /// Whether the response to the latest request was an error response without a handler: the request could not be
    /// parsed, or exceeds the budget.
    pub(crate) fn has_error_response(&self) -> bool {
        self.has_error_response
    }

    /// Makes the next reads return these bytes first. They are all that hyper has not parsed.
    pub(crate) fn unread(&mut self, bytes: &[u8]) {
        // a copy, because the bytes share the allocation of hyper's whole buffer
        self.read_ahead = Bytes::copy_from_slice(bytes);
        (self.unparsed, self.last_read) = (bytes.len(), bytes.len());
        self.reservation.resize(bytes.len());
    }

    /// Counts bytes that hyper receives. Returns `false` if the budget for unfinished requests is exhausted.
    fn count_read(&mut self, length: usize, begins_head: bool) -> bool {
        self.unparsed = if self.state.is_handling() {
            // while a request is handled, hyper reads only when it has no unparsed bytes
            length
        } else if begins_head {
            // what follows the previous request arrived with its last bytes
            self.last_read + length
        } else {
            self.unparsed + length
        };
        self.last_read = length;
        // a request that is being handled is not aborted: its body has a reservation of its own
        self.reservation.resize(self.unparsed) || self.state.is_handling()
    }

    /// Queues the response to a request that exceeds the budget for unfinished requests. It is not sent if it would
    /// interrupt another response.
    fn reject_over_budget(&mut self) -> io::Error {
        if !self.state.is_write_blocked() && !self.has_error_response {
            let error = Error::unavailable("the budget for unfinished requests is exhausted");
            let response = self.responder.error_response(&error, self.peer);
            self.error_response = serialize_response(&response).into();
            self.has_error_response = true;
        }
        io::Error::other("the budget for unfinished requests is exhausted")
    }

    /// Writes the rest of the error response, if there is one.
    pub(crate) async fn finish_error_response(&mut self) -> io::Result<()> {
        while !self.error_response.is_empty() {
            let written = self.socket.write(&self.error_response).await?;
            self.error_response.advance(written);
        }
        Ok(())
    }

    /// Returns the socket. It must be used only when hyper no longer serves the connection.
    pub(crate) fn socket(&mut self) -> &mut TcpStream {
        &mut self.socket
    }

    /// Ready when a read would return bytes or the end of the stream.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.read_ahead.is_empty() { self.socket.poll_read_ready(cx).map(drop) } else { Poll::Ready(()) }
    }

    /// Writes the standard error response if `bytes` are an error response of hyper's own; returns `None` if they are
    /// not.
    fn poll_error_response(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Option<Poll<io::Result<usize>>> {
        if self.error_response.is_empty() {
            // the 4 of `HTTP/1.1 4xx` has index 9
            if !bytes.starts_with(b"HTTP/1.") || bytes.get(9) != Some(&b'4') || self.state.is_handling() {
                return None;
            }
            self.error_response = replace_hyper_error(bytes, &*self.responder, self.peer)?.into();
            self.has_error_response = true;
        }
        while !self.error_response.is_empty() {
            match Pin::new(&mut self.socket).poll_write(cx, &self.error_response) {
                Poll::Ready(Ok(count)) if count > 0 => self.error_response.advance(count),
                outcome => return Some(outcome),
            }
        }
        Some(Poll::Ready(Ok(bytes.len())))
    }
}

/// Resets the connection of a client that does not read. Otherwise the kernel would keep the unsent bytes for minutes,
/// in memory that no limit of the server covers.
impl Drop for MonitoredStream {
    fn drop(&mut self) {
        if self.state.write_timed_out() {
            let _ = self.socket.set_zero_linger();
        }
    }
}

impl AsyncRead for MonitoredStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.read_ahead.is_empty() {
            let length = self.read_ahead.len().min(buf.remaining());
            buf.put_slice(&self.read_ahead.split_to(length));
            self.state.bytes_read();
            return Poll::Ready(Ok(()));
        }
        let filled = buf.filled().len();
        let outcome = Pin::new(&mut self.socket).poll_read(cx, buf);
        let length = buf.filled().len() - filled;
        if length > 0 {
            let begins_head = self.state.bytes_read();
            if !self.count_read(length, begins_head) {
                return Poll::Ready(Err(self.reject_over_budget()));
            }
        }
        outcome
    }
}

impl AsyncWrite for MonitoredStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let error_response = self.poll_error_response(cx, buf);
        let outcome = error_response.unwrap_or_else(|| Pin::new(&mut self.socket).poll_write(cx, buf));
        self.state.track_write_progress(&outcome);
        outcome
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let error_response = match bufs {
            // hyper's own responses have no body
            [buf] => self.poll_error_response(cx, buf),
            _ => None,
        };
        let outcome = error_response.unwrap_or_else(|| Pin::new(&mut self.socket).poll_write_vectored(cx, bufs));
        self.state.track_write_progress(&outcome);
        outcome
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
