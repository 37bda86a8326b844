//! Standard output.

use std::io::{self, Write};

/// Prints to standard output. A closed pipe is not an error: its reader has read enough.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome,
    }
}

pub(crate) fn print_line(text: impl std::fmt::Display) -> io::Result<()> {
    print(&format!("{text}\n"))
}
