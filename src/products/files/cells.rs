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
    /// A value that cannot be read; with the validation error.
    Unreadable(&'static str),
}

/// Returns whether a text consists of blanks: white space, no-break spaces and byte order marks.
pub(crate) fn is_blank(text: &str) -> bool {
    text.chars().all(is_blank_character)
}

/// Returns the text without blanks at its ends.
pub(crate) fn trim_blanks(text: &str) -> &str {
    text.trim_matches(is_blank_character)
}

fn is_blank_character(character: char) -> bool {
    character.is_whitespace() || character == '\u{feff}'
}

impl<'a> Cell<'a> {
    pub(crate) fn text(text: impl Into<Cow<'a, str>>) -> Self {
        Self::Text(text.into())
    }

    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Text(text) if text.is_empty())
    }

    /// Returns whether the cell is empty or holds blanks only.
    pub(crate) fn is_blank(&self) -> bool {
        matches!(self, Self::Text(text) if is_blank(text))
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
