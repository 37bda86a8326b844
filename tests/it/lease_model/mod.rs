//! A model of leases, and a search through all its states (docs/adr/0011).
//!
//! Two instances request leases, and two writers change the catalogue or the accounts. Messages are late or lost,
//! processes freeze, backends are killed, PostgreSQL crashes, and writers abort or prepare. An instance surrenders its
//! lease before a write that it serves.
//!
//! Invariant: a hit never shows a version older than one that was acknowledged before the request began. A hit takes no
//! step of its own: it uses a lease in the state in which the request begins. So a state is stale if an instance holds a
//! lease that shows an older version than the newest acknowledged one.

mod search;
mod state;
mod steps;
mod writers;

use self::{
    search::{Search, search},
    steps::{Model, Variant},
};
use crate::stress::record_result;

/// Two instances, and two writers of the catalogue.
const SMALL: Model = Model {
    variant: Variant::Protocol,
    instances: 2,
    writers: 2,
    subjects: [0, 0],
    surrenders: [None, None],
    duration: 1,
    crashes: 0,
};

/// One instance, the rest in full: crashes, both subjects, and one writer for which the instance surrenders its lease.
const ONE_INSTANCE: Model =
    Model { instances: 1, subjects: [0, 1], surrenders: [None, Some(0)], duration: 2, crashes: 1, ..SMALL };

/// Returns the models that the fast test searches: every part of the protocol is in one of them.
fn fast_models() -> Vec<Model> {
    vec![
        ONE_INSTANCE,
        Model { subjects: [0, 0], ..ONE_INSTANCE },
        Model { writers: 1, surrenders: [Some(0), None], ..SMALL },
    ]
}

#[test]
fn protocol_has_no_stale_hit_in_small_models() {
    for model in fast_models() {
        let Search { states, stale } = search(&model);
        assert!(stale.is_none(), "{model:?}: {}", stale.unwrap_or_default());
        println!("{states} states: {model:?}");
    }
}

/// Both subjects, and a writer through each instance or beside them.
#[test]
#[ignore = "takes minutes: run with `make stress`"]
fn protocol_has_no_stale_hit_in_full_model() {
    let mut total = 0;
    for subjects in [[0, 0], [0, 1]] {
        for surrenders in [[None, None], [Some(0), None], [Some(0), Some(1)]] {
            let model = Model { subjects, surrenders, duration: 2, crashes: 1, ..SMALL };
            let Search { states, stale } = search(&model);
            assert!(stale.is_none(), "{model:?}: {}", stale.unwrap_or_default());
            println!("{states} states: {model:?}");
            total += states;
        }
    }
    record_result("no hit under a lease is stale, in a model of every order of events", &format!("{total} states"));
}

#[test]
fn order_of_lock_ticket_and_read_under_the_lock_does_not_matter() {
    for variant in [Variant::TicketBeforeLock, Variant::ReadBeforeTicket] {
        let model = Model { variant, ..ONE_INSTANCE };
        let Search { states, stale } = search(&model);
        assert!(stale.is_none(), "{model:?}: {}", stale.unwrap_or_default());
        println!("{states} states: {model:?}");
    }
}

#[test]
fn wrong_variants_have_stale_hits() {
    for (variant, model) in [
        (Variant::CancelledLock, SMALL),
        (Variant::ConnectionLock, SMALL),
        (Variant::OneStatement, SMALL),
        (Variant::ClockAfterResponse, SMALL),
        (Variant::TicketTable, SMALL),
        (Variant::SurrenderKeepsLease, ONE_INSTANCE),
        (Variant::SurrenderOfOthers, Model { surrenders: [Some(0), None], ..SMALL }),
        (Variant::SurrenderAcrossCrash, ONE_INSTANCE),
        (Variant::RestartForgetsTickets, ONE_INSTANCE),
        (Variant::WaitBeforeLock, SMALL),
        (Variant::EarlyRelease, SMALL),
        (Variant::CatalogueLockOnly, ONE_INSTANCE),
    ] {
        let model = Model { variant, ..model };
        let Search { states, stale } = search(&model);
        let path = stale.unwrap_or_else(|| panic!("{model:?} has no stale hit in {states} states"));
        println!("{variant:?}: {states} states\n{path}\n");
    }
}
