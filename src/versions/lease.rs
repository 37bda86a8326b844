//! A lease on a version read: for a short time, requests use it without asking the database again. Writers wait until no
//! lease is left that shows an older version (docs/adr/0011).
//!
//! A lease costs one statement and makes a writer wait, so it is requested only if it saves reads and if nothing has been
//! written for a while: of a series of writes, one waits.

use std::{sync::Mutex, time::Duration};

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::{Mutex as AsyncMutex, MutexGuard};

use super::{
    tickets::{Ticket, TicketRange},
    traffic::Traffic,
    version::Versions,
};
use crate::sync::lock;

/// The versions must not have changed for this many durations of a lease. No lease is requested for as long after one
/// that was refused.
const QUIET_DURATIONS: u32 = 10;
/// The pause after a statement that PostgreSQL rejects.
const FAILURE_PAUSE: Duration = Duration::from_secs(10);

/// Returns the time since the machine started. It counts while the machine sleeps, and nobody sets it.
pub(super) fn boot_time() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}

/// The lease that an instance holds, and when it requests the next one. The caller passes the time as [`boot_time`]
/// returns it.
#[derive(Debug)]
pub(super) struct Lease {
    /// About the duration of a lease; the database decides.
    duration: Duration,
    /// Locked during a leased read.
    request: AsyncMutex<()>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    held: Option<Held>,
    /// The tickets that were drawn since the last surrender, the newest ones whose numbers follow each other.
    tickets: Option<TicketRange>,
    /// No lease is requested before.
    not_before: Duration,
    traffic: Traffic,
}

#[derive(Debug)]
struct Held {
    versions: Versions,
    /// When to renew it; `None` once a request has started the renewal.
    renew_at: Option<Duration>,
    expires_at: Duration,
}

/// What a request uses while a lease is held.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Hit {
    pub(super) versions: Versions,
    /// Whether the caller has to start a read, which renews the lease.
    pub(super) is_renewal_due: bool,
}

/// The answer of the database to the request for a lease.
#[derive(Debug, Clone, Copy)]
pub(super) enum Granted {
    /// The versions may be used for this time since before the request was sent.
    For(Duration, Ticket),
    /// There are no leases, or something was written a moment ago.
    Unleased,
    /// A writer holds a commit lock.
    Locked,
}

impl Lease {
    pub(super) fn new(duration: Duration) -> Self {
        Self { duration, request: AsyncMutex::default(), state: Mutex::default() }
    }

    /// Returns how old the versions must be for a lease.
    pub(super) fn min_age(&self) -> Duration {
        self.duration * QUIET_DURATIONS
    }

    /// Returns what a request uses that arrives now, or `None` if it has to wait for a read.
    pub(super) fn hit(&self, now: Duration) -> Option<Hit> {
        let mut state = lock(&self.state);
        if let Some(held) = state.held.as_mut().filter(|held| now < held.expires_at) {
            let is_renewal_due = held.renew_at.take_if(|renew_at| now >= *renew_at).is_some();
            return Some(Hit { versions: held.versions, is_renewal_due });
        }
        state.held = None;
        state.traffic.record(now, self.duration);
        None
    }

    /// Returns a guard if a read that begins now should request a lease. The caller drops it after the read. Other reads
    /// should request none meanwhile, and for half of the duration.
    pub(super) fn begin_request(&self, now: Duration) -> Option<MutexGuard<'_, ()>> {
        let request = self.request.try_lock().ok()?;
        let mut state = lock(&self.state);
        let is_renewal = state.held.as_ref().is_some_and(|held| held.renew_at.is_none() && now < held.expires_at);
        if now < state.not_before || !(is_renewal || state.traffic.is_steady()) {
            return None;
        }
        state.not_before = now + self.duration / 2;
        Some(request)
    }

    /// Takes note of the response to a leased read that began at `began`.
    pub(super) fn finish(&self, versions: Versions, began: Duration, granted: Granted, now: Duration) {
        let mut state = lock(&self.state);
        let duration = if let Granted::For(duration, ticket) = granted {
            state.tickets = Some(TicketRange::with(state.tickets, ticket));
            duration
        } else {
            Duration::ZERO
        };
        // the clocks of PostgreSQL and of this machine may differ in speed by a tenth
        let expires_at = began + duration * 9 / 10;
        if now >= expires_at {
            state.not_before = now + self.min_age();
        } else if state.held.as_ref().is_none_or(|held| held.expires_at < expires_at) {
            state.held = Some(Held { versions, renew_at: Some(began + duration / 2), expires_at });
        }
    }

    /// Ends the use of all leases, and returns their tickets, if there are any. No lease is requested for a while, in which
    /// the caller writes.
    pub(super) async fn surrender(&self, now: Duration) -> Option<TicketRange> {
        {
            let is_requested = self.request.try_lock().is_err();
            let mut state = lock(&self.state);
            if state.tickets.is_none() && !is_requested {
                return None;
            }
            state.not_before = state.not_before.max(now + self.min_age());
        }
        // a read under way may draw a ticket; the writer would not wait for longer
        let _request = tokio::time::timeout(self.duration, self.request.lock()).await;
        let mut state = lock(&self.state);
        state.held = None;
        state.tickets.take()
    }

    /// Forgets the tickets: the database may be another one.
    pub(super) fn forget_tickets(&self) {
        lock(&self.state).tickets = None;
    }

    /// Takes note of a leased read that PostgreSQL has rejected.
    pub(super) fn fail(&self, now: Duration) {
        lock(&self.state).not_before = now + FAILURE_PAUSE;
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::versions::Version;

    const DURATION: Duration = Duration::from_millis(100);

    /// The first ticket of [`granted`] is 1.
    fn for_duration(number: i64) -> Granted {
        Granted::For(DURATION, Ticket { number, epoch: Uuid::nil() })
    }

    fn at(millis: u64) -> Duration {
        Duration::from_secs(1_000) + Duration::from_millis(millis)
    }

    fn versions(number: i64) -> Versions {
        let version = Version { number, token: Uuid::nil() };
        Versions { catalogue: version, accounts: version }
    }

    fn is_due(lease: &Lease, now: Duration) -> bool {
        lease.begin_request(now).is_some()
    }

    /// Returns a lease that has been granted at 1,000 ms.
    fn granted() -> Lease {
        let lease = Lease::new(DURATION);
        for millis in [990, 995] {
            assert_eq!(lease.hit(at(millis)), None);
        }
        assert!(is_due(&lease, at(1_000)));
        lease.finish(versions(1), at(1_000), for_duration(1), at(1_010));
        lease
    }

    #[test]
    fn lease_ends_before_the_writer_stops_waiting_and_is_renewed_once_at_half_time() {
        let lease = granted();
        let hit = |is_renewal_due| Some(Hit { versions: versions(1), is_renewal_due });
        assert_eq!(lease.hit(at(1_049)), hit(false));
        assert!(!is_due(&lease, at(1_049)), "not yet");
        assert_eq!(lease.hit(at(1_050)), hit(true));
        assert_eq!(lease.hit(at(1_050)), hit(false), "one request starts the renewal");
        assert!(is_due(&lease, at(1_051)));
        assert!(!is_due(&lease, at(1_052)), "the other reader requests none");
        assert_eq!(lease.hit(at(1_089)), hit(false));
        assert_eq!(lease.hit(at(1_090)), None);
        lease.finish(versions(1), at(1_051), for_duration(2), at(1_095));
        assert_eq!(lease.hit(at(1_140)), hit(true));
        assert_eq!(lease.hit(at(1_141)), None);
    }

    #[test]
    fn response_that_arrives_late_grants_nothing() {
        let lease = granted();
        assert_eq!(lease.hit(at(1_060)).map(|hit| hit.is_renewal_due), Some(true));
        assert!(is_due(&lease, at(1_060)));
        lease.finish(versions(1), at(1_060), for_duration(2), at(1_150));
        assert_eq!(lease.hit(at(1_150)), None);
    }

    #[test]
    fn earlier_read_does_not_replace_a_later_one() {
        let lease = granted();
        lease.finish(versions(2), at(1_040), for_duration(2), at(1_045));
        lease.finish(versions(1), at(1_020), for_duration(2), at(1_046));
        assert_eq!(lease.hit(at(1_047)).map(|hit| hit.versions), Some(versions(2)));
    }

    #[test]
    fn no_lease_is_requested_without_traffic_or_soon_after_a_refusal() {
        let lease = Lease::new(DURATION);
        let request_twice = |millis| [millis, millis + 1].map(|millis| assert_eq!(lease.hit(at(millis)), None));
        assert!(!is_due(&lease, at(0)));
        request_twice(0);
        assert!(is_due(&lease, at(1)));
        lease.finish(versions(1), at(1), Granted::Locked, at(2));
        request_twice(1_000);
        assert!(!is_due(&lease, at(1_001)));
        assert!(is_due(&lease, at(1_002)));
        lease.finish(versions(1), at(1_002), Granted::Unleased, at(1_003));
        request_twice(2_001);
        assert!(!is_due(&lease, at(2_002)));
        assert!(is_due(&lease, at(2_003)));
        lease.fail(at(2_004));
        request_twice(12_002);
        assert!(!is_due(&lease, at(12_003)));
        assert!(is_due(&lease, at(12_004)));
        assert_eq!(lease.hit(at(15_000)), None);
        assert!(!is_due(&lease, at(15_000)), "one request");
    }

    #[tokio::test]
    async fn surrendered_lease_is_used_no_more_and_no_other_one_is_requested_soon() {
        let lease = granted();
        lease.finish(versions(1), at(1_040), for_duration(2), at(1_045));
        let tickets = TicketRange { first: 1, last: 2, epoch: Uuid::nil() };
        assert_eq!(lease.surrender(at(1_050)).await, Some(tickets));
        assert_eq!(lease.surrender(at(1_050)).await, None, "each ticket is surrendered once");
        for millis in [1_050, 1_051, 2_048, 2_049] {
            assert_eq!(lease.hit(at(millis)), None);
        }
        assert!(!is_due(&lease, at(2_049)));
        // the lease of a read under way is surrendered as well
        let request = lease.begin_request(at(2_090)).unwrap();
        let (surrendered, ()) = tokio::join!(lease.surrender(at(2_091)), async {
            lease.finish(versions(1), at(2_090), for_duration(3), at(2_091));
            drop(request);
        });
        assert_eq!(surrendered, Some(TicketRange { first: 3, last: 3, ..tickets }));
        assert_eq!(lease.hit(at(2_091)), None);
        lease.finish(versions(1), at(2_090), for_duration(4), at(2_092));
        lease.forget_tickets();
        assert_eq!(lease.surrender(at(2_093)).await, None);
    }

    #[test]
    fn boot_time_increases() {
        let before = boot_time();
        assert!(before > Duration::ZERO && boot_time() >= before);
    }
}
