//! Which products a request asks for: its query, checked and normalised. Two queries that ask for the same are one text.

use jiff::Timestamp;

use super::{cursor::Cursor, parameters::Reader};
use crate::{
    error::{Error, Result},
    http::Request,
    timestamps::iso8601,
};

/// What a request asks for.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Which products.
    pub filter: Filter,
    /// In which order.
    pub ordering: Ordering,
    /// Which part of them.
    pub paging: Paging,
}

/// Conditions that all hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// In any of these categories, by name; empty: in whatever category.
    pub categories: Vec<String>,
    /// With all of these tags, by name.
    pub tags: Vec<String>,
    /// At least so dear; a decimal with two places.
    pub price_min: Option<String>,
    /// At most so dear; a decimal with two places.
    pub price_max: Option<String>,
    /// Not older.
    pub created_after: Option<Timestamp>,
    /// Not younger.
    pub created_before: Option<Timestamp>,
    /// Each occurs in name or description, without regard to case.
    pub words: Vec<String>,
}

/// A column and a direction; ties go by id, always upwards.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ordering {
    /// What is compared first.
    pub column: Column,
    /// The largest first.
    pub descending: bool,
}

/// What products can be ordered by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Column {
    /// The id.
    #[default]
    Id,
    /// The name, by its bytes.
    Name,
    /// The price.
    Price,
    /// The time of creation.
    CreatedAt,
}

/// Which part of the products in their order.
#[derive(Debug, Clone, Default)]
pub enum Paging {
    /// All.
    #[default]
    Whole,
    /// So many from a place on.
    Keyset {
        /// Products on the page.
        size: i64,
        /// The place; without it, the beginning.
        cursor: Option<Cursor>,
    },
    /// The page of a number.
    Numbered {
        /// From 1.
        page: i64,
        /// Products on the page.
        size: i64,
    },
}

/// What the parameter `ordering` may say.
pub(super) const ORDERINGS: [(&str, Column); 4] =
    [("id", Column::Id), ("name", Column::Name), ("price", Column::Price), ("created_at", Column::CreatedAt)];
const DEFAULT_SIZE: i64 = 100;
const MAX_SIZE: i64 = 1000;
const MAX_CATEGORIES: usize = 20;
/// Each is a join.
const MAX_TAGS: usize = 10;

impl Selection {
    /// Reads the query of a request; `more` are parameters that are not ours. All faults at once.
    pub fn of(request: &Request, more: &[&str]) -> Result<Self> {
        if !request.has_query() {
            return Ok(Self::default());
        }
        let mut reader = Reader::new(request, more);
        let filter = Filter {
            categories: reader.names("category", MAX_CATEGORIES),
            tags: reader.names("tag", MAX_TAGS),
            price_min: reader.price("price_min"),
            price_max: reader.price("price_max"),
            created_after: reader.time("created_after", false),
            created_before: reader.time("created_before", true),
            words: reader.words("search"),
        };
        let ordering = reader.ordering("ordering");
        let size = reader.integer("page_size", MAX_SIZE);
        let page = reader.integer("page", i64::MAX);
        let cursor = reader.single("cursor");
        if page.is_some() && cursor.is_some() {
            reader.fault("cursor", "May not be combined with \"page\".");
        }
        reader.errors.into_result()?;
        let mut selection = Self { filter, ordering, paging: Paging::Whole };
        selection.paging = match (page, cursor, size) {
            (Some(page), _, size) => Paging::Numbered { page, size: size.unwrap_or(DEFAULT_SIZE) },
            (None, Some(text), size) => {
                let cursor = Cursor::decode(&text, &selection).ok_or(Error::InvalidCursor)?;
                Paging::Keyset { size: size.unwrap_or(DEFAULT_SIZE), cursor: Some(cursor) }
            }
            (None, None, Some(size)) => Paging::Keyset { size, cursor: None },
            (None, None, None) => Paging::Whole,
        };
        Ok(selection)
    }

    /// Whether it is the whole list, by id: what the list is without parameters.
    pub fn is_everything(&self) -> bool {
        matches!(self.paging, Paging::Whole) && self.filter == Filter::default() && self.ordering == Ordering::default()
    }

    /// The normalised query without the part about pages.
    pub fn without_paging(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(self.filter.key());
        if self.ordering != Ordering::default() {
            query.append_pair("ordering", &self.ordering.name());
        }
        query.finish()
    }

    /// The normalised query: what the cache knows this selection by.
    pub fn key(&self) -> String {
        let key = self.without_paging();
        match &self.paging {
            Paging::Whole => key,
            Paging::Keyset { size, cursor: None } => self.link(&[("page_size", &size.to_string())]),
            Paging::Keyset { size, cursor: Some(cursor) } => {
                self.link(&[("page_size", &size.to_string()), ("cursor", &cursor.encode(self))])
            }
            Paging::Numbered { page, size } => {
                self.link(&[("page_size", &size.to_string()), ("page", &page.to_string())])
            }
        }
    }

    /// The normalised query with other parameters about pages.
    pub fn link(&self, paging: &[(&str, &str)]) -> String {
        let mut query = form_urlencoded::Serializer::new(self.without_paging());
        query.extend_pairs(paging);
        query.finish()
    }
}

impl Filter {
    /// The normalised query of the filter alone.
    pub fn key(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(self.categories.iter().map(|name| ("category", name)));
        query.extend_pairs(self.tags.iter().map(|name| ("tag", name)));
        query.extend_pairs(self.price_min.iter().map(|price| ("price_min", price)));
        query.extend_pairs(self.price_max.iter().map(|price| ("price_max", price)));
        query.extend_pairs(self.created_after.iter().map(|time| ("created_after", iso8601(*time))));
        query.extend_pairs(self.created_before.iter().map(|time| ("created_before", iso8601(*time))));
        if !self.words.is_empty() {
            query.append_pair("search", &self.words.join(" "));
        }
        query.finish()
    }
}

impl Ordering {
    /// As it stands in a query.
    pub fn name(self) -> String {
        let name = ORDERINGS.iter().find(|(_, column)| *column == self.column).map_or("id", |(name, _)| name);
        if self.descending { format!("-{name}") } else { name.to_owned() }
    }
}
