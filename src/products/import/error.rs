//! The errors of a file that cannot be imported.

use std::{fmt::Display, io};

use crate::error::Error;

/// Longer messages are cut: they can contain text of the file.
const MAX_MESSAGE_CHARACTERS: usize = 400;

/// Returns a 400 for a file that cannot be imported. `message` is a sentence without its full stop.
pub(crate) fn import_error(message: impl Display) -> Error {
    let message: String = message.to_string().chars().take(MAX_MESSAGE_CHARACTERS).collect();
    Error::Malformed(format!("Import error - {message}."))
}

/// Returns a 400 for a read that failed: the data is damaged or exceeds a [`Limit`](super::cancel::Limit).
pub(crate) fn read_error(error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::FileTooLarge => import_error(error),
        _ => import_error(format!("The file cannot be read: {error}")),
    }
}
