//! The parameters of the change feed.

use std::time::Duration;

use hyper::header::HeaderName;

use crate::{
    error::{Error, Result},
    http::Request,
    products::list::params::ParamParser,
};

pub(super) const DEFAULT_LIMIT: i64 = 1000;
const MAX_LIMIT: i64 = 10_000;
/// The longest time that a request may wait for changes.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(60);
const PREFER: HeaderName = HeaderName::from_static("prefer");
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The query of `changes/`.
#[derive(Debug)]
pub(super) struct ChangesQuery {
    /// The token as sent.
    pub(super) since: String,
    /// Changed and deleted products per page.
    pub(super) limit: i64,
}

impl ChangesQuery {
    /// Parses the query. All validation errors are returned together, keyed by parameter.
    pub(super) fn parse(request: &Request) -> Result<Self> {
        let mut params = ParamParser::of_names(request.query(), &["since", "limit"]);
        let (since, limit) = (params.single("since"), params.integer("limit", MAX_LIMIT));
        if since.is_none() && !params.errors.has("since") {
            params.add_error("since", "This field is required.");
        }
        params.errors.into_result()?;
        let since = since.ok_or_else(|| Error::internal("a missing parameter is reported above"))?;
        Ok(Self { since, limit: limit.unwrap_or(DEFAULT_LIMIT) })
    }
}

/// Returns the token from which an event stream continues, as sent: that of the last event that the client received or,
/// on its first connection, the parameter.
pub(super) fn continued_token(request: &Request) -> Result<Option<String>> {
    let mut params = ParamParser::of_names(request.query(), &["since"]);
    let since = params.single("since");
    params.errors.into_result()?;
    let last_event = request.headers().get(LAST_EVENT_ID).map(|id| String::from_utf8_lossy(id.as_bytes()).into_owned());
    Ok(last_event.filter(|id| !id.is_empty()).or(since))
}

/// Returns the number of seconds for which the client prefers to wait (RFC 7240, 4.3), at most [`MAX_WAIT`]. The first
/// `wait` counts; one that is malformed is ignored.
pub(super) fn preferred_wait(request: &Request) -> Option<u64> {
    wait_in(request.headers().get_all(PREFER).iter().filter_map(|value| value.to_str().ok()))
}

fn wait_in<'a>(values: impl Iterator<Item = &'a str>) -> Option<u64> {
    let preferences = values.flat_map(preferences).filter_map(|preference| {
        // what follows are parameters of the preference
        let preference = preference.split(';').next()?;
        Some(preference.split_once('=').unwrap_or((preference, "")))
    });
    let mut waits = preferences.filter(|(name, _)| name.trim().eq_ignore_ascii_case("wait"));
    parse_seconds(waits.next()?.1.trim())
}

fn parse_seconds(value: &str) -> Option<u64> {
    let digits = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    // digits only, so a parse error is an overflow
    is_number.then(|| digits.parse().unwrap_or(u64::MAX).min(MAX_WAIT.as_secs()))
}

/// Splits a list at the commas that no quoted string contains.
fn preferences(list: &str) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    list.split(move |letter| {
        let is_separator = letter == ',' && !is_quoted;
        is_quoted ^= letter == '"' && !is_escaped;
        is_escaped = letter == '\\' && is_quoted && !is_escaped;
        is_separator
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_is_read_as_the_standard_says() {
        for (list, seconds) in [
            ("wait=10", Some(10)),
            ("Wait = \"5\" ; x=1", Some(5)),
            ("respond-async, wait=0", Some(0)),
            ("foo=\"a, wait=7\", wait=9", Some(9)),
            ("foo=\"a\\\", wait=7\", wait=9", Some(9)),
            ("wait=61", Some(60)),
            ("wait=99999999999999999999999", Some(60)),
            ("wait=3, wait=4", Some(3)),
            ("wait=x, wait=4", None),
            ("wait", None),
            ("wait=", None),
            ("wait=-1", None),
            ("wait=1.5", None),
            ("waiting=5", None),
            ("", None),
        ] {
            assert_eq!(wait_in([list].into_iter()), seconds, "{list}");
        }
    }
}
