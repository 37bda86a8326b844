//! Which products a list shows, and in which order.

use jiff::Timestamp;

use crate::timestamps::iso8601;

/// Conditions that all hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    /// In any of these categories, by name; empty: in whatever category.
    pub(crate) categories: Vec<String>,
    /// With all of these tags, by name.
    pub(crate) tags: Vec<String>,
    /// At least so dear; a decimal with two places.
    pub(crate) price_min: Option<String>,
    /// At most so dear; a decimal with two places.
    pub(crate) price_max: Option<String>,
    /// Not older.
    pub(crate) created_after: Option<Timestamp>,
    /// Not younger.
    pub(crate) created_before: Option<Timestamp>,
    /// Each occurs in name or description, without regard to case.
    pub(crate) words: Vec<String>,
}

/// A column and a direction; ties go by id, always upwards.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ordering {
    /// What is compared first.
    pub(crate) column: Column,
    /// The largest first.
    pub(crate) descending: bool,
}

/// What products can be ordered by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Column {
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

/// What the parameter `ordering` may say.
pub(crate) const ORDERINGS: [(&str, Column); 4] =
    [("id", Column::Id), ("name", Column::Name), ("price", Column::Price), ("created_at", Column::CreatedAt)];

impl Filter {
    /// The normalised query of the filter alone.
    pub(crate) fn key(&self) -> String {
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
    pub(crate) fn name(self) -> String {
        let name = ORDERINGS.iter().find(|(_, column)| *column == self.column).map_or("id", |(name, _)| name);
        if self.descending { format!("-{name}") } else { name.to_owned() }
    }
}

/// Returns the normalised query of a filter and an ordering: the list that a page is a part of.
pub(crate) fn scope_key(filter: &Filter, ordering: Ordering) -> String {
    let mut query = form_urlencoded::Serializer::new(filter.key());
    if ordering != Ordering::default() {
        query.append_pair("ordering", &ordering.name());
    }
    query.finish()
}
