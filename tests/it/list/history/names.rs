//! Changes of categories, tags and the links to tags, in random histories of the catalogue.

use super::steps::{NAMES, product};
use crate::stress::Rng;

/// Returns the id of a category or a tag.
pub fn name(rng: &mut Rng) -> u64 {
    1 + rng.below(NAMES)
}

pub fn link(rng: &mut Rng) -> String {
    let first = product(rng);
    format!(
        "insert into product_tags select id, {} from products where id between {first} and {}
             on conflict do nothing",
        name(rng),
        first + 9
    )
}

pub fn unlink(rng: &mut Rng) -> String {
    let first = product(rng);
    format!("delete from product_tags where tag_id = {} and product_id between {first} and {}", name(rng), first + 50)
}

pub fn relink(rng: &mut Rng) -> String {
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

pub fn rename(rng: &mut Rng) -> String {
    let table = if rng.below(2) == 0 { "categories" } else { "tags" };
    format!("update {table} set name = '{}' where id = {}", new_name(rng), name(rng))
}

/// Returns a name that no category or tag has.
pub fn new_name(rng: &mut Rng) -> String {
    format!("Name {}", rng.below(u64::MAX))
}

/// Swaps the names of two categories, or renames one.
pub fn swap_names(rng: &mut Rng) -> String {
    let (first, second, unused) = (name(rng), name(rng), new_name(rng));
    format!(
        "begin;
         create temporary table names on commit drop as select id, name from categories where id in ({first}, {second});
         update categories set name = '{unused} ' || id where id in ({first}, {second});
         update categories set name = (select name from names where id <> categories.id)
          where id in ({first}, {second}) and {first} <> {second};
         commit"
    )
}

/// Deletes a tag, which deletes the links to it, and creates it again.
pub fn delete_tag(rng: &mut Rng) -> String {
    let (id, again) = (name(rng), new_name(rng));
    format!("delete from tags where id = {id}; insert into tags (id, name) values ({id}, '{again}')")
}

/// Deletes a category with its products, which deletes the links to their tags, and creates it again.
pub fn delete_category(rng: &mut Rng) -> String {
    let (id, again) = (name(rng), new_name(rng));
    format!(
        "begin; delete from products where category_id = {id}; delete from categories where id = {id}; commit;
         insert into categories (id, name) values ({id}, '{again}')"
    )
}
