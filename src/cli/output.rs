//! Standard output.

use std::io::{self, Write};

/// Prints to standard output. A reader that has seen enough and left is no failure.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome,
    }
}

/// The same with the end of a line.
pub(crate) fn print_line(text: impl std::fmt::Display) -> io::Result<()> {
    print(&format!("{text}\n"))
}
