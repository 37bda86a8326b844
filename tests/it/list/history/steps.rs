//! The statements of random histories of the catalogue.

use super::names::{delete_category, delete_tag, link, name, relink, rename, swap_names, unlink};
use crate::stress::Rng;

/// The number of products in the beginning: more than the log names in one transaction.
pub const PRODUCTS: u64 = 1_500;
/// Categories and tags have ids from 1 to this number.
pub const NAMES: u64 = 8;
/// The log names at most this number of ids in one transaction.
pub const MAX_LOGGED_IDS: u64 = 1_000;

/// Creates the categories, tags and products of a history.
pub fn seed_sql() -> String {
    format!(
        "insert into categories (name) select 'Category ' || i from generate_series(1, {NAMES}) i;
         insert into tags (name) select 'Tag ' || i from generate_series(1, {NAMES}) i;
         {}",
        products_sql()
    )
}

fn products_sql() -> String {
    format!(
        "insert into products (id, category_id, name, description, price)
         select i, 1 + i % {NAMES}, 'Product ' || i, repeat(md5(i::text) || ' ', 8), i from generate_series(1, {PRODUCTS}) i;
         insert into product_tags select i, 1 + (i * 5) % {NAMES} from generate_series(1, {PRODUCTS}, 2) i"
    )
}

pub fn product(rng: &mut Rng) -> i64 {
    let id = i64::try_from(1 + rng.below(PRODUCTS + 100)).unwrap();
    match rng.below(12) {
        0 => -id,
        1 => id << 40,
        _ => id,
    }
}

pub fn update(rng: &mut Rng) -> String {
    let number = rng.below(1_000);
    format!("update products set name = 'Changed {number}', price = {number} where id = {}", product(rng))
}

fn resize(rng: &mut Rng) -> String {
    let words = if rng.below(5) == 0 { rng.below(25_000) } else { rng.below(300) };
    format!("update products set description = repeat('{:09} ', {words}) where id = {}", rng.below(1000), product(rng))
}

fn insert(rng: &mut Rng) -> String {
    format!(
        "insert into products (id, category_id, name, price) values ({}, {}, 'New', 1) on conflict (id) do nothing",
        product(rng),
        name(rng)
    )
}

pub fn delete(rng: &mut Rng) -> String {
    let first = product(rng);
    format!("delete from products where id between {first} and {}", first + i64::try_from(rng.index(12)).unwrap())
}

fn replace(rng: &mut Rng) -> String {
    let id = product(rng);
    format!(
        "begin;
         delete from products where id = {id};
         insert into products (id, category_id, name, price) values ({id}, 1, 'Replaced', {});
         commit",
        rng.below(9)
    )
}

fn change_category(rng: &mut Rng) -> String {
    let first = product(rng);
    format!("update products set category_id = {} where id between {first} and {}", name(rng), first + 7)
}

fn change_id(rng: &mut Rng) -> String {
    let (from, to) = (product(rng), product(rng));
    format!(
        "update products set id = {to}
          where id = {from}
            and not exists (select from products where id = {to})
            and not exists (select from product_tags where product_id = {from})"
    )
}

fn truncate(rng: &mut Rng) -> String {
    match rng.below(2) {
        0 => format!(
            "truncate product_tags; insert into product_tags select id, 1 + abs(id) % {NAMES} from products where id % 2 = 0"
        ),
        _ => format!("truncate products, product_tags; {}", products_sql()),
    }
}

fn roll_back_truncate(_: &mut Rng) -> String {
    "begin; truncate products, product_tags; rollback".to_owned()
}

fn update_first(count: u64) -> String {
    format!("update products set price = price + 1 where id in (select id from products order by id limit {count})")
}

fn update_many(rng: &mut Rng) -> String {
    update_first(*rng.pick(&[500, 999, MAX_LOGGED_IDS]))
}

fn update_too_many(rng: &mut Rng) -> String {
    update_first(*rng.pick(&[MAX_LOGGED_IDS + 1, 1_300]))
}

fn update_in_steps(first: u64, second: u64) -> String {
    format!(
        "begin;
         update products set price = price + 1 where id between 1 and {first};
         update products set price = price + 1 where id between 801 and 800 + {second};
         commit"
    )
}

fn update_many_in_steps(rng: &mut Rng) -> String {
    let first = 300 + rng.below(400);
    update_in_steps(first, MAX_LOGGED_IDS - first - rng.below(2) * rng.below(100))
}

fn update_too_many_in_steps(rng: &mut Rng) -> String {
    let first = 401 + rng.below(300);
    update_in_steps(first, MAX_LOGGED_IDS + 1 - first + rng.below(2) * rng.below(100))
}

fn change_nothing(_: &mut Rng) -> String {
    "update products set name = name, price = price; update tags set name = name".to_owned()
}

fn roll_back_to_savepoint(rng: &mut Rng) -> String {
    format!(
        "begin; {}; savepoint before; {}; {}; rollback to savepoint before; {}; commit",
        update(rng),
        delete(rng),
        rename(rng),
        link(rng)
    )
}

/// Numbers the version before the last change, or draws a number and throws it away.
fn log_immediately(rng: &mut Rng) -> String {
    if rng.below(2) == 0 {
        return format!(
            "begin; savepoint before; {}; set constraints all immediate; {}; rollback to savepoint before; {}; commit",
            update(rng),
            link(rng),
            update(rng)
        );
    }
    format!(
        "begin; {}; set constraints all immediate; {}; savepoint before; {}; {}; rollback to savepoint before; {};
         set constraints all deferred; {}; commit",
        update(rng),
        link(rng),
        delete(rng),
        rename(rng),
        resize(rng),
        update(rng)
    )
}

fn roll_back(rng: &mut Rng) -> String {
    format!("begin; {}; delete from products; rollback", update(rng))
}

/// Changes a product, and deletes all versions but the newest after another change: an instance that has seen neither
/// cannot learn of the first one.
fn prune(rng: &mut Rng) -> String {
    format!(
        "begin; {}; commit; begin; {}; commit;
         delete from catalogue_versions where version < (select max(version) from catalogue_versions);
         delete from catalogue_changes c
          where not exists (select from catalogue_versions v where v.transaction = c.transaction)",
        update(rng),
        update(rng)
    )
}

/// Returns statements.
type Change = fn(&mut Rng) -> String;

/// Changes that the log knows, and how often they are chosen.
const LOGGED: [(u64, Change); 21] = [
    (20, update),
    (8, resize),
    (10, insert),
    (8, delete),
    (4, replace),
    (6, change_category),
    (6, change_id),
    (6, link),
    (4, unlink),
    (4, relink),
    (8, rename),
    (3, swap_names),
    (8, delete_tag),
    (1, delete_category),
    (1, roll_back_truncate),
    (3, update_many),
    (2, update_many_in_steps),
    (3, change_nothing),
    (4, roll_back_to_savepoint),
    (4, log_immediately),
    (2, roll_back),
];

/// Changes after which the log does not reach back to an earlier version.
const UNLOGGED: [(u64, Change); 4] = [(8, prune), (1, truncate), (2, update_too_many), (1, update_too_many_in_steps)];

/// Returns a change that the log knows.
pub fn logged_change(rng: &mut Rng) -> String {
    choose(rng, &LOGGED)
}

/// Returns a change after which a client with an earlier state may have to load the list again.
pub fn unlogged_change(rng: &mut Rng) -> String {
    choose(rng, &UNLOGGED)
}

/// Returns a small change, for writers that run at the same time.
pub fn small_change(rng: &mut Rng) -> String {
    choose(rng, &LOGGED[..3])
}

fn choose(rng: &mut Rng, choices: &[(u64, Change)]) -> String {
    let mut number = rng.below(choices.iter().map(|(weight, _)| weight).sum());
    for (weight, sql) in choices {
        if number < *weight {
            return sql(rng);
        }
        number -= weight;
    }
    unreachable!("the number is less than the sum of the weights")
}
