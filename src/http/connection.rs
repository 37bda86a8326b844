//! The state of a connection: its phase, its deadlines, and what it counts for.
//!
//! hyper has one timer, for the request head, and none for idle sockets, bodies or stalled writes. A timer per request
//! costs more than parsing the request. Here a request stores two numbers, and the reaper compares them four times a
//! second. The reaper only sets flags and wakes the connection's task; the task acts on them.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::task::AtomicWaker;

use super::request_budget::{RequestBudget, RequestReservation};
use crate::{network::ClientNetwork, timestamps::millis};

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
pub(super) type Clock = Arc<AtomicU64>;

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
    /// The body of the latest request was not read to its end.
    has_unread_body: AtomicBool,
    budget: Arc<RequestBudget>,
    /// The network that the connection counts for; none for a trusted proxy.
    network: Option<ClientNetwork>,
    task: AtomicWaker,
}

impl ConnectionState {
    pub(super) fn new(clock: Clock, budget: Arc<RequestBudget>, network: Option<ClientNetwork>) -> Self {
        let state = Self {
            clock,
            phase: AtomicU64::new(0),
            write_blocked_since: AtomicU64::new(0),
            deadline: AtomicU64::new(u64::MAX),
            timed_out: AtomicBool::new(false),
            parked: AtomicBool::new(false),
            has_unread_body: AtomicBool::new(false),
            budget,
            network,
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
        self.has_unread_body.store(false, Relaxed);
    }

    /// Returns an empty reservation for bytes of a request on this connection.
    pub(crate) fn request_reservation(&self) -> RequestReservation {
        self.budget.reservation(self.network)
    }

    /// Records that the server has no use for the rest of the request's body.
    pub(crate) fn body_left_unread(&self) {
        self.has_unread_body.store(true, Relaxed);
    }

    /// Whether the server has stopped reading the latest request's body before its end.
    pub(crate) fn has_unread_body(&self) -> bool {
        self.has_unread_body.load(Relaxed)
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

    /// Records that bytes were read. Returns whether a request head begins with them.
    pub(crate) fn bytes_read(&self) -> bool {
        let begins_head = self.is_in_phase(IDLE);
        if begins_head {
            self.enter(READING_HEAD);
        }
        begins_head
    }

    /// Whether a request is being handled or its response is being sent.
    pub(crate) fn is_handling(&self) -> bool {
        self.is_in_phase(HANDLING)
    }

    /// Whether a write waits for the client to read.
    pub(crate) fn is_write_blocked(&self) -> bool {
        self.write_blocked_since.load(Relaxed) != 0
    }

    /// Whether the connection ended because its client does not read.
    pub(crate) fn write_timed_out(&self) -> bool {
        self.timed_out.load(Relaxed) && self.is_write_blocked()
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
        self.parked.load(Relaxed) && self.is_in_phase(IDLE) && !self.is_write_blocked()
    }

    fn is_due_to_park(&self, now: u64) -> bool {
        let phase = self.phase.load(Relaxed);
        phase & PHASE_MASK == IDLE && now.saturating_sub(phase >> 2) > PARK_AFTER_MS && !self.parked.load(Relaxed)
    }

    /// Wakes the connection's task if the connection exceeds a time limit or is due to be parked at the time `now`.
    pub(super) fn reap(&self, timeouts: &ConnectionTimeouts, now: u64) {
        let timed_out = self.exceeds_timeouts(timeouts, now);
        let parked = self.is_due_to_park(now);
        if timed_out {
            self.timed_out.store(true, Relaxed);
        }
        if parked {
            self.parked.store(true, Relaxed);
        }
        if timed_out || parked || self.deadline.load(Relaxed) < now {
            self.wake();
        }
    }

    /// Wakes the connection's task.
    pub(super) fn wake(&self) {
        self.task.wake();
    }

    /// Returns the network that the connection counts for.
    pub(super) fn network(&self) -> Option<ClientNetwork> {
        self.network
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
