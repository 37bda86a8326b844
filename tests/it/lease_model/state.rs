//! The state of the modelled system: instances, their connections to PostgreSQL, writers, and the numbers in the
//! database. Time is counted in ticks.

/// The subjects of versions, in the order of their indexes: the catalogue and the accounts.
pub const SUBJECTS: usize = 2;
pub const INSTANCES: usize = 2;
pub const WRITERS: usize = 2;

/// Versions by subject.
pub type Versions = [u8; SUBJECTS];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lease {
    pub versions: Versions,
    /// Ticks since the time from which the lease counts.
    pub age: u8,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Instance {
    /// What hits are served from.
    pub lease: Option<Lease>,
    /// Ticks since the leased read was sent that the instance waits for.
    pub request: Option<u8>,
    /// The response to `request`, on its way.
    pub response: Option<Versions>,
}

/// The connection of an instance for leased reads, on the side of PostgreSQL.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Backend {
    #[default]
    Idle,
    /// The statement has been sent.
    Requested,
    /// The statement runs with a snapshot that shows these versions. Only a wrong variant has this step.
    Snapshot(Versions),
    /// Holds the commit locks in shared mode, with the snapshot that was taken before.
    Locked(Option<Versions>),
    /// Has drawn a ticket, and holds no lock. Only a variant has this step. By writer: its wait began after the ticket was
    /// drawn.
    EarlyTicket([bool; WRITERS]),
    /// Has drawn a ticket.
    Ticketed(Option<Versions>),
    /// Has sent the response, and holds the locks still.
    Responded,
}

impl Backend {
    pub fn holds_locks(self) -> bool {
        matches!(self, Self::Locked(_) | Self::Ticketed(_) | Self::Responded)
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum WriterStep {
    #[default]
    Idle,
    /// Has changed rows and taken a snapshot.
    Writing,
    /// Holds the commit lock.
    Locked,
    /// Waits for this number of ticks.
    Waiting(u8),
    /// No lease is left that shows an older version.
    Ready,
    /// Prepared to commit: nothing but its own end releases the lock, not even a crash.
    Prepared,
    /// The commit is durable, but not visible.
    Durable,
    /// The commit is visible, and the lock is held still.
    Visible,
    /// The commit is visible and the lock is released.
    Committed,
    /// The client knows of the commit.
    Acknowledged,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Writer {
    pub step: WriterStep,
    /// Whether its snapshot shows tickets. Only a wrong variant uses it.
    pub saw_tickets: bool,
    /// Tickets had to be waited for when it began to wait. Only a wrong variant, which waits before it locks, uses it.
    pub has_waited: bool,
    /// The version of its commit, once it is visible.
    pub version: u8,
}

impl Writer {
    pub fn holds_lock(self) -> bool {
        use WriterStep::{Durable, Locked, Prepared, Ready, Visible, Waiting};
        matches!(self.step, Locked | Waiting(_) | Ready | Prepared | Durable | Visible)
    }
}

/// The tickets that one instance has drawn since the last time at which none was left to wait for.
#[expect(clippy::struct_excessive_bools, reason = "tickets of each kind may be open at a time")]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Tickets {
    /// The instance has received the number and may use the lease.
    pub is_known: bool,
    /// The response is on its way.
    pub is_requested: bool,
    /// The instance never learns the number.
    pub is_lost: bool,
    /// The instance has surrendered the lease. The message that says so is on its way to PostgreSQL, or lost.
    pub is_surrendered: bool,
    /// Such a message from before a crash is on its way. Only a wrong variant has it.
    pub is_surrender_late: bool,
}

impl Tickets {
    /// Returns whether a writer has to wait because of these tickets.
    pub fn are_open(self) -> bool {
        self.is_surrendered || self.are_others_open()
    }

    /// Returns the tickets after all leases have expired.
    pub fn after_expiry(self) -> Self {
        Self { is_surrender_late: self.is_surrender_late, ..Self::default() }
    }

    /// Returns whether a writer has to wait because of other tickets than the surrendered ones.
    pub fn are_others_open(self) -> bool {
        self.is_known || self.is_requested || self.is_lost
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct State {
    pub instances: [Instance; INSTANCES],
    pub backends: [Backend; INSTANCES],
    pub writers: [Writer; WRITERS],
    /// The versions of the commits that are visible.
    pub visible: Versions,
    /// The newest versions whose commit a client knows of.
    pub acknowledged: Versions,
    pub tickets: [Tickets; INSTANCES],
    /// PostgreSQL does not know which tickets were drawn before it started.
    pub has_restarted: bool,
    pub crashes: u8,
}

impl State {
    /// Returns whether a hit that begins now would show a version older than one that was acknowledged before.
    pub fn is_stale(&self) -> bool {
        let leases = self.instances.iter().filter_map(|instance| instance.lease);
        leases
            .into_iter()
            .any(|lease| (0..SUBJECTS).any(|subject| lease.versions[subject] < self.acknowledged[subject]))
    }
}
