//! The steps of writers.

use super::{
    state::{Backend, State, Tickets, Writer, WriterStep},
    steps::{Model, Step, Successors, Variant},
};

impl Model {
    pub(super) fn writer_steps(&self, state: &State, index: usize, out: &mut Successors) {
        use WriterStep::{Acknowledged, Committed, Durable, Idle, Locked, Prepared, Ready, Visible, Waiting, Writing};
        let mut push = |step, change: &dyn Fn(&mut State)| {
            let mut changed = *state;
            change(&mut changed);
            out.push((Step(step, index), changed));
        };
        let set = |step| move |state: &mut State| state.writers[index].step = step;
        match state.writers[index].step {
            Idle => push("begin", &|state| self.begin(state, index)),
            Writing => {
                if self.must_wait_first(state, index) {
                    push("wait", &set(Waiting(0)));
                } else if self.can_lock(state, index) {
                    push("lock", &set(Locked));
                }
                if self.variant == Variant::CancelledLock {
                    push("cancel reads", &|state| state.backends = [Backend::Idle; _]);
                }
            }
            Locked if self.must_wait(state, index) => push("wait", &|state| {
                state.writers[index].step = Waiting(0);
                for backend in &mut state.backends {
                    if let Backend::EarlyTicket(waits) = backend {
                        waits[index] = true;
                    }
                }
            }),
            Locked => push("find no tickets", &|state| Self::finish_wait(state, index)),
            Waiting(age) if age < self.duration => {}
            Waiting(_) if self.variant == Variant::WaitBeforeLock => push("waited", &|state| {
                state.writers[index] = Writer { step: Writing, has_waited: true, ..state.writers[index] };
            }),
            Waiting(_) => push("waited", &|state| Self::finish_wait(state, index)),
            Ready => {
                push("prepare", &set(Prepared));
                push("commit", &set(Durable));
            }
            Prepared => push("commit prepared", &set(Durable)),
            Durable if self.variant == Variant::EarlyRelease => push("release", &set(Committed)),
            Durable => push("become visible", &|state| self.make_visible(state, index)),
            Visible => push("release", &set(Committed)),
            Committed if state.writers[index].version == 0 => push("become visible", &|state| {
                self.make_visible(state, index);
                state.writers[index].step = Committed;
            }),
            Committed => push("acknowledge", &|state| self.acknowledge(state, index)),
            Acknowledged => {}
        }
        if matches!(state.writers[index].step, Writing | Locked | Waiting(_) | Ready | Prepared) {
            push("abort", &|state| state.writers[index] = Writer::default());
        }
    }

    /// Begins a transaction. The instance that sends it surrenders its lease first.
    fn begin(&self, state: &mut State, index: usize) {
        if let Some(instance) = self.surrenders[index] {
            if self.variant != Variant::SurrenderKeepsLease {
                state.instances[instance].lease = None;
            }
            let tickets = &mut state.tickets[instance];
            tickets.is_surrendered |= std::mem::take(&mut tickets.is_known);
        }
        let saw_tickets = self.variant == Variant::TicketTable && Self::has_open_tickets(state);
        state.writers[index] = Writer { step: WriterStep::Writing, saw_tickets, ..Writer::default() };
    }

    /// The message of an instance that it has surrendered its leases arrives at PostgreSQL. It counts if no other ticket
    /// was drawn since the last one that has expired.
    pub(super) fn surrender_steps(&self, state: &State, index: usize, out: &mut Successors) {
        let tickets = state.tickets[index];
        let are_all = (0..self.instances).all(|other| {
            !state.tickets[other].are_others_open() && (other == index || !state.tickets[other].are_open())
        });
        let counts = are_all || self.variant == Variant::SurrenderOfOthers;
        if (tickets.is_surrendered && counts) || tickets.is_surrender_late {
            let mut surrendered = *state;
            surrendered.tickets = state.tickets.map(Tickets::after_expiry);
            surrendered.tickets[index].is_surrender_late = false;
            out.push((Step("surrender", index), surrendered));
        }
    }

    /// Returns whether the exclusive lock of the writer's subject is free.
    fn can_lock(&self, state: &State, index: usize) -> bool {
        let subject = self.subjects[index];
        let is_shared = state.backends.iter().any(|backend| backend.holds_locks());
        let is_read = is_shared && (subject == 0 || self.variant != Variant::CatalogueLockOnly);
        let is_written =
            (0..self.writers).any(|other| state.writers[other].holds_lock() && self.subjects[other] == subject);
        !is_read && !is_written
    }

    fn has_open_tickets(state: &State) -> bool {
        state.has_restarted || state.tickets.iter().any(|tickets| tickets.are_open())
    }

    fn must_wait(&self, state: &State, index: usize) -> bool {
        match self.variant {
            Variant::CancelledLock | Variant::ConnectionLock | Variant::WaitBeforeLock => false,
            Variant::TicketTable => state.writers[index].saw_tickets,
            _ => Self::has_open_tickets(state),
        }
    }

    fn must_wait_first(&self, state: &State, index: usize) -> bool {
        self.variant == Variant::WaitBeforeLock && !state.writers[index].has_waited && Self::has_open_tickets(state)
    }

    /// No ticket is left to wait for, except for those that were drawn after the wait began.
    fn finish_wait(state: &mut State, index: usize) {
        for (tickets, backend) in state.tickets.iter_mut().zip(state.backends) {
            let open = match backend {
                Backend::EarlyTicket(waits) if !waits[index] => {
                    Tickets { is_requested: tickets.is_requested, is_lost: tickets.is_lost, ..Tickets::default() }
                }
                _ => Tickets::default(),
            };
            let after = tickets.after_expiry();
            *tickets = Tickets { is_requested: open.is_requested, is_lost: open.is_lost, ..after };
        }
        state.has_restarted = false;
        state.writers[index].step = WriterStep::Ready;
    }

    pub(super) fn make_visible(&self, state: &mut State, index: usize) {
        let subject = self.subjects[index];
        state.visible[subject] += 1;
        state.writers[index] =
            Writer { step: WriterStep::Visible, version: state.visible[subject], ..Writer::default() };
    }

    fn acknowledge(&self, state: &mut State, index: usize) {
        let (subject, version) = (self.subjects[index], state.writers[index].version);
        state.acknowledged[subject] = state.acknowledged[subject].max(version);
        state.writers[index] = Writer { step: WriterStep::Acknowledged, ..Writer::default() };
    }
}
