//! Builds the SQL of a list query from fixed fragments. Every value is a parameter: text from a client never becomes
//! part of a statement.
//!
//! The statements are not cached as prepared statements: PostgreSQL plans each one for its values, so that a rare tag
//! and a common one each get the index that suits them.

use futures_util::TryStreamExt;
use jiff::Timestamp;
use tokio_postgres::{
    Row, RowStream,
    types::{ToSql, Type},
};

use super::{
    cursor::{Cursor, Value},
    filter::{Column, Filter, Ordering},
    ids::Ids,
    query::{ListQuery, Paging},
    strategy::Strategy,
};
use crate::db::{DbError, pool::Queryable, statements::PRODUCTS_PAGE};

/// A statement with its parameters.
#[derive(Default)]
pub(crate) struct SqlQuery {
    pub(super) sql: String,
    params: Vec<(Box<dyn ToSql + Sync + Send>, Type)>,
}

/// A select from `products`.
pub(super) struct Source<'a> {
    pub(super) filter: &'a Filter,
    /// The ids behind the names of the filter.
    pub(super) ids: &'a Ids,
    pub(super) ordering: Ordering,
    /// The select list.
    pub(super) columns: &'a str,
    /// All matching rows are collected and sorted: no index is read in the order of the list.
    pub(super) is_gathered: bool,
}

/// The columns of `products` that a page needs.
pub(super) const PAGE_COLUMNS: &str = "p.id, p.category_id, p.name, p.description, p.price, p.created_at";
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
        count.push_filter(&query.filter, ids);
        count
    }

    /// Selects the products of a query in its order, with the columns of `products/list`. A keyset page has up to
    /// `lookahead` rows more, at its far end, which show whether there is a further page.
    pub(crate) fn page(query: &ListQuery, ids: &Ids, lookahead: i64, strategy: Strategy) -> Self {
        let (before, rest) = split_at_marker(PRODUCTS_PAGE.sql, "-- page\n");
        let (_, rest) = split_at_marker(rest, "-- end of page\n");
        let (middle, rest) = split_at_marker(rest, "-- links\n");
        let (links, rest) = split_at_marker(rest, "-- end of links\n");
        let (after, _) = split_at_marker(rest, "-- order\n");
        let mut page = Self::default();
        page.sql.push_str(before);
        page.push_page(query, ids, lookahead, strategy);
        page.sql.push('\n');
        page.sql.push_str(middle);
        page.sql.push_str(if is_contiguous_id_range(query) { TAGS_BY_ID_RANGE } else { links });
        page.sql.push_str(after);
        page.sql.push_str(&order_by(query.ordering, false));
        page
    }

    /// Appends the select of the page's products, without the names of their categories and tags.
    fn push_page(&mut self, query: &ListQuery, ids: &Ids, lookahead: i64, strategy: Strategy) {
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
        let is_gathered = strategy == Strategy::Gathered;
        let source = Source { filter: &query.filter, ids, ordering: query.ordering, columns: &columns, is_gathered };
        match &query.paging {
            Paging::Unpaged => self.push_source(&source, None, false),
            Paging::Keyset { size, cursor } => {
                let limit = self.bind(size + lookahead, Type::INT8);
                let limit = format!("\n limit {limit}");
                match strategy {
                    Strategy::Prefix(rows) => self.push_prefix_page(query, ids, rows, &limit),
                    Strategy::Planned | Strategy::Gathered => self.push_keyset(&source, cursor.as_ref(), &limit),
                }
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
        rows.map_err(failed)
    }

    /// Sends the statement and returns its only row.
    pub(crate) async fn query_one(&self, connection: &impl Queryable) -> Result<Row, DbError> {
        let rows: Vec<Row> = self.send(connection).await?.try_collect().await.map_err(failed)?;
        rows.into_iter().next().ok_or_else(|| DbError::unexpected_response(&PRODUCTS_PAGE))
    }

    /// Appends the select of the products after the cursor, or before it.
    ///
    /// In descending order, ties are still ordered by ascending id. The products after the cursor are then no single
    /// index range but two: the rest of the products with the cursor's value, and all products with a smaller value.
    pub(super) fn push_keyset(&mut self, source: &Source<'_>, cursor: Option<&Cursor>, limit: &str) {
        let ordering = source.ordering;
        let Some(cursor) = cursor else {
            self.push_source(source, None, false);
            return self.sql.push_str(limit);
        };
        let backwards = cursor.backwards;
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
        self.sql.push_str("select ");
        self.sql.push_str(source.columns);
        self.sql.push_str("\n  from ");
        if source.is_gathered {
            self.sql.push_str("(select ");
            self.sql.push_str(PAGE_COLUMNS);
            self.sql.push_str("\n  from ");
        }
        self.push_products(source.filter);
        let has_filter = self.push_filter(source.filter, source.ids);
        if let Some(condition) = cursor_condition {
            self.sql.push_str(if has_filter { "\n   and " } else { "\n where " });
            self.sql.push_str(condition);
        }
        if source.is_gathered {
            // keeps the planner from merging the selects
            self.sql.push_str("\noffset 0) p");
        }
        self.sql.push_str(&order_by(source.ordering, backwards));
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
    pub(super) fn push_filter(&mut self, filter: &Filter, ids: &Ids) -> bool {
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
        conditions.extend(self.search_conditions(&filter.terms));
        if !conditions.is_empty() {
            self.sql.push_str("\n where ");
            self.sql.push_str(&conditions.join("\n   and "));
        }
        !conditions.is_empty()
    }

    /// Adds a parameter and returns its placeholder, like `$1`.
    pub(super) fn bind<T: ToSql + Sync + Send + 'static>(&mut self, value: T, kind: Type) -> String {
        self.params.push((Box::new(value), kind));
        format!("${}", self.params.len())
    }
}

fn failed(error: tokio_postgres::Error) -> DbError {
    DbError::statement(&PRODUCTS_PAGE, error)
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

pub(super) fn order_by(Ordering { column, descending }: Ordering, backwards: bool) -> String {
    let direction = |descending: bool| if descending { " desc" } else { "" };
    let first = format!("\n order by {}{}", column_sql(column), direction(descending != backwards));
    if column == Column::Id { first } else { format!("{first}, p.id{}", direction(backwards)) }
}

fn split_at_marker<'a>(text: &'a str, marker: &str) -> (&'a str, &'a str) {
    text.split_once(marker).unwrap_or_else(|| unreachable!("products/page.sql has the line {marker:?}"))
}
