//! Timestamps in Django REST framework's text form, in the range that the database stores; durations in milliseconds.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};

/// The validation error for text that [`parse`] rejects.
pub(crate) const WRONG_FORMAT: &str = "Datetime has wrong format. Use ISO 8601, like 2023-08-08T12:00:00Z.";

/// The length of a date such as `2023-08-08`.
pub(crate) const DATE_BYTES: usize = 10;
/// 0001-01-01T00:00:00Z
const FIRST_SECOND: i64 = -62_135_596_800;
/// 9999-12-30T00:00:00Z, exclusive.
const END_SECOND: i64 = 253_402_128_000;

/// Returns text such as `2023-08-08T12:00:00Z`, with six fractional digits unless they are zero.
pub(crate) fn iso8601(timestamp: Timestamp) -> String {
    let precision = if timestamp.subsec_nanosecond() == 0 { 0 } else { 6 };
    format!("{timestamp:.precision$}")
}

/// Parses a timestamp with an offset, or a date, which stands for midnight UTC. Truncates to microseconds, the
/// precision of PostgreSQL.
pub(crate) fn parse(text: &str) -> Option<Timestamp> {
    check_range(parse_any_year(text)?)
}

/// Like [`parse`], but also returns timestamps outside the range of the columns.
pub(crate) fn parse_any_year(text: &str) -> Option<Timestamp> {
    let timestamp = text.parse::<Timestamp>().ok().or_else(|| {
        let midnight = text.parse::<Date>().ok().filter(|_| text.len() == DATE_BYTES)?.to_zoned(TimeZone::UTC).ok()?;
        Some(midnight.timestamp())
    })?;
    Timestamp::from_microsecond(timestamp.as_microsecond()).ok()
}

/// Like [`parse`], for the bound of a range: the last two days of 9999, which no column holds, are accepted, too. They
/// stand for one moment after all others. With `end_of_day`, a date stands for its last microsecond.
pub(crate) fn parse_bound(text: &str, end_of_day: bool) -> Option<Timestamp> {
    let is_date = text.len() == DATE_BYTES;
    let bound = parse(text).map(|time| if end_of_day && is_date { last_moment_of_day(time) } else { time });
    bound.or_else(|| {
        let rest = text.strip_prefix("9999-12-30").or_else(|| text.strip_prefix("9999-12-31"))?;
        parse(&format!("9999-12-28{rest}")).and(Timestamp::from_microsecond(END_SECOND * 1_000_000).ok())
    })
}

fn last_moment_of_day(midnight: Timestamp) -> Timestamp {
    let day = SignedDuration::from_hours(24) - SignedDuration::from_micros(1);
    midnight.saturating_add(day).unwrap_or(Timestamp::MAX)
}

/// Returns the timestamp if it is in the range of the columns, the years 1 to 9999.
pub(crate) fn check_range(timestamp: Timestamp) -> Option<Timestamp> {
    (FIRST_SECOND..END_SECOND).contains(&timestamp.as_second()).then_some(timestamp)
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iso8601_omits_zero_microseconds() {
        let text = |microseconds| iso8601(Timestamp::from_microsecond(microseconds).unwrap());
        assert_eq!(text(1_691_496_000_000_000), "2023-08-08T12:00:00Z");
        assert_eq!(text(1_691_496_000_500_000), "2023-08-08T12:00:00.500000Z");
        assert_eq!(text(1_691_496_000_000_001), "2023-08-08T12:00:00.000001Z");
    }

    #[test]
    fn bounds_include_the_last_days_of_9999() {
        let last = parse("9999-12-29T23:59:59.999999Z");
        for text in ["9999-12-30", "9999-12-31", "9999-12-31T23:59:59Z", "9999-12-31T00:00:00+14:00"] {
            let bound = parse_bound(text, true);
            assert_eq!((parse(text), bound > last), (None, true), "{text}");
            assert_eq!(parse_bound(&iso8601(bound.unwrap()), true), bound, "the bound of the next page");
        }
        for text in ["9999-12-32", "9999-12-31T24:61:00Z", "9999-12-31x", "10000-01-01"] {
            assert_eq!(parse_bound(text, false), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn parse_never_panics(text in ".{0,40}") {
            let _ = parse(&text);
        }

        #[test]
        fn iso8601_round_trips_through_parse(
            microsecond in FIRST_SECOND * 1_000_000..END_SECOND * 1_000_000,
        ) {
            let timestamp = Timestamp::from_microsecond(microsecond).unwrap();
            proptest::prop_assert_eq!(parse(&iso8601(timestamp)), Some(timestamp));
        }

        #[test]
        fn parse_applies_the_offset(
            second in FIRST_SECOND + 86_400..END_SECOND - 86_400,
            minutes in -14 * 60..14 * 60_i64,
            zone in proptest::prop_oneof!["Z", "offset"],
        ) {
            let timestamp = Timestamp::from_second(second).unwrap();
            let text = if zone == "Z" {
                format!("{timestamp:.3}")
            } else {
                let local = iso8601(timestamp + SignedDuration::from_mins(minutes));
                let sign = if minutes < 0 { '-' } else { '+' };
                format!("{}{sign}{:02}:{:02}", local.trim_end_matches('Z'), minutes.abs() / 60, minutes.abs() % 60)
            };
            proptest::prop_assert_eq!(parse(&text), Some(timestamp), "{}", text);
        }

        #[test]
        fn date_covers_midnight_to_end_of_day(day in FIRST_SECOND / 86_400..END_SECOND / 86_400) {
            let midnight = Timestamp::from_second(day * 86_400).unwrap();
            proptest::prop_assert_eq!(parse(&iso8601(midnight)[..10]), Some(midnight));
            let last = last_moment_of_day(midnight);
            proptest::prop_assert_eq!(last.as_microsecond() + 1, (day + 1) * 86_400_000_000);
        }
    }
}
