//! Samples of a list, from which the strategy of a page is selected, and pages that are read from a prefix of a list.

use tokio_postgres::types::Type;

use super::{
    filter::{Column, Filter},
    ids::Ids,
    query::{ListQuery, Paging},
    sql::{PAGE_COLUMNS, Source, SqlQuery, is_backwards, order_by},
    strategy::Strategy,
};
use crate::db::{DbError, pool::Queryable};

/// Rows that are tested for tags, each with an index lookup.
const TAG_SAMPLE_ROWS: i64 = 256;
/// Rows in which a page of a search without trigrams is looked for first. Products with a frequent term fill the page;
/// to find those with a rare one, all products are read.
const SEARCH_PREFIX_ROWS: i64 = 1024;
/// Finding all matching rows is cheaper than a longer prefix.
const MAX_PREFIX_ROWS: i64 = 16 * 1024;
/// If fewer rows match a search without an index, its numbered pages gather them.
const FEW_ROWS: i64 = 10_000;

/// A list whose first rows one index returns in order: that of a query without its tags and the conditions on other
/// columns.
struct PrefixList {
    filter: Filter,
    ids: Ids,
    /// The conditions that the index does not cover, without the tags.
    rest: Filter,
    rest_ids: Ids,
    /// The select list.
    columns: &'static str,
}

impl PrefixList {
    fn new(query: &ListQuery, ids: &Ids) -> Self {
        let (column, mut filter, mut rest) = (query.ordering.column, Filter::default(), query.filter.clone());
        let (mut prefix_ids, mut rest_ids) = (Ids::default(), Ids { tags: Vec::new(), ..ids.clone() });
        rest.tags.clear();
        if ids.categories.len() == 1 {
            filter.categories = std::mem::take(&mut rest.categories);
            prefix_ids.categories = std::mem::take(&mut rest_ids.categories);
        }
        if column == Column::Price {
            filter.price_min = rest.price_min.take();
            filter.price_max = rest.price_max.take();
        }
        if column == Column::CreatedAt {
            filter.created_after = rest.created_after.take();
            filter.created_before = rest.created_before.take();
        }
        // with the columns of an index alone, the rows are not fetched
        let columns = match column {
            _ if rest != Filter::default() => PAGE_COLUMNS,
            Column::Id => "p.id",
            Column::Name => "p.id, p.name",
            Column::Price => "p.id, p.price",
            Column::CreatedAt => "p.id, p.created_at",
        };
        Self { filter, ids: prefix_ids, rest, rest_ids, columns }
    }
}

impl Strategy {
    /// Selects the strategy of a page from the number of rows that match its query, or from a sample of them.
    pub(crate) async fn select(
        connection: &impl Queryable,
        query: &ListQuery,
        ids: &Ids,
        total: Option<i64>,
    ) -> Result<Self, DbError> {
        let by_terms = query.filter.is_search_without_index() && query.filter.ids.is_empty();
        let size = match query.paging {
            Paging::Keyset { size, .. } => size,
            Paging::Numbered { .. } if by_terms && total.is_some_and(|total| total < FEW_ROWS) => {
                return Ok(Self::Gathered);
            }
            _ => return Ok(Self::Planned),
        };
        if by_terms {
            return Ok(Self::Prefix(SEARCH_PREFIX_ROWS + size));
        }
        // products of a rare tag are found by the tag
        let has_all_names = !ids.has_unknown_tag && ids.categories.len() == query.filter.categories.len();
        if !query.is_tag_join() || !ids.has_only_frequent_tags || !has_all_names {
            return Ok(Self::Planned);
        }
        let sample = SqlQuery::sample(query, ids, TAG_SAMPLE_ROWS).query_one(connection).await?;
        let (rows, matching): (i64, i32) = (sample.get("rows"), sample.get("matching"));
        if rows < TAG_SAMPLE_ROWS {
            return Ok(Self::Planned);
        }
        Ok(Self::prefix_with(size + 1, rows, i64::from(matching)).unwrap_or(Self::Gathered))
    }

    /// Returns the prefix that is expected to have half as many products again as `wanted`, if `matching` of `rows` rows
    /// match. Returns `None` if it is too long.
    fn prefix_with(wanted: i64, rows: i64, matching: i64) -> Option<Self> {
        let prefix = (rows * wanted * 3 / 2).checked_div(matching)?;
        (prefix <= MAX_PREFIX_ROWS).then_some(Self::Prefix(prefix))
    }

    /// Returns the strategy to read a page with when the one that was read with this strategy has too few rows.
    pub(crate) async fn next(
        self,
        connection: &impl Queryable,
        query: &ListQuery,
        ids: &Ids,
        rows_read: usize,
    ) -> Result<Option<Self>, DbError> {
        let (Self::Prefix(rows), Paging::Keyset { size, .. }) = (self, &query.paging) else { return Ok(None) };
        let matching = i64::try_from(rows_read).unwrap_or(i64::MAX);
        if matching > *size {
            return Ok(None);
        }
        let has_more: bool = SqlQuery::prefix_has_more(query, ids, rows).query_one(connection).await?.get("has_more");
        if !has_more {
            return Ok(None);
        }
        if matching == 0 {
            return Ok(Some(Self::Gathered));
        }
        let longer = Self::prefix_with(size + 1, rows, matching).filter(|_| query.is_tag_join());
        Ok(Some(longer.unwrap_or(Self::Planned)))
    }
}

impl SqlQuery {
    /// Counts the first `rows` rows of the prefix list, as `rows`, and those with all tags, as `matching`.
    fn sample(query: &ListQuery, ids: &Ids, rows: i64) -> Self {
        let mut sample = Self::default();
        sample.sql.push_str("with sample as materialized (\n");
        sample.push_prefix(query, &PrefixList::new(query, ids), rows, 0);
        sample.sql.push_str("\n)\nselect count(*) as rows, (select cardinality(array(");
        // an index lookup for each row and tag
        for tag in &ids.tags {
            let tag = sample.bind(*tag, Type::INT8);
            let lookup =
                format!("select product_id from product_tags where tag_id = {tag} and product_id = any (array(\n");
            sample.sql.push_str(&lookup);
        }
        sample.sql.push_str("select id from sample");
        sample.sql.push_str(&"))".repeat(ids.tags.len()));
        sample.sql.push_str("))) as matching from sample");
        sample
    }

    /// Tests whether the prefix list has more than this number of rows.
    fn prefix_has_more(query: &ListQuery, ids: &Ids, rows: i64) -> Self {
        let mut exists = Self::default();
        exists.sql.push_str("select exists (\n");
        exists.push_prefix(query, &PrefixList::new(query, ids), 1, rows);
        exists.sql.push_str("\n) as has_more");
        exists
    }

    /// Appends the select of the page's rows among the first rows of the prefix list.
    pub(super) fn push_prefix_page(&mut self, query: &ListQuery, ids: &Ids, rows: i64, limit: &str) {
        let list = PrefixList::new(query, ids);
        self.sql.push_str("select ");
        self.sql.push_str(if ids.tags.is_empty() { PAGE_COLUMNS } else { "p.id" });
        self.sql.push_str(" from (\n");
        self.push_prefix(query, &list, rows, 0);
        self.sql.push_str("\n) p");
        for (index, tag) in ids.tags.iter().enumerate() {
            let tag = self.bind(*tag, Type::INT8);
            let join =
                format!("\n  join product_tags t{index} on t{index}.product_id = p.id and t{index}.tag_id = {tag}");
            self.sql.push_str(&join);
        }
        self.push_filter(&list.rest, &list.rest_ids);
        self.sql.push_str(&order_by(query.ordering, is_backwards(query)));
        self.sql.push_str(limit);
    }

    /// Appends the select of rows of the prefix list, after the cursor.
    fn push_prefix(&mut self, query: &ListQuery, list: &PrefixList, rows: i64, skipped: i64) {
        let Paging::Keyset { cursor, .. } = &query.paging else { unreachable!("only keyset pages have a prefix") };
        let source = Source {
            filter: &list.filter,
            ids: &list.ids,
            ordering: query.ordering,
            columns: list.columns,
            is_gathered: false,
        };
        let rows_to_read = self.bind(rows + skipped, Type::INT8);
        if skipped > 0 {
            self.sql.push_str("select * from (\n");
        }
        self.push_keyset(&source, cursor.as_ref(), &format!("\n limit {rows_to_read}"));
        if skipped > 0 {
            let skipped = self.bind(skipped, Type::INT8);
            let offset = format!("\n) p offset {skipped}");
            self.sql.push_str(&offset);
        }
    }
}
