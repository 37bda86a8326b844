//! `check`, `routes` and `openapi`.

use std::{io, process::ExitCode};

use console::style;
use serde_json::{Value, json};

use super::output::{print, print_line};
use crate::{config::Config, http::router::RouteSummary, ops::check, routes};

/// Checks the services and directories that the settings name, and prints the findings.
pub(crate) async fn check(config: &Config, as_json: bool) -> io::Result<ExitCode> {
    let findings = check::check(config).await;
    let all_ok = findings.iter().all(|finding| finding.outcome.is_ok());
    if as_json {
        let findings = findings.iter().map(|finding| {
            let (Ok(message) | Err(message)) = &finding.outcome;
            json!({"subject": finding.subject, "ok": finding.outcome.is_ok(), "message": message})
        });
        print_line(format!("{:#}", findings.collect::<Value>()))?;
    } else {
        for finding in &findings {
            let (status, message) = match &finding.outcome {
                Ok(message) => (style("ok  ").green(), message),
                Err(message) => (style("FAIL").red().bold(), message),
            };
            print_line(format!("{status} {}: {message}", finding.subject))?;
        }
    }
    Ok(if all_ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints the route table.
pub(crate) fn print_routes(as_json: bool) -> io::Result<()> {
    let routes = routes::summary();
    if as_json {
        let routes = routes.iter().map(|RouteSummary { method, path, access, .. }| {
            json!({"method": method.as_str(), "path": path, "access": access})
        });
        return print_line(format!("{:#}", routes.collect::<Value>()));
    }
    let lines = routes
        .iter()
        .map(|RouteSummary { method, path, access, .. }| format!("{:<7} {path:<24} {access}\n", method.as_str()));
    print(&lines.collect::<String>())
}

/// Prints openapi.json.
pub(crate) fn print_openapi() -> io::Result<()> {
    print_line(format!("{:#}", routes::openapi_document()))
}
