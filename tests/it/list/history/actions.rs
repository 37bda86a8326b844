//! The steps of random histories of the catalogue: what connections and clients do, one after the other.

use super::{
    names::{name, new_name},
    steps::{MAX_LOGGED_IDS, PRODUCTS, delete, logged_change, product, unlogged_change, update},
};
use crate::stress::Rng;

/// A part of a step, after which all lists are compared.
pub enum Action {
    /// Statements on the first (0) or second (1) connection.
    Sql(usize, String),
    /// Rows for `copy products (id, category_id, name, price) from stdin`.
    Copy(String),
    /// A transaction on the first connection that is prepared.
    Prepare(String),
    /// Statements on the second connection that wait for the prepared transaction.
    Wait(String),
    /// `commit` or `rollback` of the prepared transaction, which ends the wait.
    EndPrepared(&'static str),
    /// A file with this number of rows, which the API imports.
    Import(u64),
}

/// What happens in a step.
pub struct Step {
    pub actions: Vec<Action>,
    /// Whether tokens from before the step may expire.
    pub expires_tokens: bool,
}

impl Step {
    fn logged(actions: Vec<Action>) -> Self {
        Self { actions, expires_tokens: false }
    }
}

/// Returns what happens in the next step.
pub fn next_step(rng: &mut Rng) -> Step {
    match rng.below(40) {
        0..=2 => Step::logged(two_writers(rng)),
        3 => Step::logged(vec![copy(rng)]),
        4 => Step::logged(prepared(rng)),
        5 => {
            let rows = *rng.pick(&[40, 300, MAX_LOGGED_IDS, MAX_LOGGED_IDS + 200]);
            Step { actions: vec![Action::Import(rows)], expires_tokens: rows > MAX_LOGGED_IDS }
        }
        6..=9 => Step { actions: vec![Action::Sql(0, unlogged_change(rng))], expires_tokens: true },
        _ => Step::logged(vec![Action::Sql(0, logged_change(rng))]),
    }
}

fn copy(rng: &mut Rng) -> Action {
    let first = (product(rng) << 8) + (1 << 50);
    let rows = (0..30).map(|row| format!("{}\t{}\tCopied {row}\t{row}\n", first + row, name(rng)));
    Action::Copy(rows.collect())
}

/// Two transactions at repeatable read that overlap. One reads before the other commits: it neither sees nor logs the
/// products that the other one adds to the category or the tag that it renames.
fn two_writers(rng: &mut Rng) -> Vec<Action> {
    let id = name(rng);
    let begin = "begin isolation level repeatable read";
    let (first, second) = (2 * rng.below(PRODUCTS / 2), 1 + 2 * rng.below(PRODUCTS / 2));
    let (table, unseen) = if rng.below(2) == 0 {
        ("categories", format!("insert into products (category_id, name, price) values ({id}, 'Unseen', 1)"))
    } else {
        let products = format!("select id from products where id between {second} and {second} + 19");
        ("tags", format!("insert into product_tags select id, {id} from ({products}) p on conflict do nothing"))
    };
    let rename = format!("update {table} set name = '{}' where id = {id}", new_name(rng));
    let sql = [
        (0, format!("{begin}; update products set price = 7 where id = {first}")),
        (1, format!("{begin}; {unseen}; update products set price = 8 where id = {second}; commit")),
        (0, format!("{rename}; commit")),
    ];
    sql.map(|(connection, sql)| Action::Sql(connection, sql)).into()
}

/// A prepared transaction and another writer, whose commit waits until the first one has ended.
fn prepared(rng: &mut Rng) -> Vec<Action> {
    let insert = |name: &str, rng: &mut Rng| {
        format!("insert into products (category_id, name, price) values ({}, '{name}', 1)", self::name(rng))
    };
    let first = format!(
        "begin; {}; {}; update tags set name = '{}' where id = {}; {}",
        insert("Prepared", rng),
        update(rng),
        new_name(rng),
        name(rng),
        delete(rng)
    );
    vec![
        Action::Prepare(first),
        Action::Wait(insert("Waited", rng)),
        Action::EndPrepared(if rng.below(2) == 0 { "commit" } else { "rollback" }),
    ]
}
