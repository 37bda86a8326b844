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
    selection::{Column, Ordering, Paging, Selection},
};
use crate::db::{
    Failure, Statement,
    pool::Verbs,
    statements::{CATEGORIES_NAMED, PRODUCTS_PAGE, TAGS_NAMED},
};

/// A statement with its parameters.
#[derive(Default)]
pub(super) struct Query {
    sql: String,
    params: Vec<(Box<dyn ToSql + Sync + Send>, Type)>,
}

/// The ids behind the names of a selection. A tag that is not there is found by nothing.
#[derive(Debug, Default)]
pub(super) struct Ids {
    categories: Vec<i64>,
    tags: Vec<i64>,
    unknown_tag: bool,
}

impl Ids {
    /// Looks the names up, on a connection with a snapshot open.
    pub(super) async fn of(connection: &impl Verbs, selection: &Selection) -> Result<Self, Failure> {
        let named = async |statement: &'static Statement, names: &[String]| -> Result<Vec<i64>, Failure> {
            if names.is_empty() {
                return Ok(Vec::new());
            }
            let rows = connection.rows(statement, &[&names]).await?;
            Ok(rows.iter().map(|row| row.get(0)).collect())
        };
        let filter = &selection.filter;
        let (categories, tags) =
            try_join(named(&CATEGORIES_NAMED, &filter.categories), named(&TAGS_NAMED, &filter.tags)).await?;
        let unknown_tag = tags.len() < filter.tags.len();
        Ok(Self { categories, tags, unknown_tag })
    }
}

impl Query {
    /// How many products the filter lets through, whatever the page.
    pub(super) fn count(selection: &Selection, ids: &Ids) -> Self {
        let mut query = Self::default();
        query.sql.push_str("select count(*) from products p");
        query.filter(selection, ids);
        query
    }

    /// The products of a selection in their order, with the columns of `products/list`; of a page by keyset, up to `probe`
    /// more on its far side than were asked for.
    pub(super) fn page(selection: &Selection, ids: &Ids, probe: i64) -> Self {
        let (before, rest) = around(PRODUCTS_PAGE.sql, "-- page\n");
        let (_, after) = around(rest, "-- end of page\n");
        let (after, _) = around(after, "-- order\n");
        let (ordering, backwards) = (selection.ordering, is_backwards(selection));
        let mut query = Self::default();
        query.sql.push_str(before);
        match &selection.paging {
            Paging::Whole => query.products(selection, ids, None, backwards),
            Paging::Keyset { size, cursor } => {
                let size = query.param(size + probe, Type::INT8);
                query.keyset(selection, ids, cursor.as_ref(), &format!("\n limit {size}"));
            }
            Paging::Numbered { page, size } => {
                query.products(selection, ids, None, backwards);
                // a page beyond the end was refused before it came here
                let before = (page - 1).saturating_mul(*size);
                let (limit, offset) = (query.param(*size, Type::INT8), query.param(before, Type::INT8));
                for (word, param) in [("\n limit ", limit), (" offset ", offset)] {
                    query.sql.push_str(word);
                    query.sql.push_str(&param);
                }
            }
        }
        query.sql.push('\n');
        query.sql.push_str(after);
        query.sql.push_str(&order(ordering, false));
        query
    }

    /// Sends it; rows arrive as they are read.
    pub(super) async fn send(&self, connection: &impl Verbs) -> Result<RowStream, Failure> {
        let client = connection.client();
        let params = self.params.iter().map(|(value, kind)| (&**value as &(dyn ToSql + Sync), kind.clone()));
        let rows = client.query_typed_raw(&self.sql, params).await;
        rows.map_err(|error| Failure::of(&PRODUCTS_PAGE, error))
    }

    /// The products from a cursor on. Where the order goes down while ids go up, "from there on" is no single piece of an
    /// index but two: the rest of the products beside the cursor, and all further down.
    fn keyset(&mut self, selection: &Selection, ids: &Ids, cursor: Option<&Cursor>, limit: &str) {
        let (ordering, backwards) = (selection.ordering, is_backwards(selection));
        let Some(cursor) = cursor else {
            self.products(selection, ids, None, backwards);
            return self.sql.push_str(limit);
        };
        let id = self.param(cursor.id, Type::INT8);
        let id_goes = if backwards { "<" } else { ">" };
        let value = match &cursor.value {
            Value::Id => {
                let goes = if ordering.descending == backwards { ">" } else { "<" };
                self.products(selection, ids, Some(&format!("p.id {goes} {id}")), backwards);
                return self.sql.push_str(limit);
            }
            Value::Name(name) => self.param(name.clone(), Type::TEXT),
            Value::Price(price) => format!("{}::numeric", self.param(price.clone(), Type::TEXT)),
            Value::CreatedAt(time) => self.param(*time, Type::TIMESTAMPTZ),
        };
        let column = column(ordering.column);
        if !ordering.descending {
            self.products(selection, ids, Some(&format!("({column}, p.id) {id_goes} ({value}, {id})")), backwards);
            return self.sql.push_str(limit);
        }
        let goes = if backwards { ">" } else { "<" };
        self.sql.push_str("select * from (\n(");
        self.products(selection, ids, Some(&format!("{column} = {value} and p.id {id_goes} {id}")), backwards);
        self.sql.push_str(limit);
        self.sql.push_str(")\nunion all\n(");
        self.products(selection, ids, Some(&format!("{column} {goes} {value}")), backwards);
        self.sql.push_str(limit);
        self.sql.push_str(")\n) p");
        self.sql.push_str(&order(ordering, backwards));
        self.sql.push_str(limit);
    }

    fn products(&mut self, selection: &Selection, ids: &Ids, from: Option<&str>, backwards: bool) {
        self.sql
            .push_str("select p.id, p.category_id, p.name, p.description, p.price, p.created_at\n  from products p");
        let any = self.filter(selection, ids);
        if let Some(from) = from {
            self.sql.push_str(if any { "\n   and " } else { "\n where " });
            self.sql.push_str(from);
        }
        self.sql.push_str(&order(selection.ordering, backwards));
    }

    /// Every condition of the filter; whether there was any.
    fn filter(&mut self, selection: &Selection, ids: &Ids) -> bool {
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

/// Whether the page is read from its end: it ends at the cursor.
pub(super) fn is_backwards(selection: &Selection) -> bool {
    matches!(&selection.paging, Paging::Keyset { cursor: Some(cursor), .. } if cursor.backwards)
}

/// The cursor beside a row of `products/page`.
pub(super) fn cursor_at(row: &Row, ordering: Ordering, backwards: bool) -> Cursor {
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
