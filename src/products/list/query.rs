//! The parsed and normalised query of a list request. Equivalent queries have the same normalised text.

use super::{
    cursor::Cursor,
    filter::{Filter, Ordering, scope_key},
    params::ParamParser,
};
use crate::{
    error::{Error, Result},
    http::Request,
};

/// The products that a request selects, their order, and the page.
#[derive(Debug, Clone, Default)]
pub(crate) struct ListQuery {
    pub(crate) filter: Filter,
    pub(crate) ordering: Ordering,
    pub(crate) paging: Paging,
}

/// The part of the ordered list that a request selects.
#[derive(Debug, Clone, Default)]
pub(crate) enum Paging {
    /// All products.
    #[default]
    Unpaged,
    /// A page relative to a cursor; without a cursor, the first page.
    Keyset { size: i64, cursor: Option<Cursor> },
    /// A page by its number, from 1.
    Numbered { page: i64, size: i64 },
}

const DEFAULT_PAGE_SIZE: i64 = 100;
const MAX_PAGE_SIZE: i64 = 1000;
const MAX_CATEGORIES: usize = 20;
/// Each tag is a join.
const MAX_TAGS: usize = 10;

impl ListQuery {
    /// Parses the query of a request. `other_params` names the parameters that the caller parses itself.
    ///
    /// All validation errors are returned together, keyed by parameter.
    pub(crate) fn parse(request: &Request, other_params: &[&str]) -> Result<Self> {
        if !request.has_query() {
            return Ok(Self::default());
        }
        let mut params = ParamParser::new(request, other_params);
        let filter = Filter {
            categories: params.names("category", MAX_CATEGORIES),
            tags: params.names("tag", MAX_TAGS),
            price_min: params.price("price_min"),
            price_max: params.price("price_max"),
            created_after: params.timestamp("created_after", false),
            created_before: params.timestamp("created_before", true),
            terms: params.search_terms("search"),
        };
        let ordering = params.ordering("ordering");
        let size = params.integer("page_size", MAX_PAGE_SIZE);
        let page = params.integer("page", i64::MAX);
        let cursor = params.single("cursor");
        if page.is_some() && cursor.is_some() {
            params.add_error("cursor", "May not be combined with \"page\".");
        }
        params.errors.into_result()?;
        let paging = match (page, cursor, size) {
            (Some(page), _, size) => Paging::Numbered { page, size: size.unwrap_or(DEFAULT_PAGE_SIZE) },
            (None, Some(text), size) => {
                let cursor = Cursor::decode(&text, &filter, ordering).ok_or(Error::InvalidCursor)?;
                Paging::Keyset { size: size.unwrap_or(DEFAULT_PAGE_SIZE), cursor: Some(cursor) }
            }
            (None, None, Some(size)) => Paging::Keyset { size, cursor: None },
            (None, None, None) => Paging::Unpaged,
        };
        Ok(Self { filter, ordering, paging })
    }

    /// Whether the query selects the full list, ordered by id, as a request without parameters does.
    pub(crate) fn is_unfiltered(&self) -> bool {
        let is_unpaged = matches!(self.paging, Paging::Unpaged);
        is_unpaged && self.filter == Filter::default() && self.ordering == Ordering::default()
    }

    /// Returns the normalised query string without paging.
    pub(crate) fn scope_key(&self) -> String {
        scope_key(&self.filter, self.ordering)
    }

    /// Returns the normalised query string: the cache key of this query.
    pub(crate) fn key(&self) -> String {
        match &self.paging {
            Paging::Unpaged => self.scope_key(),
            Paging::Keyset { size, cursor: None } => self.key_with(&[("page_size", &size.to_string())]),
            Paging::Keyset { size, cursor: Some(cursor) } => {
                let cursor = cursor.encode(&self.filter, self.ordering);
                self.key_with(&[("page_size", &size.to_string()), ("cursor", &cursor)])
            }
            Paging::Numbered { page, size } => {
                self.key_with(&[("page_size", &size.to_string()), ("page", &page.to_string())])
            }
        }
    }

    /// Returns the normalised query string with these paging parameters instead of its own.
    pub(crate) fn key_with(&self, paging_params: &[(&str, &str)]) -> String {
        let mut query = form_urlencoded::Serializer::new(self.scope_key());
        query.extend_pairs(paging_params);
        query.finish()
    }
}
