//! What guards a connection: the clock that every connection is held against, and the sweep that ends those
//! which are silent, dribble or do not read, and sends those to rest that have nothing to do.
//!
//! hyper knows one timer (the head) and none for idle sockets, bodies or stalled writes. A timer per request
//! costs more than the request's own parsing; here a request stores two numbers, and one sweep a quarter of a
//! second compares them. Whatever it finds, it writes down and wakes the connection's task, which looks for itself.

use std::{
    collections::HashMap,
    future::poll_fn,
    io,
    net::IpAddr,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes};
use futures_util::task::AtomicWaker;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::refusal::{Refuse, instead_of};

/// How often the sweep looks: a bound is kept to within this.
const SWEEP_INTERVAL: Duration = Duration::from_millis(250);
/// A connection that has been idle for so many milliseconds gives its buffers back until it is asked again.
const REST_AFTER: u64 = 1000;

/// The bounds of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// From the first byte of a request to the end of its head; for a new connection, from its acceptance.
    pub head: Duration,
    /// Between two requests.
    pub idle: Duration,
    /// A write that makes no progress.
    pub write: Duration,
}

// Phases of a connection, in the two low bits of `ConnectionState::phase`; above them the milliseconds since start.
const IDLE: u64 = 0;
const HEAD: u64 = 1;
const BUSY: u64 = 2;

/// The time as the sweep last saw it, in milliseconds since the server's start: exact enough for bounds that the sweep
/// keeps, and a load instead of a call.
type Clock = Arc<AtomicU64>;

/// What one connection is doing and since when.
#[derive(Debug)]
pub struct ConnectionState {
    clock: Clock,
    phase: AtomicU64,
    /// Milliseconds since start at which a write first made no progress; 0 while writes go through.
    write_blocked: AtomicU64,
    /// The time at which the running request is overdue; `u64::MAX` when none runs.
    due: AtomicU64,
    /// Over a bound: to be ended.
    killed: AtomicBool,
    /// Idle for long: to be kept without buffers.
    rest: AtomicBool,
    task: AtomicWaker,
}

impl ConnectionState {
    fn new(clock: Clock) -> Self {
        let state = Self {
            clock,
            phase: AtomicU64::new(0),
            write_blocked: AtomicU64::new(0),
            due: AtomicU64::new(u64::MAX),
            killed: AtomicBool::new(false),
            rest: AtomicBool::new(false),
            task: AtomicWaker::new(),
        };
        state.enter(HEAD);
        state
    }

    fn enter(&self, phase: u64) {
        self.phase.store(self.clock.load(Relaxed) << 2 | phase, Relaxed);
    }

    /// A request's head is complete; its handler, body and reply have bounds of their own.
    pub(super) fn request_began(&self) {
        self.enter(BUSY);
        self.rest.store(false, Relaxed);
    }

    /// The reply has been handed over entirely.
    pub(super) fn reply_ended(&self) {
        self.enter(IDLE);
    }

    /// The result of `work`, or nothing when it takes longer than `deadline`. To be polled by the connection's task.
    pub(super) async fn within<T>(&self, deadline: Duration, work: impl Future<Output = T>) -> Option<T> {
        let deadline = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
        let due = self.clock.load(Relaxed).saturating_add(deadline);
        self.due.store(due, Relaxed);
        let mut work = pin!(work);
        let outcome = poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
            Poll::Pending if due < self.clock.load(Relaxed) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        });
        let outcome = outcome.await;
        self.due.store(u64::MAX, Relaxed);
        outcome
    }

    /// Whether the sweep has found this connection over a bound. The task that asks is woken when that changes.
    pub(super) fn is_killed(&self, cx: &Context<'_>) -> bool {
        self.task.register(cx.waker());
        self.killed.load(Relaxed)
    }

    /// Whether the sweep has found this connection idle for long, and still nothing is under way on it.
    pub(super) fn rests(&self) -> bool {
        self.rest.load(Relaxed) && self.phase.load(Relaxed) & 3 == IDLE && self.write_blocked.load(Relaxed) == 0
    }

    fn is_tired(&self, now: u64) -> bool {
        let phase = self.phase.load(Relaxed);
        phase & 3 == IDLE && now.saturating_sub(phase >> 2) > REST_AFTER && !self.rest.load(Relaxed)
    }

    fn is_over(&self, timeouts: &Timeouts, now: u64) -> bool {
        let older_than = |since: u64, bound: Duration| u128::from(now.saturating_sub(since)) > bound.as_millis();
        let blocked = self.write_blocked.load(Relaxed);
        if blocked != 0 && older_than(blocked, timeouts.write) {
            return true;
        }
        let phase = self.phase.load(Relaxed);
        match phase & 3 {
            IDLE => blocked == 0 && older_than(phase >> 2, timeouts.idle),
            HEAD => older_than(phase >> 2, timeouts.head),
            _ => false,
        }
    }
}

/// All open connections of a server.
#[derive(Debug)]
pub struct Connections {
    clock: Clock,
    timeouts: Timeouts,
    open: Mutex<HashMap<u64, Arc<ConnectionState>>>,
    next: AtomicU64,
    leaving: AtomicBool,
    stopping: AtomicBool,
}

impl Connections {
    /// No connections yet.
    pub fn new(timeouts: Timeouts) -> Self {
        Self {
            clock: Clock::default(),
            timeouts,
            open: Mutex::default(),
            next: AtomicU64::new(0),
            leaving: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<ConnectionState>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on each ends with its next reply.
    pub(super) fn leave(&self) {
        self.leaving.store(true, Relaxed);
    }

    pub(super) fn are_leaving(&self) -> bool {
        self.leaving.load(Relaxed)
    }

    /// From now on each ends as soon as it has nothing to answer.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Relaxed);
        self.lock().values().for_each(|state| state.task.wake());
    }

    pub(super) fn are_stopping(&self) -> bool {
        self.stopping.load(Relaxed)
    }

    /// How many are open.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// How many of them rest without buffers.
    pub fn resting(&self) -> usize {
        self.lock().values().filter(|state| state.rests()).count()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A new connection, guarded as long as the value lives.
    pub(super) fn open(self: &Arc<Self>) -> OpenConnection {
        let id = self.next.fetch_add(1, Relaxed);
        let state = Arc::new(ConnectionState::new(Arc::clone(&self.clock)));
        self.lock().insert(id, Arc::clone(&state));
        OpenConnection { id, state, all: Arc::clone(self) }
    }

    /// Ends the connections that are over a bound, again and again.
    pub(super) async fn sweep(&self) {
        let started = Instant::now();
        let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let now = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX >> 2);
            self.clock.store(now, Relaxed);
            for state in self.lock().values() {
                let (is_over, is_tired) = (state.is_over(&self.timeouts, now), state.is_tired(now));
                if is_over {
                    state.killed.store(true, Relaxed);
                }
                if is_tired {
                    state.rest.store(true, Relaxed);
                }
                if is_over || is_tired || state.due.load(Relaxed) < now {
                    state.task.wake();
                }
            }
        }
    }
}

/// One entry of [`Connections`].
#[derive(Debug)]
pub(super) struct OpenConnection {
    id: u64,
    pub(super) state: Arc<ConnectionState>,
    pub(super) all: Arc<Connections>,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.all.lock().remove(&self.id);
    }
}

/// A socket that reports its progress to the connection's state, and says ours where hyper would say words of its own.
pub(super) struct GuardedSocket {
    socket: TcpStream,
    state: Arc<ConnectionState>,
    /// Read before, and to be read again.
    ahead: Bytes,
    peer: IpAddr,
    refuse: Arc<dyn Refuse>,
    refused: bool,
    /// What is being written in the place of hyper's own words.
    refusal: Bytes,
}

impl GuardedSocket {
    pub(super) fn new(socket: TcpStream, peer: IpAddr, state: Arc<ConnectionState>, refuse: Arc<dyn Refuse>) -> Self {
        Self { socket, state, ahead: Bytes::new(), peer, refuse, refused: false, refusal: Bytes::new() }
    }

    /// Whether what was sent here was no request.
    pub(super) fn is_refused(&self) -> bool {
        self.refused
    }

    /// These bytes are what the next read gives.
    pub(super) fn put_back(&mut self, bytes: Bytes) {
        self.ahead = bytes;
    }

    /// Ready when there is something to read, be it the end.
    pub(super) fn poll_heard(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.ahead.is_empty() { self.socket.poll_read_ready(cx).map(drop) } else { Poll::Ready(()) }
    }

    /// Writes our words where these are hyper's own.
    fn poll_refusal(&mut self, cx: &mut Context<'_>, words: &[u8]) -> Option<Poll<io::Result<usize>>> {
        if self.refusal.is_empty() {
            // `HTTP/1.1 4`
            if !words.starts_with(b"HTTP/1.")
                || words.get(9) != Some(&b'4')
                || self.state.phase.load(Relaxed) & 3 == BUSY
            {
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

    fn note_write<T>(&self, outcome: &Poll<io::Result<T>>) {
        let blocked = self.state.write_blocked.load(Relaxed);
        match outcome {
            Poll::Pending if blocked == 0 => {
                self.state.write_blocked.store(self.state.clock.load(Relaxed).max(1), Relaxed);
            }
            Poll::Ready(_) if blocked != 0 => self.state.write_blocked.store(0, Relaxed),
            _ => {}
        }
    }
}

/// A client that does not read is told so by a reset: what the kernel holds for it would otherwise stay until that has been
/// read, or for minutes, and nobody would count it.
impl Drop for GuardedSocket {
    fn drop(&mut self) {
        if self.state.killed.load(Relaxed) && self.state.write_blocked.load(Relaxed) != 0 {
            let _ = self.socket.set_zero_linger();
        }
    }
}

impl AsyncRead for GuardedSocket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let filled = buf.filled().len();
        let outcome = if self.ahead.is_empty() {
            Pin::new(&mut self.socket).poll_read(cx, buf)
        } else {
            let length = self.ahead.len().min(buf.remaining());
            buf.put_slice(&self.ahead.split_to(length));
            Poll::Ready(Ok(()))
        };
        if buf.filled().len() > filled && self.state.phase.load(Relaxed) & 3 == IDLE {
            self.state.enter(HEAD);
        }
        outcome
    }
}

impl AsyncWrite for GuardedSocket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = self.poll_refusal(cx, buf).unwrap_or_else(|| Pin::new(&mut self.socket).poll_write(cx, buf));
        self.note_write(&outcome);
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
        self.note_write(&outcome);
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
