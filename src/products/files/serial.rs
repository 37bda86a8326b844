//! Serial dates: the numbers as which spreadsheets store moments, in days since 1899-12-30 in UTC.

use jiff::Timestamp;

pub(crate) const MICROSECONDS_PER_DAY: i64 = 86_400_000_000;
/// The serial date of 1970-01-01.
const UNIX_EPOCH_DAY: i64 = 25_569;
/// The serial date of 1900-03-01. Before it, spreadsheets count the nonexistent day 1900-02-29.
const MIN_SERIAL: f64 = 61.0;
/// Larger than the serial date of every timestamp.
const MAX_SERIAL: f64 = 3e6;

/// Returns the number that is nearest to a timestamp; `None` before 1900-03-01.
#[expect(clippy::cast_precision_loss, reason = "both are below 2^53")]
pub(crate) fn nearest_serial(timestamp: Timestamp) -> Option<f64> {
    let microseconds = timestamp.as_microsecond();
    let day = microseconds.div_euclid(MICROSECONDS_PER_DAY) + UNIX_EPOCH_DAY;
    let fraction = microseconds.rem_euclid(MICROSECONDS_PER_DAY) as f64 / MICROSECONDS_PER_DAY as f64;
    let serial = day as f64 + fraction;
    (serial >= MIN_SERIAL).then_some(serial)
}

/// Returns the serial date that [`exact_timestamp`] converts back to the same timestamp. Returns `None` where no number
/// does: before 1900-03-01, and for some timestamps with microseconds, most of them after 2079.
pub(crate) fn serial_from_timestamp(timestamp: Timestamp) -> Option<f64> {
    let serial = nearest_serial(timestamp)?;
    let is_exact = timestamp.as_microsecond() % 1000 == 0 || exact_timestamp(serial) == Some(timestamp);
    is_exact.then_some(serial)
}

/// Returns the microseconds since 1970 that are nearest to a serial date; `None` before 1900-03-01.
#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "the limits of serial bound both")]
pub(crate) fn microseconds_from_serial(serial: f64) -> Option<i64> {
    if !(MIN_SERIAL..MAX_SERIAL).contains(&serial) {
        return None;
    }
    let fraction = (serial - serial.floor()) * MICROSECONDS_PER_DAY as f64;
    Some((serial.floor() as i64 - UNIX_EPOCH_DAY) * MICROSECONDS_PER_DAY + fraction.round() as i64)
}

/// Returns the timestamp of a serial date, rounded to milliseconds, the most precise display of spreadsheets.
pub(crate) fn timestamp_from_serial(serial: f64) -> Option<Timestamp> {
    let milliseconds = (microseconds_from_serial(serial)? + 500).div_euclid(1000);
    Timestamp::from_millisecond(milliseconds).ok()
}

/// Returns the timestamp that the export has written as this serial date, with its microseconds. Milliseconds are
/// preferred where the number, with the decimals that it has, can stand for them.
pub(crate) fn exact_timestamp(serial: f64) -> Option<Timestamp> {
    let (exact, rounded) = (microseconds_from_serial(serial)?, timestamp_from_serial(serial)?);
    let difference = exact.abs_diff(rounded.as_microsecond());
    let is_rounded = nearest_serial(rounded) == Some(serial) || difference <= unit_of_last_decimal(serial) / 2;
    if is_rounded { Some(rounded) } else { Timestamp::from_microsecond(exact).ok() }
}

/// Returns the microseconds for which one unit of the last decimal of a serial date stands.
pub(crate) fn unit_of_last_decimal(serial: f64) -> u64 {
    let decimals = serial.to_string().split_once('.').map_or(0, |(_, decimals)| decimals.len());
    let divisor = u32::try_from(decimals).ok().and_then(|decimals| 10_u64.checked_pow(decimals));
    divisor.map_or(0, |divisor| MICROSECONDS_PER_DAY.unsigned_abs() / divisor)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn serial_dates_count_days_since_1899_12_30() {
        let serial = |text: &str| serial_from_timestamp(text.parse().unwrap());
        assert_eq!(serial("1900-03-01T00:00:00Z"), Some(61.0));
        assert_eq!(serial("2023-08-08T12:00:00Z"), Some(45146.5));
        assert_eq!(serial("1900-02-28T23:59:59Z"), None);
        assert_eq!(serial("9999-12-29T23:59:59.999999Z"), None, "the nearest number is the next day");
        assert!(serial("9999-12-29T23:59:59Z").is_some());
    }

    proptest! {
        #[test]
        fn exact_timestamp_inverts_the_export(
            microseconds in -2_200_000_000_000_000_i64..253_402_128_000_000_000,
            unit in prop_oneof![Just(1), Just(1000), Just(1_000_000)],
        ) {
            let timestamp = Timestamp::from_microsecond(microseconds / unit * unit).unwrap();
            match serial_from_timestamp(timestamp) {
                Some(serial) => prop_assert_eq!(exact_timestamp(serial), Some(timestamp)),
                None => prop_assert!(unit == 1, "milliseconds have a serial date: {}", timestamp),
            }
        }

        #[test]
        fn serial_dates_with_many_decimals_are_exact(
            microseconds in 946_684_800_000_000_i64..3_400_000_000_000_000,
        ) {
            let timestamp = Timestamp::from_microsecond(microseconds).unwrap();
            let unit = unit_of_last_decimal(nearest_serial(timestamp).unwrap());
            prop_assert!(serial_from_timestamp(timestamp).is_some() || unit > 1, "{}", timestamp);
        }
    }
}
