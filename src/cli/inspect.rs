//! `check`, `routes` and `openapi`: what is there.

use std::{io, process::ExitCode};

use crate::{
    config::Config,
    docs,
    ops::check,
    routes::{self, RouteSummary},
};
use console::style;
use serde_json::{Value, json};

use super::output::{print, print_line};

/// Looks whether everything that the settings name is there and fits.
pub(crate) async fn check(config: &Config, as_json: bool) -> io::Result<ExitCode> {
    let findings = check::check(config).await;
    let is_well = findings.iter().all(|finding| finding.outcome.is_ok());
    if as_json {
        let findings = findings.iter().map(|finding| {
            let (ok, words) = match &finding.outcome {
                Ok(words) => (true, words),
                Err(words) => (false, words),
            };
            json!({"subject": finding.subject, "ok": ok, "words": words})
        });
        print_line(format!("{:#}", findings.collect::<Value>()))?;
    } else {
        for finding in &findings {
            match &finding.outcome {
                Ok(words) => print_line(format!("{} {}: {words}", style("ok  ").green(), finding.subject))?,
                Err(words) => print_line(format!("{} {}: {words}", style("FAIL").red().bold(), finding.subject))?,
            }
        }
    }
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints the route table.
pub(crate) fn print_routes(as_json: bool) -> io::Result<()> {
    let rows = routes::summary();
    if as_json {
        let rows = rows
            .iter()
            .map(|RouteSummary { method, path, access, .. }| json!({"method": method.as_str(), "path": path, "access": access}));
        return print(&format!("{:#}\n", rows.collect::<Value>()));
    }
    let rows = rows
        .iter()
        .map(|RouteSummary { method, path, access, .. }| format!("{:<7} {path:<24} {access}\n", method.as_str()));
    print(&rows.collect::<String>())
}

/// Prints the description of the API.
pub(crate) fn print_openapi() -> io::Result<()> {
    print(&format!("{:#}\n", docs::document()))
}
