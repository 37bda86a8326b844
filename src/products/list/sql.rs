//! From a selection to its SQL: pieces that stand here, put together by which conditions there are, with every value as a
//! parameter. No text of a client is ever part of a statement.
//!
//! Such a statement is not prepared for later: it is planned for its values, so that a rare tag and a common one each get
//! the index that suits them.

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

/// The ids behind the names of a selection. A tag that is not there is found by nothing.
#[derive(Debug, Default)]
pub(crate) struct Ids {
    categories: Vec<i64>,
    tags: Vec<i64>,
    unknown_tag: bool,
}

impl Ids {
    /// Looks the names up, on a connection with a snapshot open.
    pub(crate) async fn of(connection: &impl Queryable, selection: &ListQuery) -> Result<Self, DbError> {
        let named = async |statement: &'static Statement, names: &[String]| -> Result<Vec<i64>, DbError> {
            if names.is_empty() {
                return Ok(Vec::new());
            }
            let rows = connection.rows(statement, &[&names]).await?;
            Ok(rows.iter().map(|row| row.get(0)).collect())
        };
        let filter = &selection.filter;
        let (categories, tags) =
            try_join(named(&CATEGORIES_BY_NAMES, &filter.categories), named(&TAGS_BY_NAMES, &filter.tags)).await?;
        let unknown_tag = tags.len() < filter.tags.len();
        Ok(Self { categories, tags, unknown_tag })
    }
}

/// Which products are read, and what of them.
struct Source<'a> {
    selection: &'a ListQuery,
    ids: &'a Ids,
    columns: &'a str,
}

/// What a page needs of a product.
const PRODUCT: &str = "p.id, p.category_id, p.name, p.description, p.price, p.created_at";
/// The links of products that follow each other: one walk along an index instead of a search for each.
const LINKS_OF_A_PIECE: &str = "\
         from (select *
                 from product_tags
                where product_id between (select min(id) from page) and (select max(id) from page)) product_tags
";

impl SqlQuery {
    /// How many products the filter lets through, whatever the page.
    pub(crate) fn count(selection: &ListQuery, ids: &Ids) -> Self {
        let mut query = Self::default();
        query.sql.push_str("select count(*) from products p");
        query.filter(selection, ids);
        query
    }

    /// The products of a selection in their order, with the columns of `products/list`; of a page by keyset, up to `probe`
    /// more on its far side than were asked for.
    pub(crate) fn page(selection: &ListQuery, ids: &Ids, probe: i64) -> Self {
        let (before, rest) = around(PRODUCTS_PAGE.sql, "-- page\n");
        let (_, rest) = around(rest, "-- end of page\n");
        let (middle, rest) = around(rest, "-- links\n");
        let (links, rest) = around(rest, "-- end of links\n");
        let (after, _) = around(rest, "-- order\n");
        let mut query = Self::default();
        query.sql.push_str(before);
        query.part(selection, ids, probe);
        query.sql.push('\n');
        query.sql.push_str(middle);
        query.sql.push_str(if is_a_piece(selection) { LINKS_OF_A_PIECE } else { links });
        query.sql.push_str(after);
        query.sql.push_str(&order(selection.ordering, false));
        query
    }

    /// The products of the page, without the names that they refer to.
    fn part(&mut self, selection: &ListQuery, ids: &Ids, probe: i64) {
        let is_page = !matches!(selection.paging, Paging::Whole);
        // which product has a tag is found in indexes alone; only those of the page are fetched
        let in_two_steps = is_page && !ids.tags.is_empty();
        if in_two_steps {
            self.sql.push_str(&select(PRODUCT));
            self.sql.push_str("\n where p.id = any (array(\nselect id from (\n");
        }
        let columns = match selection.ordering.column {
            _ if !in_two_steps => PRODUCT.to_owned(),
            Column::Id => "p.id".to_owned(),
            other => format!("p.id, {}", column(other)),
        };
        let products = Source { selection, ids, columns: &columns };
        match &selection.paging {
            Paging::Whole => self.products(&products, None, false),
            Paging::Keyset { size, cursor } => {
                let size = self.param(size + probe, Type::INT8);
                self.keyset(&products, cursor.as_ref(), &format!("\n limit {size}"));
            }
            Paging::Numbered { page, size } => {
                self.products(&products, None, false);
                // a page beyond the end was refused before it came here
                let before = (page - 1).saturating_mul(*size);
                let (limit, offset) = (self.param(*size, Type::INT8), self.param(before, Type::INT8));
                for (word, param) in [("\n limit ", limit), (" offset ", offset)] {
                    self.sql.push_str(word);
                    self.sql.push_str(&param);
                }
            }
        }
        if in_two_steps {
            self.sql.push_str("\n) p))");
        }
    }

    /// Sends it; rows arrive as they are read.
    pub(crate) async fn send(&self, connection: &impl Queryable) -> Result<RowStream, DbError> {
        let client = connection.client();
        let params = self.params.iter().map(|(value, kind)| (&**value as &(dyn ToSql + Sync), kind.clone()));
        let rows = client.query_typed_raw(&self.sql, params).await;
        rows.map_err(|error| DbError::of(&PRODUCTS_PAGE, error))
    }

    /// The products from a cursor on. Where the order goes down while ids go up, "from there on" is no single piece of an
    /// index but two: the rest of the products beside the cursor, and all further down.
    fn keyset(&mut self, products: &Source<'_>, cursor: Option<&Cursor>, limit: &str) {
        let (ordering, backwards) = (products.selection.ordering, is_backwards(products.selection));
        let Some(cursor) = cursor else {
            self.products(products, None, backwards);
            return self.sql.push_str(limit);
        };
        let id = self.param(cursor.id, Type::INT8);
        let id_goes = if backwards { "<" } else { ">" };
        let value = match &cursor.value {
            Value::Id => {
                let goes = if ordering.descending == backwards { ">" } else { "<" };
                self.products(products, Some(&format!("p.id {goes} {id}")), backwards);
                return self.sql.push_str(limit);
            }
            Value::Name(name) => self.param(name.clone(), Type::TEXT),
            Value::Price(price) => format!("{}::numeric", self.param(price.clone(), Type::TEXT)),
            Value::CreatedAt(time) => self.param(*time, Type::TIMESTAMPTZ),
        };
        let column = column(ordering.column);
        if !ordering.descending {
            self.products(products, Some(&format!("({column}, p.id) {id_goes} ({value}, {id})")), backwards);
            return self.sql.push_str(limit);
        }
        let goes = if backwards { ">" } else { "<" };
        self.sql.push_str("select * from (\n(");
        self.products(products, Some(&format!("{column} = {value} and p.id {id_goes} {id}")), backwards);
        self.sql.push_str(limit);
        self.sql.push_str(")\nunion all\n(");
        self.products(products, Some(&format!("{column} {goes} {value}")), backwards);
        self.sql.push_str(limit);
        self.sql.push_str(")\n) p");
        self.sql.push_str(&order(ordering, backwards));
        self.sql.push_str(limit);
    }

    fn products(&mut self, products: &Source<'_>, from: Option<&str>, backwards: bool) {
        let Source { selection, ids, columns } = products;
        self.sql.push_str(&select(columns));
        let any = self.filter(selection, ids);
        if let Some(from) = from {
            self.sql.push_str(if any { "\n   and " } else { "\n where " });
            self.sql.push_str(from);
        }
        self.sql.push_str(&order(selection.ordering, backwards));
    }

    /// Every condition of the filter; whether there was any.
    fn filter(&mut self, selection: &ListQuery, ids: &Ids) -> bool {
        let filter = &selection.filter;
        let mut conditions = Vec::new();
        if ids.unknown_tag {
            conditions.push("false".to_owned());
        }
        match ids.categories[..] {
            _ if filter.categories.is_empty() => {}
            // of one, and only of one, an index gives the products in their order
            [category] => conditions.push(format!("p.category_id = {}", self.param(category, Type::INT8))),
            _ => conditions
                .push(format!("p.category_id = any ({})", self.param(ids.categories.clone(), Type::INT8_ARRAY))),
        }
        for tag in &ids.tags {
            let tag = self.param(*tag, Type::INT8);
            let link = "select from product_tags pt where pt.product_id = p.id and pt.tag_id";
            conditions.push(format!("exists ({link} = {tag})"));
        }
        for (bound, goes) in [(&filter.price_min, ">="), (&filter.price_max, "<=")] {
            if let Some(price) = bound {
                conditions.push(format!("p.price {goes} {}::numeric", self.param(price.clone(), Type::TEXT)));
            }
        }
        for (bound, goes) in [(filter.created_after, ">="), (filter.created_before, "<=")] {
            if let Some(time) = bound {
                conditions.push(format!("p.created_at {goes} {}", self.param::<Timestamp>(time, Type::TIMESTAMPTZ)));
            }
        }
        for word in &filter.words {
            let word = self.param(containing(word), Type::TEXT);
            // the expression of the index products_text_idx
            conditions.push(format!("lower(p.name || E'\\n' || p.description) like lower({word})"));
        }
        if !conditions.is_empty() {
            self.sql.push_str("\n where ");
            self.sql.push_str(&conditions.join("\n   and "));
        }
        !conditions.is_empty()
    }

    /// One more parameter, by its place.
    fn param<T: ToSql + Sync + Send + 'static>(&mut self, value: T, kind: Type) -> String {
        self.params.push((Box::new(value), kind));
        format!("${}", self.params.len())
    }
}

/// Whether a page holds all products between its first and its last id.
fn is_a_piece(selection: &ListQuery) -> bool {
    let is_keyset = matches!(selection.paging, Paging::Keyset { .. });
    is_keyset && selection.filter == Filter::default() && selection.ordering.column == Column::Id
}

fn select(columns: &str) -> String {
    format!("select {columns}\n  from products p")
}

/// Whether the page is read from its end: it ends at the cursor.
pub(crate) fn is_backwards(selection: &ListQuery) -> bool {
    matches!(&selection.paging, Paging::Keyset { cursor: Some(cursor), .. } if cursor.backwards)
}

/// The cursor beside a row of `products/page`.
pub(crate) fn cursor_at(row: &Row, ordering: Ordering, backwards: bool) -> Cursor {
    let value = match ordering.column {
        Column::Id => Value::Id,
        Column::Name => Value::Name(row.get(1)),
        Column::Price => Value::Price(row.get(4)),
        Column::CreatedAt => Value::CreatedAt(row.get(5)),
    };
    Cursor { backwards, id: row.get(0), value }
}

fn column(column: Column) -> &'static str {
    match column {
        Column::Id => "p.id",
        Column::Name => "p.name collate \"C\"",
        Column::Price => "p.price",
        Column::CreatedAt => "p.created_at",
    }
}

fn order(Ordering { column: by, descending }: Ordering, backwards: bool) -> String {
    let way = |down: bool| if down { " desc" } else { "" };
    let first = format!("\n order by {}{}", column(by), way(descending != backwards));
    if by == Column::Id { first } else { format!("{first}, p.id{}", way(backwards)) }
}

/// A pattern for texts in which this word occurs.
fn containing(word: &str) -> String {
    let mut pattern = String::with_capacity(word.len() + 2);
    pattern.push('%');
    for letter in word.chars() {
        if matches!(letter, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(letter);
    }
    pattern.push('%');
    pattern
}

fn around<'a>(text: &'a str, mark: &str) -> (&'a str, &'a str) {
    text.split_once(mark).unwrap_or_else(|| unreachable!("products/page.sql has the line {mark:?}"))
}
