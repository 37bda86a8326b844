//! The steps of random histories of the catalogue.

use crate::stress::Rng;

/// What one connection of two does in a step.
pub enum Action {
    /// Statements on the first (0) or second (1) connection.
    Sql(usize, String),
    /// Rows for `copy products (id, category_id, name, price) from stdin`.
    Copy(String),
}

/// The number of products in the beginning: more than the log names in one transaction.
pub const PRODUCTS: u64 = 1_500;
/// Categories and tags have ids from 1 to this number.
const NAMES: u64 = 8;

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

fn product(rng: &mut Rng) -> i64 {
    let id = i64::try_from(1 + rng.below(PRODUCTS + 100)).unwrap();
    match rng.below(12) {
        0 => -id,
        1 => id << 40,
        _ => id,
    }
}

fn name(rng: &mut Rng) -> u64 {
    1 + rng.below(NAMES)
}

fn update(rng: &mut Rng) -> String {
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

fn delete(rng: &mut Rng) -> String {
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

fn link(rng: &mut Rng) -> String {
    let first = product(rng);
    format!(
        "insert into product_tags select id, {} from products where id between {first} and {}
             on conflict do nothing",
        name(rng),
        first + 9
    )
}

fn unlink(rng: &mut Rng) -> String {
    let first = product(rng);
    format!("delete from product_tags where tag_id = {} and product_id between {first} and {}", name(rng), first + 50)
}

fn relink(rng: &mut Rng) -> String {
    let (first, to) = (product(rng), name(rng));
    format!(
        "update product_tags set tag_id = {to}
          where tag_id = {} and product_id between {first} and {}
            and not exists (select from product_tags other where (other.product_id, other.tag_id)
                                                                 = (product_tags.product_id, {to}))",
        name(rng),
        first + 50
    )
}

fn rename(rng: &mut Rng) -> String {
    let table = if rng.below(2) == 0 { "categories" } else { "tags" };
    format!("update {table} set name = 'Renamed {} ' || id where id = {}", rng.below(100), name(rng))
}

fn swap_names(rng: &mut Rng) -> String {
    let (first, second) = (name(rng), name(rng));
    format!(
        "begin;
         create temporary table names on commit drop as select id, name from categories where id in ({first}, {second});
         update categories set name = 'swapped ' || id where id in ({first}, {second});
         update categories set name = (select name from names where id <> categories.id)
          where id in ({first}, {second}) and {first} <> {second};
         commit"
    )
}

/// Deletes a tag, with the links to it, or a category with its products, and creates it again.
fn delete_name(rng: &mut Rng) -> String {
    let id = name(rng);
    if rng.below(3) == 0 {
        return format!(
            "begin; delete from products where category_id = {id}; delete from categories where id = {id}; commit;
             insert into categories (id, name) values ({id}, 'Again {id}')"
        );
    }
    format!("delete from tags where id = {id}; insert into tags (id, name) values ({id}, 'Again {id}')")
}

fn truncate(rng: &mut Rng) -> String {
    match rng.below(3) {
        0 => "truncate product_tags".to_owned(),
        1 => format!("truncate products, product_tags; {}", products_sql()),
        _ => "begin; truncate products, product_tags; rollback".to_owned(),
    }
}

/// On both sides of the number of ids that the log names.
fn update_many(rng: &mut Rng) -> String {
    let count = [500, 999, 1_000, 1_001, 1_300][rng.index(5)];
    format!("update products set price = price + 1 where id in (select id from products order by id limit {count})")
}

/// Together the statements change more products than the log names.
fn update_many_in_steps(rng: &mut Rng) -> String {
    let (first, second) = (400 + rng.below(300), 400 + rng.below(300));
    format!(
        "begin;
         update products set price = price + 1 where id between 1 and {first};
         update products set price = price + 1 where id between 701 and 700 + {second};
         commit"
    )
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

/// Changes, and how often they are chosen.
const SINGLE: [(u64, Change); 20] = [
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
    (2, delete_name),
    (1, truncate),
    (3, update_many),
    (2, update_many_in_steps),
    (3, change_nothing),
    (4, roll_back_to_savepoint),
    (2, roll_back),
    (8, prune),
];

fn copy(rng: &mut Rng) -> Action {
    let first = (product(rng) << 8) + (1 << 50);
    let rows = (0..30).map(|row| format!("{}\t{}\tCopied {row}\t{row}\n", first + row, name(rng)));
    Action::Copy(rows.collect())
}

/// Two transactions at repeatable read that overlap. One reads before the other commits: it neither sees nor logs the
/// product that the other one adds to the category that it renames.
fn two_writers(rng: &mut Rng) -> Vec<Action> {
    let category = name(rng);
    let begin = "begin isolation level repeatable read";
    let (first, second) = (2 * rng.below(PRODUCTS / 2), 1 + 2 * rng.below(PRODUCTS / 2));
    let sql = [
        (0, format!("{begin}; update products set price = 7 where id = {first}")),
        (1, format!("{begin}; insert into products (category_id, name, price) values ({category}, 'Unseen', 1)")),
        (1, format!("update products set price = 8 where id = {second}")),
        (1, "commit".to_owned()),
        (0, format!("update categories set name = 'Renamed {} ' || id where id = {category}", rng.below(100))),
        (0, "commit".to_owned()),
    ];
    sql.map(|(connection, sql)| Action::Sql(connection, sql)).into()
}

/// Returns what happens in the next step.
pub fn next_step(rng: &mut Rng) -> Vec<Action> {
    match rng.below(20) {
        0 => two_writers(rng),
        1 => vec![copy(rng)],
        _ => vec![Action::Sql(0, single(rng, &SINGLE))],
    }
}

/// Returns a small change, for writers that run at the same time.
pub fn small_change(rng: &mut Rng) -> String {
    single(rng, &SINGLE[..3])
}

fn single(rng: &mut Rng, choices: &[(u64, Change)]) -> String {
    let mut number = rng.below(choices.iter().map(|(weight, _)| weight).sum());
    for (weight, sql) in choices {
        if number < *weight {
            return sql(rng);
        }
        number -= weight;
    }
    unreachable!("the number is less than the sum of the weights")
}
