//! The states of all open connections, and the reaper that enforces their time limits.
//!
//! hyper has one timer, for the request head, and none for idle sockets, bodies or stalled writes. A timer per request
//! costs more than parsing the request. Here a request stores two numbers, and the reaper compares them four times a
//! second. The reaper only sets flags and wakes the connection's task; the task acts on them.

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

use crate::{sync::lock, timestamps::millis};

/// Interval between two runs of the reaper, and so the precision of every time limit.
const REAP_INTERVAL: Duration = Duration::from_millis(250);
/// A connection that is idle for longer than this (milliseconds) is parked: it releases its buffers until more input
/// arrives.
const PARK_AFTER_MS: u64 = 1000;

/// The time limits of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConnectionTimeouts {
    /// From the first byte of a request to the end of its head; on a new connection, from its acceptance.
    pub(crate) head: Duration,
    /// Between two requests.
    pub(crate) idle: Duration,
    /// For a write that makes no progress.
    pub(crate) write: Duration,
}

// The phase of a connection is in the two low bits of `ConnectionState::phase`; the bits above hold the time at which
// it began, in milliseconds since the start of the server.
const PHASE_MASK: u64 = 3;
const IDLE: u64 = 0;
const READING_HEAD: u64 = 1;
const HANDLING: u64 = 2;

/// The time of the reaper's latest run, in milliseconds since the start of the server. It is precise enough for limits
/// that the reaper enforces, and costs a load instead of a system call.
type Clock = Arc<AtomicU64>;

/// The phase and the deadlines of one connection.
#[derive(Debug)]
pub(crate) struct ConnectionState {
    clock: Clock,
    phase: AtomicU64,
    /// Time of the first write without progress; 0 while writes make progress.
    write_blocked_since: AtomicU64,
    /// Deadline of the running request; `u64::MAX` when none is running.
    deadline: AtomicU64,
    /// The reaper found a time limit exceeded: the connection must end.
    timed_out: AtomicBool,
    /// The reaper found the connection idle for more than [`PARK_AFTER_MS`].
    parked: AtomicBool,
    task: AtomicWaker,
}

impl ConnectionState {
    fn new(clock: Clock) -> Self {
        let state = Self {
            clock,
            phase: AtomicU64::new(0),
            write_blocked_since: AtomicU64::new(0),
            deadline: AtomicU64::new(u64::MAX),
            timed_out: AtomicBool::new(false),
            parked: AtomicBool::new(false),
            task: AtomicWaker::new(),
        };
        state.enter(READING_HEAD);
        state
    }

    fn enter(&self, phase: u64) {
        self.phase.store(self.clock.load(Relaxed) << 2 | phase, Relaxed);
    }

    fn is_in_phase(&self, phase: u64) -> bool {
        self.phase.load(Relaxed) & PHASE_MASK == phase
    }

    /// Records that a request head is complete. Handler, body and response have limits of their own.
    pub(crate) fn request_started(&self) {
        self.enter(HANDLING);
        self.parked.store(false, Relaxed);
    }

    /// Records that the whole response has been handed to hyper.
    pub(crate) fn response_finished(&self) {
        self.enter(IDLE);
    }

    /// Runs `work`, and returns `None` when it takes longer than `timeout`. Only the connection's task may poll it,
    /// because the reaper wakes only that task.
    pub(crate) async fn with_deadline<T>(&self, timeout: Duration, work: impl Future<Output = T>) -> Option<T> {
        let deadline = self.clock.load(Relaxed).saturating_add(millis(timeout));
        self.deadline.store(deadline, Relaxed);
        let mut work = pin!(work);
        let outcome = poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
            Poll::Pending if deadline < self.clock.load(Relaxed) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        });
        let outcome = outcome.await;
        self.deadline.store(u64::MAX, Relaxed);
        outcome
    }

    /// Records that bytes were read: on an idle connection a request head begins.
    pub(crate) fn bytes_read(&self) {
        if self.is_in_phase(IDLE) {
            self.enter(READING_HEAD);
        }
    }

    /// Whether a request is being handled or its response is being sent.
    pub(crate) fn is_handling(&self) -> bool {
        self.is_in_phase(HANDLING)
    }

    /// Whether the connection ended because its client does not read.
    pub(crate) fn write_timed_out(&self) -> bool {
        self.timed_out.load(Relaxed) && self.write_blocked_since.load(Relaxed) != 0
    }

    /// Records whether a write made progress.
    pub(crate) fn track_write_progress<T>(&self, outcome: &Poll<T>) {
        let blocked_since = self.write_blocked_since.load(Relaxed);
        match outcome {
            Poll::Pending if blocked_since == 0 => {
                self.write_blocked_since.store(self.clock.load(Relaxed).max(1), Relaxed);
            }
            Poll::Ready(_) if blocked_since != 0 => self.write_blocked_since.store(0, Relaxed),
            _ => {}
        }
    }

    /// Whether the reaper found a time limit exceeded. Registers the calling task to be woken when that changes.
    pub(crate) fn is_timed_out(&self, cx: &Context<'_>) -> bool {
        self.task.register(cx.waker());
        self.timed_out.load(Relaxed)
    }

    /// Whether the connection has been idle long enough to be parked, and is still idle.
    pub(crate) fn should_park(&self) -> bool {
        self.parked.load(Relaxed) && self.is_in_phase(IDLE) && self.write_blocked_since.load(Relaxed) == 0
    }

    fn is_due_to_park(&self, now: u64) -> bool {
        let phase = self.phase.load(Relaxed);
        phase & PHASE_MASK == IDLE && now.saturating_sub(phase >> 2) > PARK_AFTER_MS && !self.parked.load(Relaxed)
    }

    fn exceeds_timeouts(&self, timeouts: &ConnectionTimeouts, now: u64) -> bool {
        let older_than = |since: u64, limit: Duration| u128::from(now.saturating_sub(since)) > limit.as_millis();
        let blocked_since = self.write_blocked_since.load(Relaxed);
        if blocked_since != 0 && older_than(blocked_since, timeouts.write) {
            return true;
        }
        let phase = self.phase.load(Relaxed);
        match phase & PHASE_MASK {
            IDLE => blocked_since == 0 && older_than(phase >> 2, timeouts.idle),
            READING_HEAD => older_than(phase >> 2, timeouts.head),
            _ => false,
        }
    }
}

/// All open connections of a listener.
#[derive(Debug)]
pub(crate) struct Connections {
    clock: Clock,
    timeouts: ConnectionTimeouts,
    open: Mutex<HashMap<u64, Arc<ConnectionState>>>,
    next_id: AtomicU64,
    draining: AtomicBool,
    stopping: AtomicBool,
}

impl Connections {
    pub(crate) fn new(timeouts: ConnectionTimeouts) -> Self {
        Self {
            clock: Clock::default(),
            timeouts,
            open: Mutex::default(),
            next_id: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<ConnectionState>>> {
        lock(&self.open)
    }

    /// From now on every response closes its connection.
    pub(crate) fn start_draining(&self) {
        self.draining.store(true, Relaxed);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// From now on every connection closes as soon as no request is running on it.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Relaxed);
        self.lock().values().for_each(|state| state.task.wake());
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Relaxed)
    }

    /// Returns the number of open connections.
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Returns the number of parked connections.
    pub(crate) fn parked(&self) -> usize {
        self.lock().values().filter(|state| state.should_park()).count()
    }

    /// Registers a new connection until the returned value is dropped.
    pub(crate) fn register(self: &Arc<Self>) -> OpenConnection {
        let id = self.next_id.fetch_add(1, Relaxed);
        let state = Arc::new(ConnectionState::new(Arc::clone(&self.clock)));
        self.lock().insert(id, Arc::clone(&state));
        OpenConnection { id, state, connections: Arc::clone(self) }
    }

    /// Advances the clock, and wakes the connections that exceed a time limit or are due to be parked. Never returns.
    pub(crate) async fn reap_timed_out(&self) {
        let started = Instant::now();
        let mut ticks = tokio::time::interval(REAP_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let now = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX >> 2);
            self.clock.store(now, Relaxed);
            for state in self.lock().values() {
                let timed_out = state.exceeds_timeouts(&self.timeouts, now);
                let parked = state.is_due_to_park(now);
                if timed_out {
                    state.timed_out.store(true, Relaxed);
                }
                if parked {
                    state.parked.store(true, Relaxed);
                }
                if timed_out || parked || state.deadline.load(Relaxed) < now {
                    state.task.wake();
                }
            }
        }
    }
}

/// A registered connection.
#[derive(Debug)]
pub(crate) struct OpenConnection {
    id: u64,
    pub(crate) state: Arc<ConnectionState>,
    pub(crate) connections: Arc<Connections>,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.connections.lock().remove(&self.id);
    }
}
