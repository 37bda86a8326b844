//! Builds the SQL of a list query from fixed fragments. Every value is a parameter: text from a client never becomes
//! part of a statement.
//!
//! The statements are not cached as prepared statements: PostgreSQL plans each one for its values, so that a rare tag
//! and a common one each get the index that suits them.

use std::collections::{BTreeSet, HashMap};

use futures_util::future::try_join;
use jiff::Timestamp;
use tokio_postgres::{
    Row, RowStream,
    types::{ToSql, Type},
};

use super::{
    cursor::{Cursor, Value},
    filter::{Column, Filter, Ordering},
    query::{ListQuery, Paging},
};
use crate::db::{
    DbError, Statement,
    pool::Queryable,
    statements::{CATEGORIES_BY_NAMES, PRODUCTS_PAGE, TAGS_BY_NAMES},
};

/// A statement with its parameters.
#[derive(Default)]
pub(crate) struct SqlQuery {
    sql: String,
    params: Vec<(Box<dyn ToSql + Sync + Send>, Type)>,
}

/// The ids of the categories and tags that a query names.
#[derive(Debug, Default)]
pub(crate) struct Ids {
    categories: Vec<i64>,
    tags: Vec<i64>,
    /// The query names a tag that does not exist, so no product matches.
    has_unknown_tag: bool,
}

impl Ids {
    /// Looks the names up in the open snapshot of the connection.
    pub(crate) async fn look_up(connection: &impl Queryable, query: &ListQuery) -> Result<Self, DbError> {
        let filter = &query.filter;
        let (categories, tags) = try_join(
            look_up_names(connection, &CATEGORIES_BY_NAMES, &filter.categories),
            look_up_names(connection, &TAGS_BY_NAMES, &filter.tags),
        )
        .await?;
        let has_unknown_tag = tags.iter().any(Option::is_none);
        let known = |ids: Vec<Option<i64>>| ids.into_iter().flatten().collect::<BTreeSet<_>>().into_iter().collect();
        Ok(Self { categories: known(categories), tags: known(tags), has_unknown_tag })
    }
}

/// Returns the id of each name, or `None` if no row has it. A name with surrounding spaces is that of the row that is
/// stored with them, otherwise that of the row without.
async fn look_up_names(
    connection: &impl Queryable,
    statement: &'static Statement,
    names: &[String],
) -> Result<Vec<Option<i64>>, DbError> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let wanted: BTreeSet<&str> = names.iter().flat_map(|name| [name.as_str(), name.trim()]).collect();
    let rows = connection.rows(statement, &[&wanted.into_iter().collect::<Vec<_>>()]).await?;
    let ids: HashMap<&str, i64> = rows.iter().map(|row| (row.get("name"), row.get("id"))).collect();
    Ok(names.iter().map(|name| ids.get(name.as_str()).or_else(|| ids.get(name.trim())).copied()).collect())
}

/// A select from `products`: the query, the ids behind its names, and the select list.
struct Source<'a> {
    query: &'a ListQuery,
    ids: &'a Ids,
    columns: &'a str,
}

/// The columns of `products` that a page needs.
const PAGE_COLUMNS: &str = "p.id, p.category_id, p.name, p.description, p.price, p.created_at";
/// The tags of all products in a range of ids: one index range scan instead of a lookup for each product.
const TAGS_BY_ID_RANGE: &str = "\
         from (select *
                 from product_tags
                where product_id between (select min(id) from page) and (select max(id) from page)) product_tags
";

impl SqlQuery {
    /// Counts the products that match the filter, on all pages.
    pub(crate) fn count(query: &ListQuery, ids: &Ids) -> Self {
        let mut count = Self::default();
        count.sql.push_str("select count(*) from ");
        count.push_products(&query.filter);
        count.push_filter(query, ids);
        count
    }

    /// Selects the products of a query in its order, with the columns of `products/list`. A keyset page has up to
    /// `lookahead` rows more, at its far end, which show whether there is a further page.
    pub(crate) fn page(query: &ListQuery, ids: &Ids, lookahead: i64) -> Self {
        let (before, rest) = split_at_marker(PRODUCTS_PAGE.sql, "-- page\n");
        let (_, rest) = split_at_marker(rest, "-- end of page\n");
        let (middle, rest) = split_at_marker(rest, "-- links\n");
        let (links, rest) = split_at_marker(rest, "-- end of links\n");
        let (after, _) = split_at_marker(rest, "-- order\n");
        let mut page = Self::default();
        page.sql.push_str(before);
        page.push_page(query, ids, lookahead);
        page.sql.push('\n');
        page.sql.push_str(middle);
        page.sql.push_str(if is_contiguous_id_range(query) { TAGS_BY_ID_RANGE } else { links });
        page.sql.push_str(after);
        page.sql.push_str(&order_by(query.ordering, false));
        page
    }

    /// Appends the select of the page's products, without the names of their categories and tags.
    fn push_page(&mut self, query: &ListQuery, ids: &Ids, lookahead: i64) {
        let is_page = !matches!(query.paging, Paging::Unpaged);
        // a tag is matched by index-only scans; the rows of the page alone are fetched from the table
        let in_two_steps = is_page && !ids.tags.is_empty();
        if in_two_steps {
            self.sql.push_str("select ");
            self.sql.push_str(PAGE_COLUMNS);
            self.sql.push_str("\n  from products p\n where p.id = any (array(\nselect id from (\n");
        }
        let columns = match query.ordering.column {
            _ if !in_two_steps => PAGE_COLUMNS.to_owned(),
            Column::Id => "p.id".to_owned(),
            other => format!("p.id, {}", column_sql(other)),
        };
        let source = Source { query, ids, columns: &columns };
        match &query.paging {
            Paging::Unpaged => self.push_source(&source, None, false),
            Paging::Keyset { size, cursor } => {
                let limit = self.bind(size + lookahead, Type::INT8);
                self.push_keyset(&source, cursor.as_ref(), &format!("\n limit {limit}"));
            }
            Paging::Numbered { page, size } => {
                self.push_source(&source, None, false);
                // `ListRequest::resolve` has rejected pages beyond the end
                let skipped = (page - 1).saturating_mul(*size);
                let (limit, offset) = (self.bind(*size, Type::INT8), self.bind(skipped, Type::INT8));
                let limit_and_offset = format!("\n limit {limit} offset {offset}");
                self.sql.push_str(&limit_and_offset);
            }
        }
        if in_two_steps {
            self.sql.push_str("\n) p))");
        }
    }

    /// Sends the statement and returns its rows as they arrive.
    pub(crate) async fn send(&self, connection: &impl Queryable) -> Result<RowStream, DbError> {
        let client = connection.client();
        let params = self.params.iter().map(|(value, kind)| (&**value as &(dyn ToSql + Sync), kind.clone()));
        let rows = client.query_typed_raw(&self.sql, params).await;
        rows.map_err(|error| DbError::statement(&PRODUCTS_PAGE, error))
    }

    /// Appends the select of the products after the cursor, or before it.
    ///
    /// In descending order, ties are still ordered by ascending id. The products after the cursor are then no single
    /// index range but two: the rest of the products with the cursor's value, and all products with a smaller value.
    fn push_keyset(&mut self, source: &Source<'_>, cursor: Option<&Cursor>, limit: &str) {
        let (ordering, backwards) = (source.query.ordering, is_backwards(source.query));
        let Some(cursor) = cursor else {
            self.push_source(source, None, backwards);
            return self.sql.push_str(limit);
        };
        let id = self.bind(cursor.id, Type::INT8);
        let id_op = if backwards { "<" } else { ">" };
        let value = match &cursor.value {
            Value::Id => {
                let op = if ordering.descending == backwards { ">" } else { "<" };
                self.push_source(source, Some(&format!("p.id {op} {id}")), backwards);
                return self.sql.push_str(limit);
            }
            Value::Name(name) => self.bind(name.clone(), Type::TEXT),
            Value::Price(price) => format!("{}::numeric", self.bind(price.clone(), Type::TEXT)),
            Value::CreatedAt(time) => self.bind(*time, Type::TIMESTAMPTZ),
        };
        let column = column_sql(ordering.column);
        if !ordering.descending {
            self.push_source(source, Some(&format!("({column}, p.id) {id_op} ({value}, {id})")), backwards);
            return self.sql.push_str(limit);
        }
        let op = if backwards { ">" } else { "<" };
        self.sql.push_str("select * from (\n(");
        self.push_source(source, Some(&format!("{column} = {value} and p.id {id_op} {id}")), backwards);
        self.sql.push_str(limit);
        self.sql.push_str(")\nunion all\n(");
        self.push_source(source, Some(&format!("{column} {op} {value}")), backwards);
        self.sql.push_str(limit);
        self.sql.push_str(")\n) p");
        self.sql.push_str(&order_by(ordering, backwards));
        self.sql.push_str(limit);
    }

    /// Appends a select of the products that match the filter and the cursor's condition, in order.
    fn push_source(&mut self, source: &Source<'_>, cursor_condition: Option<&str>, backwards: bool) {
        let Source { query, ids, columns } = source;
        self.sql.push_str("select ");
        self.sql.push_str(columns);
        self.sql.push_str("\n  from ");
        self.push_products(&query.filter);
        let has_filter = self.push_filter(query, ids);
        if let Some(condition) = cursor_condition {
            self.sql.push_str(if has_filter { "\n   and " } else { "\n where " });
            self.sql.push_str(condition);
        }
        self.sql.push_str(&order_by(query.ordering, backwards));
    }

    /// Appends the table `products`, or its rows with the ids that the filter names, as `p`.
    ///
    /// `offset 0` keeps the planner from merging the selects. The rows are then found by their ids, whatever the other
    /// conditions, the ordering and the page size: the planner could also read an index in the order of the list until
    /// the page is full, which reads all of it when few of the ids exist.
    fn push_products(&mut self, filter: &Filter) {
        if filter.ids.is_empty() {
            return self.sql.push_str("products p");
        }
        let ids = self.bind(filter.ids.clone(), Type::INT8_ARRAY);
        let products = format!("(select {PAGE_COLUMNS} from products p where p.id = any ({ids}) offset 0) p");
        self.sql.push_str(&products);
    }

    /// Appends the conditions of the filter, except the ids, as a `where` clause. Returns whether there is any condition.
    fn push_filter(&mut self, query: &ListQuery, ids: &Ids) -> bool {
        let filter = &query.filter;
        let mut conditions = Vec::new();
        if ids.has_unknown_tag {
            conditions.push("false".to_owned());
        }
        match ids.categories[..] {
            _ if filter.categories.is_empty() => {}
            // only for a single category can an index return the products in order
            [category] => conditions.push(format!("p.category_id = {}", self.bind(category, Type::INT8))),
            _ => {
                let categories = self.bind(ids.categories.clone(), Type::INT8_ARRAY);
                conditions.push(format!("p.category_id = any ({categories})"));
            }
        }
        for tag in &ids.tags {
            let tag = self.bind(*tag, Type::INT8);
            let link = "select from product_tags pt where pt.product_id = p.id and pt.tag_id";
            conditions.push(format!("exists ({link} = {tag})"));
        }
        for (limit, op) in [(&filter.price_min, ">="), (&filter.price_max, "<=")] {
            if let Some(price) = limit {
                conditions.push(format!("p.price {op} {}::numeric", self.bind(price.clone(), Type::TEXT)));
            }
        }
        for (limit, op) in [(filter.created_after, ">="), (filter.created_before, "<=")] {
            if let Some(time) = limit {
                conditions.push(format!("p.created_at {op} {}", self.bind::<Timestamp>(time, Type::TIMESTAMPTZ)));
            }
        }
        for term in &filter.terms {
            let pattern = self.bind(like_pattern(term), Type::TEXT);
            // the expression of the index products_search_idx
            conditions.push(format!("fold_case(p.name || E'\\n' || p.description) like fold_case({pattern})"));
        }
        if !conditions.is_empty() {
            self.sql.push_str("\n where ");
            self.sql.push_str(&conditions.join("\n   and "));
        }
        !conditions.is_empty()
    }

    /// Adds a parameter and returns its placeholder, like `$1`.
    fn bind<T: ToSql + Sync + Send + 'static>(&mut self, value: T, kind: Type) -> String {
        self.params.push((Box::new(value), kind));
        format!("${}", self.params.len())
    }
}

/// Whether a page contains every product between its first and its last id.
fn is_contiguous_id_range(query: &ListQuery) -> bool {
    let is_keyset = matches!(query.paging, Paging::Keyset { .. });
    is_keyset && query.filter == Filter::default() && query.ordering.column == Column::Id
}

/// Whether the page ends before its cursor and is read from its end.
pub(crate) fn is_backwards(query: &ListQuery) -> bool {
    matches!(&query.paging, Paging::Keyset { cursor: Some(cursor), .. } if cursor.backwards)
}

/// Returns the cursor beside a row of `products/page`.
pub(crate) fn cursor_at(row: &Row, ordering: Ordering, backwards: bool) -> Cursor {
    let value = match ordering.column {
        Column::Id => Value::Id,
        Column::Name => Value::Name(row.get("name")),
        Column::Price => Value::Price(row.get("price")),
        Column::CreatedAt => Value::CreatedAt(row.get("created_at")),
    };
    Cursor { backwards, id: row.get("id"), value }
}

fn column_sql(column: Column) -> &'static str {
    match column {
        Column::Id => "p.id",
        Column::Name => "p.name collate \"C\"",
        Column::Price => "p.price",
        Column::CreatedAt => "p.created_at",
    }
}

fn order_by(Ordering { column, descending }: Ordering, backwards: bool) -> String {
    let direction = |descending: bool| if descending { " desc" } else { "" };
    let first = format!("\n order by {}{}", column_sql(column), direction(descending != backwards));
    if column == Column::Id { first } else { format!("{first}, p.id{}", direction(backwards)) }
}

/// Returns a `like` pattern for texts that contain the term.
fn like_pattern(term: &str) -> String {
    let mut pattern = String::with_capacity(term.len() + 2);
    pattern.push('%');
    for char in term.chars() {
        if matches!(char, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(char);
    }
    pattern.push('%');
    pattern
}

fn split_at_marker<'a>(text: &'a str, marker: &str) -> (&'a str, &'a str) {
    text.split_once(marker).unwrap_or_else(|| unreachable!("products/page.sql has the line {marker:?}"))
}
