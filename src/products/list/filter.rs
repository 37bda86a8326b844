//! The filter and the ordering of a product list, and their normalised text.

use jiff::Timestamp;

use super::trigrams::has_trigram;
use crate::timestamps::iso8601;

/// Conditions on products, combined with AND.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    /// Ids, distinct and sorted; a product has any of them. Empty: no condition.
    pub(crate) ids: Vec<i64>,
    /// Names of categories, as given; a product is in any of them. Empty: no condition.
    pub(crate) categories: Vec<String>,
    /// Names of tags, as given; a product has all of them.
    pub(crate) tags: Vec<String>,
    /// Inclusive; a decimal with two places.
    pub(crate) price_min: Option<String>,
    /// Inclusive; a decimal with two places.
    pub(crate) price_max: Option<String>,
    /// Inclusive.
    pub(crate) created_after: Option<Timestamp>,
    /// Inclusive.
    pub(crate) created_before: Option<Timestamp>,
    /// Search terms; each occurs in the name or the description, ignoring case.
    pub(crate) terms: Vec<String>,
}

/// A column and a direction. Ties are ordered by ascending id.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ordering {
    pub(crate) column: Column,
    pub(crate) descending: bool,
}

/// A column by which products can be ordered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Column {
    #[default]
    Id,
    /// In byte order (C collation).
    Name,
    Price,
    CreatedAt,
}

/// The columns by their names in the parameter `ordering`.
pub(crate) const ORDERING_COLUMNS: [(&str, Column); 4] =
    [("id", Column::Id), ("name", Column::Name), ("price", Column::Price), ("created_at", Column::CreatedAt)];

impl Filter {
    /// Whether the filter has search terms, and no index finds any of them.
    pub(crate) fn is_search_without_index(&self) -> bool {
        !self.terms.is_empty() && !self.terms.iter().any(|term| has_trigram(term))
    }

    /// Returns the normalised query string of the filter alone.
    pub(crate) fn key(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(self.ids.iter().map(|id| ("id", id.to_string())));
        query.extend_pairs(self.categories.iter().map(|name| ("category", name)));
        query.extend_pairs(self.tags.iter().map(|name| ("tag", name)));
        query.extend_pairs(self.price_min.iter().map(|price| ("price_min", price)));
        query.extend_pairs(self.price_max.iter().map(|price| ("price_max", price)));
        query.extend_pairs(self.created_after.iter().map(|time| ("created_after", iso8601(*time))));
        query.extend_pairs(self.created_before.iter().map(|time| ("created_before", iso8601(*time))));
        if !self.terms.is_empty() {
            query.append_pair("search", &self.terms.join(" "));
        }
        query.finish()
    }
}

impl Ordering {
    /// Returns the value of the parameter `ordering`.
    pub(crate) fn param_value(self) -> String {
        let name = ORDERING_COLUMNS.iter().find(|(_, column)| *column == self.column).map_or("id", |(name, _)| name);
        if self.descending { format!("-{name}") } else { name.to_owned() }
    }
}

/// Returns the normalised query string of a filter and an ordering, without paging. It identifies the list that a page
/// belongs to.
pub(crate) fn scope_key(filter: &Filter, ordering: Ordering) -> String {
    let mut query = form_urlencoded::Serializer::new(filter.key());
    if ordering != Ordering::default() {
        query.append_pair("ordering", &ordering.param_value());
    }
    query.finish()
}
