//! Moments as text, the way Django REST framework writes them, within the bounds of what is stored.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};

/// What is said of a text that [`parse`] does not take.
pub(crate) const WRONG_FORMAT: &str = "Datetime has wrong format. Use ISO 8601, like 2023-08-08T12:00:00Z.";

/// `2023-08-08T12:00:00Z`, with six digits of microseconds when they are not zero.
pub(crate) fn iso8601(moment: Timestamp) -> String {
    let precision = if moment.subsec_nanosecond() == 0 { 0 } else { 6 };
    format!("{moment:.precision$}")
}

/// A moment with its offset from UTC, or a day, which begins at midnight UTC; to the microsecond, as PostgreSQL counts.
pub(crate) fn parse(text: &str) -> Option<Timestamp> {
    let moment = text.parse::<Timestamp>().ok().or_else(|| {
        let midnight = text.parse::<Date>().ok().filter(|_| text.len() == 10)?.to_zoned(TimeZone::UTC).ok()?;
        Some(midnight.timestamp())
    })?;
    stored(Timestamp::from_microsecond(moment.as_microsecond()).ok()?)
}

/// The last moment of the day that begins with this one.
pub(crate) fn end_of_day(midnight: Timestamp) -> Option<Timestamp> {
    midnight.checked_add(SignedDuration::from_hours(24)).ok()?.checked_sub(SignedDuration::from_micros(1)).ok()
}

/// The moment if a column may hold it: from year 1 to 9999.
pub(crate) fn stored(moment: Timestamp) -> Option<Timestamp> {
    (FIRST_SECOND..END_SECOND).contains(&moment.as_second()).then_some(moment)
}

/// 0001-01-01T00:00:00Z
const FIRST_SECOND: i64 = -62_135_596_800;
/// 9999-12-30T00:00:00Z
const END_SECOND: i64 = 253_402_128_000;

/// Returns a duration in whole milliseconds.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn microseconds_are_written_only_when_there_are_any() {
        let of = |microseconds| iso8601(Timestamp::from_microsecond(microseconds).unwrap());
        assert_eq!(of(1_691_496_000_000_000), "2023-08-08T12:00:00Z");
        assert_eq!(of(1_691_496_000_500_000), "2023-08-08T12:00:00.500000Z");
        assert_eq!(of(1_691_496_000_000_001), "2023-08-08T12:00:00.000001Z");
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in ".{0,40}") {
            let _ = parse(&text);
        }

        #[test]
        fn every_moment_that_a_column_holds_is_read_as_it_is_written(
            moment in FIRST_SECOND * 1_000_000..END_SECOND * 1_000_000,
        ) {
            let moment = Timestamp::from_microsecond(moment).unwrap();
            proptest::prop_assert_eq!(parse(&iso8601(moment)), Some(moment));
        }

        /// The same moment, as a clock elsewhere shows it.
        #[test]
        fn an_offset_moves_a_moment_by_as_much(
            second in FIRST_SECOND + 86_400..END_SECOND - 86_400,
            minutes in -14 * 60..14 * 60_i64,
            zone in proptest::prop_oneof!["Z", "offset"],
        ) {
            let moment = Timestamp::from_second(second).unwrap();
            let text = if zone == "Z" {
                format!("{moment:.3}")
            } else {
                let there = iso8601(moment + SignedDuration::from_mins(minutes));
                let sign = if minutes < 0 { '-' } else { '+' };
                format!("{}{sign}{:02}:{:02}", there.trim_end_matches('Z'), minutes.abs() / 60, minutes.abs() % 60)
            };
            proptest::prop_assert_eq!(parse(&text), Some(moment), "{}", text);
        }

        #[test]
        fn a_day_is_its_moments(day in FIRST_SECOND / 86_400..END_SECOND / 86_400) {
            let midnight = Timestamp::from_second(day * 86_400).unwrap();
            proptest::prop_assert_eq!(parse(&iso8601(midnight)[..10]), Some(midnight));
            let last = end_of_day(midnight).unwrap();
            proptest::prop_assert_eq!(last.as_microsecond() + 1, (day + 1) * 86_400_000_000);
        }
    }
}
