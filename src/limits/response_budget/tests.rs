//! Tests of the response budget.

use super::*;

fn body(bytes: usize) -> Bytes {
    vec![b' '; bytes].into()
}

/// A user whose network no share counts.
fn user(id: i64) -> Client {
    Client::new(id, None)
}

#[test]
fn user_share_is_limited_and_shared_bytes_count_once() {
    let budget = ResponseBudget::new(1_333_333);
    let [first, second, third, small] = [300_000, 300_000, 500_000, UNCOUNTED_BYTES].map(body);
    let held = [1, 1, 2, 3].map(|id| budget.reserve(user(id), &first));
    assert!(held.iter().all(|bytes| bytes.as_ref().is_some_and(|bytes| *bytes == first)));
    assert!(budget.reserve(user(1), &second).is_none(), "more than the user's share");
    assert!(budget.reserve(user(1), &small).is_some());
    let of_another = budget.reserve(user(4), &second);
    assert!(of_another.is_some());
    assert!(budget.reserve(user(5), &third).is_none(), "more than the total");
    drop(of_another);
    assert!(budget.reserve(user(5), &third).is_some());
    drop(held);
    let slice = budget.reserve(user(1), &third).map(|mut bytes| bytes.split_off(100));
    assert!(slice.is_some() && budget.reserve(user(1), &second).is_none(), "a slice holds the whole reservation");
    drop(slice);
    assert!(budget.reserve(user(1), &body(2_000_000)).is_some(), "one body of any size");
    assert_empty(&budget);
}

#[test]
fn accounts_of_one_network_leave_half_to_others() {
    let budget = ResponseBudget::new(1_333_333);
    let at = |address: &str, id| Client::new(id, Some(address.parse().unwrap()));
    let bodies: Vec<_> = (0..30).map(|_| body(40_000)).collect();
    let reserve = |id: usize| budget.reserve(at("192.0.2.1", i64::try_from(id).unwrap()), &bodies[id]);
    let held: Vec<_> = (0..30).filter_map(reserve).collect();
    assert_eq!((held.len(), budget.bytes()), (12, 480_000));
    let others: Vec<_> = bodies[12..24].iter().map_while(|body| budget.reserve(at("192.0.2.2", 99), body)).collect();
    assert_eq!(others.len(), 12, "another network has the other half");
    // an account at two addresses has one share
    assert!(budget.reserve(at("192.0.2.3", 99), &bodies[29]).is_none());
    drop((held, others));
    assert_empty(&budget);
}

#[test]
fn small_bodies_have_a_part_without_shares_and_then_count_like_others() {
    let budget = ResponseBudget::new(400_000);
    let bodies: Vec<_> = (0..20).map(|_| body(20_000)).collect();
    let held: Vec<_> = bodies.iter().map_while(|body| budget.reserve(user(1), body)).collect();
    assert_eq!(held.len(), 5 + 7, "a quarter of the budget, then half of the rest");
    assert!(budget.reserve(user(2), &bodies[19]).is_some());
    drop(held);
    assert_empty(&budget);
}

#[test]
fn parts_that_are_in_flight_already_cost_nothing() {
    let budget = ResponseBudget::new(1_333_333);
    let parts: Vec<_> = (0..12).map(|_| body(100_000)).collect();
    let list = |range: std::ops::Range<usize>| parts[range].iter().collect::<Vec<_>>();
    let first = budget.reserve_parts(user(1), &list(0..4)).unwrap();
    assert_eq!(budget.bytes(), 400_000);
    // the next version of the list shares all parts but one
    let second = budget.reserve_parts(user(1), &list(1..5)).unwrap();
    assert_eq!(budget.bytes(), 500_000);
    assert!(budget.reserve_parts(user(1), &list(2..6)).is_none(), "more than the user's share");
    let of_another = budget.reserve_parts(user(2), &list(0..5)).unwrap();
    assert_eq!(budget.bytes(), 500_000);
    assert!(budget.reserve_parts(user(3), &list(0..11)).is_none(), "more than the total");
    // each part is released when its last reader has read it
    let mut first = first.into_iter();
    drop((first.next(), of_another));
    assert_eq!(budget.bytes(), 400_000);
    assert!(budget.reserve_parts(user(1), &list(2..6)).is_some());
    drop((first, second));
    assert_empty(&budget);
}

fn assert_empty(budget: &ResponseBudget) {
    assert_eq!(budget.bytes(), 0);
    let usage = lock(&budget.usage);
    assert_eq!((usage.bytes, usage.counts.len(), usage.reservations.len()), (0, 0, 0), "everything is released");
    assert!(usage.users.is_empty() && usage.networks.is_empty());
}
