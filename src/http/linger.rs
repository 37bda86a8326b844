//! The lingering close. A socket that is closed with unread input sends a reset, and the client may lose the response
//! before it has read it. So the server closes its sending side first, and discards what the client still sends.

use std::{io, time::Duration};

use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    time::{Instant, timeout_at},
};

use super::connections::Connections;

/// Limits of a lingering close.
#[derive(Debug, Clone, Copy)]
pub(super) struct LingerLimits {
    /// Time in all.
    total: Duration,
    /// Time without input.
    pub(super) idle: Duration,
    /// Bytes of input.
    max_bytes: usize,
}

/// After a response on an established connection, which counts as open meanwhile: enough for the rest of an upload.
pub(super) const AFTER_RESPONSE: LingerLimits =
    LingerLimits { total: Duration::from_secs(30), idle: Duration::from_secs(5), max_bytes: 512 << 20 };
/// After the response to a connection above the limit, and to a head that cannot be parsed: lower, because
/// both come in large numbers.
pub(super) const AFTER_REJECTION: LingerLimits =
    LingerLimits { total: Duration::from_secs(5), idle: Duration::from_secs(1), max_bytes: 16 << 20 };
/// Limit of the total when the server is stopping.
const TOTAL_WHILE_STOPPING: Duration = Duration::from_secs(1);

/// Maximum number of reads of a socket without a yield to other tasks.
const MAX_CONSECUTIVE_READS: usize = 8;

/// Closes the sending side, then reads and discards input until its end or a limit. Holds no buffer while it waits.
pub(super) async fn lingering_close(
    socket: &mut TcpStream,
    connections: &Connections,
    limits: LingerLimits,
) -> io::Result<()> {
    let mut deadline = Instant::now() + limits.total;
    let mut discarded = 0;
    socket.shutdown().await?;
    while discarded < limits.max_bytes {
        if connections.is_stopping() {
            deadline = deadline.min(Instant::now() + TOTAL_WHILE_STOPPING);
        }
        timeout_at(deadline.min(Instant::now() + limits.idle), socket.readable()).await??;
        match discard_available(socket)? {
            Some(bytes) => discarded += bytes,
            None => break,
        }
        tokio::task::coop::consume_budget().await;
    }
    Ok(())
}

/// Discards input that has arrived, and returns its length, or `None` when the input has ended.
fn discard_available(socket: &TcpStream) -> io::Result<Option<usize>> {
    let (mut buffer, mut discarded) = ([0; 16 * 1024], 0);
    for _ in 0..MAX_CONSECUTIVE_READS {
        match socket.try_read(&mut buffer) {
            Ok(0) => return Ok(None),
            Ok(length) => discarded += length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(Some(discarded))
}
