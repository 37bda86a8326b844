//! `check` and `routes`: what is there.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use testshop::{config::Config, ops::check, routes};

/// Looks whether everything that the settings name is there and fits.
pub async fn check(config: &Config) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for finding in check::check(config).await {
        let (mark, words) = match &finding.outcome {
            Ok(words) => ("ok  ", words),
            Err(words) => {
                code = ExitCode::FAILURE;
                ("FAIL", words)
            }
        };
        println!("{mark} {}: {words}", finding.subject);
    }
    code
}

/// Prints the route table.
pub fn print_routes() -> io::Result<()> {
    let mut out = io::stdout().lock();
    for (method, path, access) in routes::summary() {
        match writeln!(out, "{:<7} {path:<24} {access}", method.as_str()) {
            // whoever reads has seen enough
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
            outcome => outcome?,
        }
    }
    Ok(())
}
