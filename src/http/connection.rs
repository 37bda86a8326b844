//! What guards a connection: the clock that every connection is held against, and the sweep that ends those
//! which are silent, dribble or do not read, and sends those to rest that have nothing to do.
//!
//! hyper knows one timer (the head) and none for idle sockets, bodies or stalled writes. A timer per request
//! costs more than the request's own parsing; here a request stores two numbers, and one sweep a quarter of a
//! second compares them. Whatever it finds, it writes down and wakes the connection's task, which looks for itself.

use std::{
    collections::HashMap,
    future::poll_fn,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures_util::task::AtomicWaker;

use crate::sync::lock;

/// How often the sweep looks: a bound is kept to within this.
const SWEEP_INTERVAL: Duration = Duration::from_millis(250);
/// A connection that has been idle for so many milliseconds gives its buffers back until it is asked again.
const REST_AFTER: u64 = 1000;

/// The bounds of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeouts {
    /// From the first byte of a request to the end of its head; for a new connection, from its acceptance.
    pub(crate) head: Duration,
    /// Between two requests.
    pub(crate) idle: Duration,
    /// A write that makes no progress.
    pub(crate) write: Duration,
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
pub(crate) struct ConnectionState {
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
    pub(crate) fn request_began(&self) {
        self.enter(BUSY);
        self.rest.store(false, Relaxed);
    }

    /// The reply has been handed over entirely.
    pub(crate) fn reply_ended(&self) {
        self.enter(IDLE);
    }

    /// The result of `work`, or nothing when it takes longer than `deadline`. To be polled by the connection's task.
    pub(crate) async fn within<T>(&self, deadline: Duration, work: impl Future<Output = T>) -> Option<T> {
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

    /// The first bytes of a request were read.
    pub(crate) fn bytes_read(&self) {
        if self.phase.load(Relaxed) & 3 == IDLE {
            self.enter(HEAD);
        }
    }

    /// Whether a request is being handled or its response is being sent.
    pub(crate) fn is_busy(&self) -> bool {
        self.phase.load(Relaxed) & 3 == BUSY
    }

    /// Whether the connection was ended because its client does not read.
    pub(crate) fn write_timed_out(&self) -> bool {
        self.killed.load(Relaxed) && self.write_blocked.load(Relaxed) != 0
    }

    /// Records whether a write made progress.
    pub(crate) fn track_write_progress<T>(&self, outcome: &Poll<T>) {
        let blocked = self.write_blocked.load(Relaxed);
        match outcome {
            Poll::Pending if blocked == 0 => self.write_blocked.store(self.clock.load(Relaxed).max(1), Relaxed),
            Poll::Ready(_) if blocked != 0 => self.write_blocked.store(0, Relaxed),
            _ => {}
        }
    }

    /// Whether the sweep has found this connection over a bound. The task that asks is woken when that changes.
    pub(crate) fn is_killed(&self, cx: &Context<'_>) -> bool {
        self.task.register(cx.waker());
        self.killed.load(Relaxed)
    }

    /// Whether the sweep has found this connection idle for long, and still nothing is under way on it.
    pub(crate) fn rests(&self) -> bool {
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
pub(crate) struct Connections {
    clock: Clock,
    timeouts: Timeouts,
    open: Mutex<HashMap<u64, Arc<ConnectionState>>>,
    next: AtomicU64,
    leaving: AtomicBool,
    stopping: AtomicBool,
}

impl Connections {
    /// No connections yet.
    pub(crate) fn new(timeouts: Timeouts) -> Self {
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
        lock(&self.open)
    }

    /// From now on each ends with its next reply.
    pub(crate) fn leave(&self) {
        self.leaving.store(true, Relaxed);
    }

    pub(crate) fn are_leaving(&self) -> bool {
        self.leaving.load(Relaxed)
    }

    /// From now on each ends as soon as it has nothing to answer.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Relaxed);
        self.lock().values().for_each(|state| state.task.wake());
    }

    pub(crate) fn are_stopping(&self) -> bool {
        self.stopping.load(Relaxed)
    }

    /// How many are open.
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    /// How many of them rest without buffers.
    pub(crate) fn resting(&self) -> usize {
        self.lock().values().filter(|state| state.rests()).count()
    }

    /// A new connection, guarded as long as the value lives.
    pub(crate) fn open(self: &Arc<Self>) -> OpenConnection {
        let id = self.next.fetch_add(1, Relaxed);
        let state = Arc::new(ConnectionState::new(Arc::clone(&self.clock)));
        self.lock().insert(id, Arc::clone(&state));
        OpenConnection { id, state, all: Arc::clone(self) }
    }

    /// Ends the connections that are over a bound, again and again.
    pub(crate) async fn sweep(&self) {
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
pub(crate) struct OpenConnection {
    id: u64,
    pub(crate) state: Arc<ConnectionState>,
    pub(crate) all: Arc<Connections>,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.all.lock().remove(&self.id);
    }
}
