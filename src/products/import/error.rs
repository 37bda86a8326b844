//! The error of a file that cannot be imported.

use crate::error::Error;

/// Letters that are told of why a file is none, and of a title that nobody knows.
const MAX_WORDS: usize = 300;

/// What the client is told of a file that is none.
pub(crate) fn malformed(words: impl std::fmt::Display) -> Error {
    let words: String = words.to_string().chars().take(MAX_WORDS).collect();
    Error::Malformed(format!("Import error - {words}."))
}
