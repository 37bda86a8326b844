//! Sends live bodies: streams that last for hours and are idle most of the time.
//!
//! hyper writes the head of the response and gives the connection back, because it would keep its buffers, about 20 KiB,
//! for the whole time. What follows is the chunked coding (RFC 9112, 7.1), which is simple.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{body::LiveStream, connection::ConnectionState, monitored_stream::MonitoredStream};

/// Chunks up to this size are copied, so that one write sends them with their frame.
const COPIED_BYTES: usize = 16 * 1024;
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
/// Input that is discarded in one read: the head says that the connection closes after this response.
const DISCARD_BYTES: usize = 256;

/// Sends the rest of a live body, after its head. Ends with the body, or when the client disconnects or does not read for
/// longer than the time limit.
pub(super) async fn send_live(
    stream: &mut MonitoredStream,
    state: &ConnectionState,
    mut body: LiveStream,
) -> io::Result<()> {
    loop {
        let next = poll_fn(|cx| {
            if is_over(stream, state, cx)? {
                return Poll::Ready(Err(io::Error::from(io::ErrorKind::ConnectionAborted)));
            }
            body.as_mut().poll_next(cx).map(Ok)
        });
        let Some(bytes) = next.await? else {
            return write_all(stream, state, LAST_CHUNK).await;
        };
        // an empty chunk would end the body
        if !bytes.is_empty() {
            write_chunk(stream, state, &bytes).await?;
        }
    }
}

async fn write_chunk(stream: &mut MonitoredStream, state: &ConnectionState, bytes: &Bytes) -> io::Result<()> {
    let size = format!("{:x}\r\n", bytes.len());
    if bytes.len() <= COPIED_BYTES {
        return write_all(stream, state, &[size.as_bytes(), bytes, b"\r\n"].concat()).await;
    }
    write_all(stream, state, size.as_bytes()).await?;
    write_all(stream, state, bytes).await?;
    write_all(stream, state, b"\r\n").await
}

async fn write_all(stream: &mut MonitoredStream, state: &ConnectionState, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = poll_fn(|cx| {
            if state.is_timed_out(cx) {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            Pin::new(&mut *stream).poll_write(cx, bytes)
        });
        match written.await? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => bytes = &bytes[written..],
        }
    }
    Ok(())
}

/// Whether the client has disconnected, or the reaper found a time limit exceeded. Discards what the client sends.
fn is_over(stream: &mut MonitoredStream, state: &ConnectionState, cx: &mut Context<'_>) -> io::Result<bool> {
    let mut discarded = [0; DISCARD_BYTES];
    loop {
        let mut buffer = ReadBuf::new(&mut discarded);
        match Pin::new(&mut *stream).poll_read(cx, &mut buffer) {
            Poll::Ready(outcome) => {
                outcome?;
                if buffer.filled().is_empty() {
                    return Ok(true);
                }
            }
            Poll::Pending => return Ok(state.is_timed_out(cx)),
        }
    }
}
