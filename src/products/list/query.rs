//! Which products a request asks for: its query, checked and normalised. Two queries that ask for the same are one text.

use super::{
    cursor::Cursor,
    filter::{Filter, Ordering, scope_key},
    params::ParamParser,
};
use crate::{
    error::{Error, Result},
    http::Request,
};

/// What a request asks for.
#[derive(Debug, Clone, Default)]
pub(crate) struct ListQuery {
    /// Which products.
    pub(crate) filter: Filter,
    /// In which order.
    pub(crate) ordering: Ordering,
    /// Which part of them.
    pub(crate) paging: Paging,
}

/// Which part of the products in their order.
#[derive(Debug, Clone, Default)]
pub(crate) enum Paging {
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

const DEFAULT_SIZE: i64 = 100;
const MAX_SIZE: i64 = 1000;
const MAX_CATEGORIES: usize = 20;
/// Each is a join.
const MAX_TAGS: usize = 10;

impl ListQuery {
    /// Reads the query of a request; `more` are parameters that are not ours. All faults at once.
    pub(crate) fn of(request: &Request, more: &[&str]) -> Result<Self> {
        if !request.has_query() {
            return Ok(Self::default());
        }
        let mut reader = ParamParser::new(request, more);
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
        let paging = match (page, cursor, size) {
            (Some(page), _, size) => Paging::Numbered { page, size: size.unwrap_or(DEFAULT_SIZE) },
            (None, Some(text), size) => {
                let cursor = Cursor::decode(&text, &filter, ordering).ok_or(Error::InvalidCursor)?;
                Paging::Keyset { size: size.unwrap_or(DEFAULT_SIZE), cursor: Some(cursor) }
            }
            (None, None, Some(size)) => Paging::Keyset { size, cursor: None },
            (None, None, None) => Paging::Whole,
        };
        Ok(Self { filter, ordering, paging })
    }

    /// Whether it is the whole list, by id: what the list is without parameters.
    pub(crate) fn is_everything(&self) -> bool {
        matches!(self.paging, Paging::Whole) && self.filter == Filter::default() && self.ordering == Ordering::default()
    }

    /// The normalised query without the part about pages.
    pub(crate) fn scope_key(&self) -> String {
        scope_key(&self.filter, self.ordering)
    }

    /// The normalised query: what the cache knows this selection by.
    pub(crate) fn key(&self) -> String {
        let key = self.scope_key();
        match &self.paging {
            Paging::Whole => key,
            Paging::Keyset { size, cursor: None } => self.link(&[("page_size", &size.to_string())]),
            Paging::Keyset { size, cursor: Some(cursor) } => {
                self.link(&[("page_size", &size.to_string()), ("cursor", &cursor.encode(&self.filter, self.ordering))])
            }
            Paging::Numbered { page, size } => {
                self.link(&[("page_size", &size.to_string()), ("page", &page.to_string())])
            }
        }
    }

    /// The normalised query with other parameters about pages.
    pub(crate) fn link(&self, paging: &[(&str, &str)]) -> String {
        let mut query = form_urlencoded::Serializer::new(self.scope_key());
        query.extend_pairs(paging);
        query.finish()
    }
}
