//! One cell of a table.

use std::borrow::Cow;

/// What a cell holds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cell<'a> {
    /// A text; the empty one is a cell with nothing in it.
    Text(Cow<'a, str>),
    /// A number.
    Number(f64),
    /// Days since 1899-12-30, UTC.
    Date(f64),
    /// What no column takes: a truth value, an error.
    Other,
}

impl<'a> Cell<'a> {
    /// A text.
    pub(crate) fn text(text: impl Into<Cow<'a, str>>) -> Self {
        Self::Text(text.into())
    }

    /// Whether there is nothing in it.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Text(text) if text.is_empty())
    }

    /// Bytes of a text.
    pub(crate) fn bytes(&self) -> usize {
        if let Self::Text(text) = self { text.len() } else { 0 }
    }

    /// Whether both hold the same; a date is a number that looks different.
    pub(crate) fn same(&self, other: &Cell<'_>) -> bool {
        match (self, other) {
            (Self::Text(one), Cell::Text(other)) => one == other,
            (Self::Number(one) | Self::Date(one), Cell::Number(other) | Cell::Date(other)) => one == other,
            _ => false,
        }
    }
}
