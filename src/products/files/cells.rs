//! The typed cell that export and import share.

use std::borrow::Cow;

/// The value of one cell.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cell<'a> {
    /// The empty text stands for an empty cell.
    Text(Cow<'a, str>),
    Number(f64),
    /// Days since 1899-12-30 in UTC, the serial date of spreadsheets.
    Date(f64),
    /// A value that no column accepts: a boolean, an error, a formula without a stored result.
    Unsupported,
}

impl<'a> Cell<'a> {
    pub(crate) fn text(text: impl Into<Cow<'a, str>>) -> Self {
        Self::Text(text.into())
    }

    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Text(text) if text.is_empty())
    }

    /// Returns the length of the text in bytes, and 0 for other values.
    pub(crate) fn text_bytes(&self) -> usize {
        if let Self::Text(text) = self { text.len() } else { 0 }
    }

    /// Returns whether both cells hold the same value. A date equals the number that it is stored as.
    pub(crate) fn equals(&self, other: &Cell<'_>) -> bool {
        match (self, other) {
            (Self::Text(left), Cell::Text(right)) => left == right,
            (Self::Number(left) | Self::Date(left), Cell::Number(right) | Cell::Date(right)) => left == right,
            _ => false,
        }
    }
}
