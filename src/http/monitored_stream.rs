//! A socket that reports its progress to the connection's state, and replaces hyper's own error responses.

use std::{
    io,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::{
    connection::ConnectionState,
    protocol_error::{ErrorResponder, instead_of},
};

/// A socket that reports its progress to the connection's state, and says ours where hyper would say words of its own.
pub(crate) struct MonitoredStream {
    socket: TcpStream,
    state: Arc<ConnectionState>,
    /// Read before, and to be read again.
    ahead: Bytes,
    peer: IpAddr,
    refuse: Arc<dyn ErrorResponder>,
    refused: bool,
    /// What is being written in the place of hyper's own words.
    refusal: Bytes,
}

impl MonitoredStream {
    pub(crate) fn new(
        socket: TcpStream,
        peer: IpAddr,
        state: Arc<ConnectionState>,
        refuse: Arc<dyn ErrorResponder>,
    ) -> Self {
        Self { socket, state, ahead: Bytes::new(), peer, refuse, refused: false, refusal: Bytes::new() }
    }

    /// Whether what was sent here was no request.
    pub(crate) fn is_refused(&self) -> bool {
        self.refused
    }

    /// These bytes are what the next read gives.
    pub(crate) fn put_back(&mut self, bytes: Bytes) {
        self.ahead = bytes;
    }

    /// Ready when there is something to read, be it the end.
    pub(crate) fn poll_heard(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.ahead.is_empty() { self.socket.poll_read_ready(cx).map(drop) } else { Poll::Ready(()) }
    }

    /// Writes our words where these are hyper's own.
    fn poll_refusal(&mut self, cx: &mut Context<'_>, words: &[u8]) -> Option<Poll<io::Result<usize>>> {
        if self.refusal.is_empty() {
            // `HTTP/1.1 4`
            if !words.starts_with(b"HTTP/1.") || words.get(9) != Some(&b'4') || self.state.is_busy() {
                return None;
            }
            self.refusal = instead_of(words, &*self.refuse, self.peer)?.into();
            self.refused = true;
        }
        while !self.refusal.is_empty() {
            match Pin::new(&mut self.socket).poll_write(cx, &self.refusal) {
                Poll::Ready(Ok(count)) if count > 0 => self.refusal.advance(count),
                outcome => return Some(outcome),
            }
        }
        Some(Poll::Ready(Ok(words.len())))
    }
}

/// A client that does not read is told so by a reset: what the kernel holds for it would otherwise stay until that has been
/// read, or for minutes, and nobody would count it.
impl Drop for MonitoredStream {
    fn drop(&mut self) {
        if self.state.write_timed_out() {
            let _ = self.socket.set_zero_linger();
        }
    }
}

impl AsyncRead for MonitoredStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let filled = buf.filled().len();
        let outcome = if self.ahead.is_empty() {
            Pin::new(&mut self.socket).poll_read(cx, buf)
        } else {
            let length = self.ahead.len().min(buf.remaining());
            buf.put_slice(&self.ahead.split_to(length));
            Poll::Ready(Ok(()))
        };
        if buf.filled().len() > filled {
            self.state.bytes_read();
        }
        outcome
    }
}

impl AsyncWrite for MonitoredStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = self.poll_refusal(cx, buf).unwrap_or_else(|| Pin::new(&mut self.socket).poll_write(cx, buf));
        self.state.track_write_progress(&outcome);
        outcome
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let refusal = match bufs {
            // hyper's own have no body
            [words] => self.poll_refusal(cx, words),
            _ => None,
        };
        let outcome = refusal.unwrap_or_else(|| Pin::new(&mut self.socket).poll_write_vectored(cx, bufs));
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
