//! The parsed and normalised query of a list request. Equivalent queries have the same normalised text.

use super::{
    cursor::Cursor,
    filter::{Column, Filter, Ordering, scope_key},
    params::ParamParser,
};
use crate::{
    error::{Error, Result},
    http::Request,
    products::fields::Fields,
};

/// The products that a request selects, their order, their fields, and the page.
#[derive(Debug, Clone, Default)]
pub(crate) struct ListQuery {
    pub(crate) filter: Filter,
    pub(crate) ordering: Ordering,
    pub(crate) fields: Fields,
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
/// As many as the products of the largest page.
const MAX_IDS: usize = 1000;
const MAX_CATEGORIES: usize = 20;
/// Each tag is a join.
const MAX_TAGS: usize = 10;

impl ListQuery {
    /// Parses the query of a list request.
    pub(crate) fn parse(request: &Request) -> Result<Self> {
        if request.has_query() {
            Self::from_params(ParamParser::new(request.query(), &[]))
        } else {
            Ok(Self::default())
        }
    }

    /// Parses the parameters of the list.
    ///
    /// All validation errors are returned together, keyed by parameter, with those that `params` has already.
    pub(crate) fn from_params(mut params: ParamParser) -> Result<Self> {
        let filter = Filter {
            ids: params.ids("id", MAX_IDS),
            categories: params.names("category", MAX_CATEGORIES),
            tags: params.names("tag", MAX_TAGS),
            price_min: params.price("price_min"),
            price_max: params.price("price_max"),
            created_after: params.timestamp("created_after", false),
            created_before: params.timestamp("created_before", true),
            terms: params.search_terms("search"),
        };
        let ordering = params.ordering("ordering");
        let fields = params.fields("fields");
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
        Ok(Self { filter, ordering, fields, paging })
    }

    /// Whether the query selects all products, ordered by id, with all fields or some.
    pub(crate) fn is_unfiltered(&self) -> bool {
        let is_unpaged = matches!(self.paging, Paging::Unpaged);
        is_unpaged && self.filter == Filter::default() && self.ordering == Ordering::default()
    }

    /// Whether the query is a keyset page of products with several tags, or with tags in one category, that has no other
    /// condition than bounds on the column of its order, and is not ordered by id: no index has the tags in that order.
    ///
    /// In the order of creation, which is about that of the ids, looking up one tag of many products is cheap.
    pub(crate) fn is_tag_join(&self) -> bool {
        let Filter { ids, categories, tags, price_min, price_max, created_after, created_before, terms } = &self.filter;
        let has_price = price_min.is_some() || price_max.is_some();
        let has_created_at = created_after.is_some() || created_before.is_some();
        let has_other_bounds = match self.ordering.column {
            Column::Id => return false,
            Column::Name => has_price || has_created_at,
            Column::Price => has_created_at,
            Column::CreatedAt => has_price || tags.len() == 1,
        };
        matches!(self.paging, Paging::Keyset { .. })
            && !tags.is_empty()
            && categories.len() <= 1
            && categories.len() + tags.len() > 1
            && ids.is_empty()
            && terms.is_empty()
            && !has_other_bounds
    }

    /// Returns the normalised query string: the cache key of this query. It is empty for the list that a request without
    /// parameters selects.
    pub(crate) fn key(&self) -> String {
        match &self.paging {
            Paging::Unpaged => self.key_with(&[]),
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
        let mut query = form_urlencoded::Serializer::new(scope_key(&self.filter, self.ordering));
        if self.fields != Fields::ALL {
            query.append_pair("fields", &self.fields.param_value());
        }
        query.extend_pairs(paging_params);
        query.finish()
    }
}
