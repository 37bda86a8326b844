//! The ids of the categories and tags that a query names.

use std::collections::{BTreeSet, HashMap};

use futures_util::future::try_join;
use tokio_postgres::Row;

use super::query::ListQuery;
use crate::db::{
    DbError, Statement,
    pool::{Params, Queryable},
    statements::{CATEGORIES_BY_NAMES, TAGS_BY_NAMES},
};

/// The ids of the categories and tags that a query names.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ids {
    pub(super) categories: Vec<i64>,
    pub(super) tags: Vec<i64>,
    /// The query names a tag that does not exist, so no product matches.
    pub(super) has_unknown_tag: bool,
    /// Each tag has more than a thousand products; determined for joins of tags only.
    pub(super) has_only_frequent_tags: bool,
}

impl Ids {
    /// Looks the names up in the open snapshot of the connection.
    pub(crate) async fn look_up(connection: &impl Queryable, query: &ListQuery) -> Result<Self, DbError> {
        let filter = &query.filter;
        let (category_names, tag_names) = (candidates(&filter.categories), candidates(&filter.tags));
        let is_tag_join = query.is_tag_join();
        let (categories, tags) = try_join(
            rows_unless_empty(connection, &CATEGORIES_BY_NAMES, &category_names, &[&category_names]),
            rows_unless_empty(connection, &TAGS_BY_NAMES, &tag_names, &[&tag_names, &is_tag_join]),
        )
        .await?;
        let has_only_frequent_tags = is_tag_join && tags.iter().all(|row| row.get("is_frequent"));
        let (categories, tags) = (ids_of(&filter.categories, &categories), ids_of(&filter.tags, &tags));
        let has_unknown_tag = tags.iter().any(Option::is_none);
        let known = |ids: Vec<Option<i64>>| ids.into_iter().flatten().collect::<BTreeSet<_>>().into_iter().collect();
        Ok(Self { categories: known(categories), tags: known(tags), has_unknown_tag, has_only_frequent_tags })
    }
}

/// Returns the names that a row may have: each name as it is given and without surrounding spaces.
fn candidates(names: &[String]) -> Vec<&str> {
    let candidates: BTreeSet<&str> = names.iter().flat_map(|name| [name.as_str(), name.trim()]).collect();
    candidates.into_iter().collect()
}

async fn rows_unless_empty(
    connection: &impl Queryable,
    statement: &'static Statement,
    names: &[&str],
    params: Params<'_>,
) -> Result<Vec<Row>, DbError> {
    if names.is_empty() { Ok(Vec::new()) } else { connection.rows(statement, params).await }
}

/// Returns the id of each name, or `None` if no row has it. A name with surrounding spaces is that of the row that is
/// stored with them, otherwise that of the row without.
fn ids_of(names: &[String], rows: &[Row]) -> Vec<Option<i64>> {
    let ids: HashMap<&str, i64> = rows.iter().map(|row| (row.get("name"), row.get("id"))).collect();
    names.iter().map(|name| ids.get(name.as_str()).or_else(|| ids.get(name.trim())).copied()).collect()
}
