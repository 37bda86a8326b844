//! How the statement of a page finds its rows.
//!
//! PostgreSQL estimates how many rows satisfy several conditions as if these were independent of each other and of the
//! order. Tags and categories are not: it reads a whole category in the order of the list when none of its products has
//! the tag, and joins all products of two tags when the page would be full after a few thousand rows. So the first rows of
//! the list are tested before the statement of such a page is built.

/// How the rows of a page are found. The result is the same, except that a prefix can be too short.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Strategy {
    /// As PostgreSQL plans it.
    #[default]
    Planned,
    /// In this number of rows, the first of the prefix list: one join with the tags instead of a lookup for each row.
    Prefix(i64),
    /// All matching rows are found before they are sorted.
    Gathered,
}
