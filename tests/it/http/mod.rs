//! HTTP independent of the API's resources: requests and responses, connections and their limits.

mod budgets;
mod connections;
mod cors;
mod public_url;
mod requests;
mod rules;
mod uploads;

use serde_json::json;

/// Asserts that a raw response has the headers of all error responses, a matching length, and closes the connection.
fn assert_error_response(response: &str, status: &str, detail: &str) {
    let (head, body) = response.split_once("\r\n\r\n").unwrap_or((response, ""));
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{response}");
    assert_eq!(body, json!({ "detail": detail }).to_string(), "{response}");
    let length = format!("content-length: {}", body.len());
    let id = head.lines().find_map(|line| line.strip_prefix("x-request-id: ")).expect(response);
    assert!(id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{response}");
    for line in [
        &length,
        "content-type: application/json",
        "x-content-type-options: nosniff",
        "x-frame-options: DENY",
        "referrer-policy: same-origin",
        "connection: close",
    ] {
        assert_eq!(head.lines().filter(|found| found == &line).count(), 1, "{line}: {response}");
    }
}
