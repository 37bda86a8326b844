//! The tickets of the leases that an instance was granted.
//!
//! An instance that surrenders its leases names their tickets. PostgreSQL compares them with those that it has drawn since
//! the last one that expired: if they are all of them, no write has to wait. So an instance counts only tickets that
//! follow each other. A ticket of another instance, or of a response that was lost, begins another range.

use uuid::Uuid;

/// A ticket. PostgreSQL may draw the same number again in another epoch, after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    pub(super) number: i64,
    pub(super) epoch: Uuid,
}

/// Tickets of one epoch with consecutive numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TicketRange {
    pub(super) first: i64,
    pub(super) last: i64,
    pub(super) epoch: Uuid,
}

impl TicketRange {
    /// Returns the range that contains the newest ticket: `range` with it, or a new one.
    pub(super) fn with(range: Option<Self>, Ticket { number, epoch }: Ticket) -> Self {
        match range {
            Some(range) if range.epoch == epoch && range.last.checked_add(1) == Some(number) => {
                Self { last: number, ..range }
            }
            // the responses to two reads arrived in the other order
            Some(range) if range.epoch == epoch && number.checked_add(1) == Some(range.first) => {
                Self { first: number, ..range }
            }
            _ => Self { first: number, last: number, epoch },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: i64, last: i64, epoch: Uuid) -> TicketRange {
        TicketRange { first, last, epoch }
    }

    #[test]
    fn range_ends_at_a_gap_and_at_another_epoch() {
        let (epoch, other) = (Uuid::nil(), Uuid::max());
        let with = |before, number, epoch| TicketRange::with(before, Ticket { number, epoch });
        assert_eq!(with(None, 7, epoch), range(7, 7, epoch));
        assert_eq!(with(Some(range(7, 8, epoch)), 9, epoch), range(7, 9, epoch));
        assert_eq!(with(Some(range(7, 8, epoch)), 6, epoch), range(6, 8, epoch));
        assert_eq!(with(Some(range(7, 8, epoch)), 10, epoch), range(10, 10, epoch));
        assert_eq!(with(Some(range(7, 8, epoch)), 5, epoch), range(5, 5, epoch));
        assert_eq!(with(Some(range(7, 8, epoch)), 9, other), range(9, 9, other));
    }
}
