//! The steps of the model. Any step that is possible may come next, and time may pass before it: a process that is
//! frozen, or a message that is late, is one whose step comes later.

use std::fmt::{self, Display, Formatter};

use super::state::{Backend, INSTANCES, Instance, Lease, SUBJECTS, State, Tickets, WRITERS, WriterStep};

/// The protocol, or a variant that is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    Protocol,
    /// A lease is a lock that the connection holds, and a writer cancels what holds it: PostgreSQL releases the lock
    /// before the instance knows.
    CancelledLock,
    /// A lease is a lock that the connection holds: a killed backend releases it.
    ConnectionLock,
    /// One statement takes the locks and reads the versions, in the snapshot from before it had the locks.
    OneStatement,
    /// The lease counts from the response.
    ClockAfterResponse,
    /// Tickets are rows of a table: a writer does not see those that are newer than its snapshot.
    TicketTable,
    /// An instance that surrenders its lease goes on using it.
    SurrenderKeepsLease,
    /// An instance surrenders its tickets while another one has a lease, and PostgreSQL takes them for all tickets.
    SurrenderOfOthers,
    /// A surrender from before a crash counts after it, for tickets with the same numbers.
    SurrenderAcrossCrash,
    /// After a crash or a failover the number of tickets equals the number that was waited for.
    RestartForgetsTickets,
    /// A writer waits before it takes the lock, so leases are granted meanwhile.
    WaitBeforeLock,
    /// A writer releases the lock before its commit is visible.
    EarlyRelease,
    /// A leased read takes the commit lock of the catalogue only.
    CatalogueLockOnly,
    /// A leased read draws its ticket before it takes the locks. Not wrong: if a writer waits for the ticket meanwhile, the
    /// lease has ended before it is granted.
    TicketBeforeLock,
    /// A leased read reads the versions before it draws its ticket. Not wrong: it holds the locks meanwhile.
    ReadBeforeTicket,
}

/// What the model contains.
#[derive(Debug, Clone, Copy)]
pub struct Model {
    pub variant: Variant,
    /// The number of instances.
    pub instances: usize,
    /// The subject that each writer changes.
    pub subjects: [usize; WRITERS],
    /// The number of writers.
    pub writers: usize,
    /// The instance through which a writer writes, which surrenders its lease first.
    pub surrenders: [Option<usize>; WRITERS],
    /// The duration of a lease in ticks.
    pub duration: u8,
    /// How often PostgreSQL crashes at most.
    pub crashes: u8,
}

/// The name of a step, and the number of the instance or writer that takes it.
#[derive(Debug, Clone, Copy)]
pub struct Step(pub &'static str, pub usize);

impl Display for Step {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0, self.1)
    }
}

pub type Successors = Vec<(Step, State)>;

impl Model {
    /// Adds the states that one step leads to.
    pub fn successors(&self, state: &State, out: &mut Successors) {
        out.push((Step("tick", 0), self.tick(*state)));
        for index in 0..self.instances {
            self.instance_steps(state, index, out);
            self.backend_steps(state, index, out);
            self.surrender_steps(state, index, out);
        }
        for index in 0..self.writers {
            self.writer_steps(state, index, out);
        }
        if state.crashes < self.crashes {
            out.push((Step("crash", 0), self.crash(*state)));
        }
    }

    /// Returns whether a lease is a lock that the connection holds.
    fn leases_are_locks(&self) -> bool {
        matches!(self.variant, Variant::CancelledLock | Variant::ConnectionLock)
    }

    fn tick(&self, mut state: State) -> State {
        for instance in &mut state.instances {
            instance.request = instance.request.map(|age| self.duration.min(age + 1));
            if let Some(lease) = instance.lease.as_mut().filter(|_| !self.leases_are_locks()) {
                lease.age += 1;
            }
            instance.lease = instance.lease.filter(|lease| lease.age < self.duration);
        }
        for writer in &mut state.writers {
            if let WriterStep::Waiting(age) = &mut writer.step {
                *age = self.duration.min(*age + 1);
            }
        }
        state
    }

    fn instance_steps(&self, state: &State, index: usize, out: &mut Successors) {
        let instance = state.instances[index];
        if instance.request.is_none() && state.backends[index] == Backend::Idle {
            let mut sent = *state;
            sent.instances[index].request = Some(0);
            sent.backends[index] = Backend::Requested;
            out.push((Step("send", index), sent));
        }
        if instance.request.is_some() {
            // the response is lost, or the time limit has passed; the backend may go on
            let mut lost = *state;
            lost.instances[index] = Instance { lease: instance.lease, ..Instance::default() };
            let tickets = &mut lost.tickets[index];
            tickets.is_lost |= std::mem::take(&mut tickets.is_requested);
            out.push((Step("give up", index), lost));
        }
        if let (Some(age), Some(versions)) = (instance.request, instance.response) {
            out.push((Step("receive", index), self.receive(*state, index, age, versions)));
        }
        if self.leases_are_locks() && instance.lease.is_some() {
            let mut returned = *state;
            returned.instances[index].lease = None;
            returned.backends[index] = Backend::Idle;
            out.push((Step("return lease", index), returned));
        }
    }

    fn receive(&self, mut state: State, index: usize, age: u8, versions: [u8; SUBJECTS]) -> State {
        let age = if self.variant == Variant::ClockAfterResponse || self.leases_are_locks() { 0 } else { age };
        let lease = Lease { versions, age };
        state.instances[index] =
            Instance { lease: Some(lease).filter(|lease| lease.age < self.duration), request: None, response: None };
        let tickets = &mut state.tickets[index];
        tickets.is_known |= std::mem::take(&mut tickets.is_requested);
        state
    }

    fn backend_steps(&self, state: &State, index: usize, out: &mut Successors) {
        let backend = state.backends[index];
        let mut moved = *state;
        let step = match backend {
            Backend::Idle => return,
            Backend::Requested if self.variant == Variant::OneStatement => {
                moved.backends[index] = Backend::Snapshot(state.visible);
                "take snapshot"
            }
            Backend::Requested if self.variant == Variant::TicketBeforeLock => {
                moved.backends[index] = Backend::EarlyTicket([false; WRITERS]);
                Self::draw_ticket(&mut moved, index)
            }
            Backend::Requested => self.try_lock(&mut moved, index, Backend::Locked(None)),
            Backend::Snapshot(versions) => self.try_lock(&mut moved, index, Backend::Locked(Some(versions))),
            Backend::EarlyTicket(_) => self.try_lock(&mut moved, index, Backend::Ticketed(None)),
            Backend::Locked(None) if self.variant == Variant::ReadBeforeTicket => {
                moved.backends[index] = Backend::Locked(Some(state.visible));
                "read versions"
            }
            Backend::Locked(snapshot) => {
                moved.backends[index] = Backend::Ticketed(snapshot);
                Self::draw_ticket(&mut moved, index)
            }
            Backend::Ticketed(snapshot) => {
                moved.backends[index] = Backend::Responded;
                let versions = snapshot.unwrap_or(state.visible);
                moved.instances[index].response = state.instances[index].request.map(|_| versions);
                "read versions"
            }
            Backend::Responded => {
                moved.backends[index] = Backend::Idle;
                "end read"
            }
        };
        if !(backend == Backend::Responded && self.leases_are_locks()) {
            out.push((Step(step, index), moved));
        }
        if self.variant != Variant::CancelledLock {
            let mut killed = *state;
            killed.backends[index] = Backend::Idle;
            out.push((Step("kill backend", index), killed));
        }
    }

    fn draw_ticket(state: &mut State, index: usize) -> &'static str {
        let is_awaited = state.instances[index].request.is_some();
        let tickets = &mut state.tickets[index];
        tickets.is_requested |= is_awaited;
        tickets.is_lost |= !is_awaited;
        "draw ticket"
    }

    /// Takes the commit locks in shared mode, or responds without a lease.
    fn try_lock(&self, state: &mut State, index: usize, locked: Backend) -> &'static str {
        let needs = |subject| subject == 0 || self.variant != Variant::CatalogueLockOnly;
        let is_locked =
            (0..self.writers).any(|writer| state.writers[writer].holds_lock() && needs(self.subjects[writer]));
        if is_locked {
            state.backends[index] = Backend::Idle;
            state.instances[index].request = None;
            // without a response, the instance does not learn the number
            let tickets = &mut state.tickets[index];
            tickets.is_lost |= std::mem::take(&mut tickets.is_requested);
            return "refuse";
        }
        state.backends[index] = locked;
        "lock shared"
    }

    /// PostgreSQL crashes and restarts. Responses that were sent may still arrive.
    fn crash(&self, mut state: State) -> State {
        use WriterStep::{Durable, Idle, Locked, Ready, Visible, Waiting, Writing};
        state.crashes += 1;
        state.backends = [Backend::Idle; INSTANCES];
        let is_kept = self.variant == Variant::SurrenderAcrossCrash;
        state.tickets = state
            .tickets
            .map(|tickets| Tickets { is_surrender_late: is_kept && tickets.is_surrendered, ..Tickets::default() });
        state.has_restarted = self.variant != Variant::RestartForgetsTickets;
        for index in 0..self.writers {
            match state.writers[index].step {
                Writing | Locked | Waiting(_) | Ready => state.writers[index].step = Idle,
                Durable => {
                    self.make_visible(&mut state, index);
                    state.writers[index].step = WriterStep::Committed;
                }
                Visible => state.writers[index].step = WriterStep::Committed,
                _ => {}
            }
        }
        state
    }
}
