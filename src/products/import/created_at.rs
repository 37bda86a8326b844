//! The cells of the column `Created at`, and the stored moments that they show.
//!
//! Programs change moments that nobody has edited: a CSV file contains what a spreadsheet shows, and conversions cut
//! or round. So a cell that shows the stored moment in its own precision, cut or rounded, is no change.

use std::{borrow::Cow, ops::RangeInclusive};

use jiff::Timestamp;

use crate::{
    products::files::{
        cells::Cell,
        format::FileFormat,
        serial::{
            MICROSECONDS_PER_DAY, exact_timestamp, microseconds_from_serial, timestamp_from_serial,
            unit_of_last_decimal,
        },
    },
    timestamps::{self, DATE_BYTES, WRONG_FORMAT},
};

// In microseconds.
const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
/// The error of programs that convert a serial date to milliseconds and back: 1 ms, and that of the number itself.
const CONVERSION_ERROR: i64 = 1_002;
/// The precision of moments in ODS files of LibreOffice, which are cut to it.
const HUNDREDTH: i64 = SECOND / 100;
/// The error of a serial date with 15 digits, as LibreOffice writes it.
const SERIAL_ERROR: u64 = 50;
/// Contains no moment.
const EMPTY: RangeInclusive<i64> = RangeInclusive::new(1, 0);

/// The moment of a cell.
#[derive(Debug)]
pub(super) struct ShownTimestamp {
    timestamp: Timestamp,
    /// The stored moments, in microseconds, that the cell shows; the second range may be empty.
    shown: [RangeInclusive<i64>; 2],
}

impl ShownTimestamp {
    /// Parses a cell that is not empty. With `is_exact`, the timestamp has the microseconds of a serial date, otherwise
    /// its milliseconds.
    pub(super) fn parse(cell: &Cell<'_>, format: FileFormat, is_exact: bool) -> Result<Self, &'static str> {
        let parsed = match cell {
            Cell::Text(text) => Self::from_text(format.strip_formula_guards(text).trim()),
            Cell::Number(serial) | Cell::Date(serial) => Self::from_serial(*serial, is_exact),
            Cell::Unsupported | Cell::Unreadable(_) => None,
        };
        parsed.ok_or(WRONG_FORMAT)
    }

    fn from_text(text: &str) -> Option<Self> {
        let text = normalize(text);
        // spreadsheets have no offsets: a text without one is UTC
        let parsed = timestamps::parse_any_year(&text).or_else(|| timestamps::parse_any_year(&format!("{text}Z")));
        let (timestamp, unit) = (parsed?, unit_of_text(&text));
        let shown = shown_by(timestamp.as_microsecond(), unit);
        Some(Self { timestamp, shown: [shown, EMPTY] })
    }

    fn from_serial(serial: f64, is_exact: bool) -> Option<Self> {
        let exact = microseconds_from_serial(serial)?;
        let timestamp = if is_exact { exact_timestamp(serial) } else { timestamp_from_serial(serial) };
        // some programs write serial dates with seven decimals
        let unit =
            i64::try_from(unit_of_last_decimal(serial)).unwrap_or(i64::MAX).min(MICROSECONDS_PER_DAY / 10_000_000);
        let error = unit.max(CONVERSION_ERROR);
        let nearest = |unit: i64| (exact + unit / 2).div_euclid(unit) * unit;
        let (second, hundredth) = (nearest(SECOND), nearest(HUNDREDTH));
        // the export formats the cell to show seconds, so what is typed into it is a whole second
        let typed = if exact.abs_diff(second) <= CONVERSION_ERROR.unsigned_abs() {
            shown_by(second, SECOND)
        } else if exact.abs_diff(hundredth) <= SERIAL_ERROR {
            shown_by(hundredth, HUNDREDTH)
        } else {
            EMPTY
        };
        Some(Self { timestamp: timestamp?, shown: [exact - error..=exact + error, typed] })
    }

    /// Whether the cell shows this stored moment.
    pub(super) fn shows(&self, stored: Timestamp) -> bool {
        self.shown.iter().any(|range| range.contains(&stored.as_microsecond()))
    }

    /// Returns the moment to store; texts and numbers outside the range of the column are errors.
    pub(super) fn timestamp(&self) -> Result<Timestamp, &'static str> {
        timestamps::check_range(self.timestamp).ok_or(WRONG_FORMAT)
    }
}

/// Returns the moments that a value in multiples of `unit` shows: those that are cut to it, and those that are rounded
/// to it. Programs only cut to days.
fn shown_by(microseconds: i64, unit: i64) -> RangeInclusive<i64> {
    let rounded_up = if unit == MICROSECONDS_PER_DAY { 0 } else { unit / 2 };
    microseconds - rounded_up..=microseconds + unit - 1
}

/// Returns a text in which a decimal comma is a point, `UTC` is `Z`, and no space precedes the offset.
fn normalize(text: &str) -> Cow<'_, str> {
    let Some((date, time)) = text.split_at_checked(DATE_BYTES) else { return text.into() };
    let Some(separator) = time.chars().next().filter(|separator| matches!(separator, 'T' | 't' | ' ')) else {
        return text.into();
    };
    let time = time[separator.len_utf8()..].trim_start();
    let (clock, offset) =
        time.split_at(time.find(|c: char| !matches!(c, '0'..='9' | ':' | '.' | ',')).unwrap_or(time.len()));
    let offset = if offset.trim().eq_ignore_ascii_case("UTC") { "Z" } else { offset.trim_start() };
    format!("{date}T{}{offset}", clock.replace(',', ".")).into()
}

/// Returns the unit, in microseconds, of the last part of a normalized text: 1 for texts of another form.
fn unit_of_text(text: &str) -> i64 {
    let Some((_, time)) = text.split_at_checked(DATE_BYTES) else { return 1 };
    if time.is_empty() {
        return MICROSECONDS_PER_DAY;
    }
    let Some(time) = time.strip_prefix('T') else { return 1 };
    let clock = time.split(|c: char| !matches!(c, '0'..='9' | ':' | '.')).next().unwrap_or_default();
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    match (clock.len(), fraction.len()) {
        (2, 0) => HOUR,
        (5, 0) => MINUTE,
        (_, digits @ 0..=5) => (0..digits).fold(SECOND, |unit, _| unit / 10),
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        products::files::serial::{nearest_serial, serial_from_timestamp},
        timestamps::iso8601,
    };

    const MILLISECOND: i64 = 1000;

    fn timestamp(microseconds: i64) -> Timestamp {
        Timestamp::from_microsecond(microseconds).unwrap()
    }

    fn cell(cell: &Cell<'_>) -> ShownTimestamp {
        ShownTimestamp::parse(cell, FileFormat::Csv, false).unwrap()
    }

    fn shows(text: &str, stored: Timestamp) -> bool {
        cell(&Cell::text(text)).shows(stored)
    }

    #[test]
    fn accepted_texts_have_their_precision() {
        for (text, moment, unit) in [
            ("2023-08-08", "2023-08-08T00:00:00Z", MICROSECONDS_PER_DAY),
            ("2023-08-08T12", "2023-08-08T12:00:00Z", HOUR),
            ("2023-08-08 12:34", "2023-08-08T12:34:00Z", MINUTE),
            ("2023-08-08T12:34Z", "2023-08-08T12:34:00Z", MINUTE),
            ("2023-08-08 12:34:56", "2023-08-08T12:34:56Z", SECOND),
            ("2023-08-08  12:34:56 Z", "2023-08-08T12:34:56Z", SECOND),
            ("2023-08-08t12:34:56z", "2023-08-08T12:34:56Z", SECOND),
            ("2023-08-08 12:34:56 UTC", "2023-08-08T12:34:56Z", SECOND),
            ("2023-08-08 14:34:56 +02:00", "2023-08-08T12:34:56Z", SECOND),
            ("2023-08-08T14:34:56+0200", "2023-08-08T12:34:56Z", SECOND),
            ("2023-08-08T07:34:56-05", "2023-08-08T12:34:56Z", SECOND),
            ("2023-08-08T12:34:56.7", "2023-08-08T12:34:56.7Z", SECOND / 10),
            ("2023-08-08 12:34:56,789", "2023-08-08T12:34:56.789Z", MILLISECOND),
            ("2023-08-08T12:34:56.789012Z", "2023-08-08T12:34:56.789012Z", 1),
            ("2023-08-08T12:34:56.789012999Z", "2023-08-08T12:34:56.789012Z", 1),
        ] {
            assert_eq!(unit_of_text(&normalize(text)), unit, "{text}");
            assert_eq!(cell(&Cell::text(text)).timestamp(), Ok(moment.parse().unwrap()), "{text}");
        }
        for text in ["08/08/2023 12:00", "2023-08-08 12:00 PM", "2023-13-01", "2023-08-08 12.30", "noon", "2023-08-08é"]
        {
            assert!(ShownTimestamp::parse(&Cell::text(text), FileFormat::Csv, false).is_err(), "{text}");
        }
    }

    #[test]
    fn a_date_shows_its_day_only() {
        assert!(shows("2023-08-08", "2023-08-08T23:59:59.999999Z".parse().unwrap()));
        assert!(!shows("2023-08-09", "2023-08-08T23:59:59.999999Z".parse().unwrap()));
    }

    #[test]
    fn rounding_beyond_the_last_moment_is_no_change() {
        let last = "9999-12-29T23:59:59.999999Z".parse().unwrap();
        let rounded = cell(&Cell::text("9999-12-30 00:00:00"));
        assert!(rounded.shows(last) && rounded.timestamp().is_err());
    }

    /// Moments from 1901 to 2199.
    fn any_moment() -> impl Strategy<Value = i64> {
        -2_170_000_000_000_000_i64..7_250_000_000_000_000
    }

    /// Returns the text of a moment in a precision, in one of the forms that programs write.
    fn text_of(microseconds: i64, unit: i64, form: usize) -> String {
        let length = match unit {
            MICROSECONDS_PER_DAY => 10,
            MINUTE => 16,
            SECOND => 19,
            MILLISECOND => 23,
            _ => 26,
        };
        let full =
            iso8601(timestamp(microseconds)).replace('Z', if microseconds % SECOND == 0 { ".000000" } else { "" });
        let text = full[..length].to_owned();
        match form {
            _ if unit == MICROSECONDS_PER_DAY => text,
            0 => text.replace('T', " "),
            1 => text,
            2 => text + "Z",
            _ => text.replace('T', " ") + "+00:00",
        }
    }

    proptest! {
        #[test]
        fn cut_and_rounded_texts_are_no_change(
            stored in any_moment(),
            unit in prop_oneof![Just(1), Just(MILLISECOND), Just(SECOND), Just(MINUTE), Just(MICROSECONDS_PER_DAY)],
            form in 0..4_usize,
            units in -3_i64..=3,
        ) {
            let cut = stored.div_euclid(unit) * unit;
            let rounded = if unit == MICROSECONDS_PER_DAY { cut } else { (stored + unit / 2).div_euclid(unit) * unit };
            for shown in [cut, rounded] {
                let text = text_of(shown, unit, form);
                prop_assert!(shows(&text, timestamp(stored)), "{} for {}", text, timestamp(stored));
            }
            let changed = cut + units * unit;
            let (text, is_change) = (text_of(changed, unit, form), (changed - stored).abs() >= unit);
            prop_assert!(!is_change || !shows(&text, timestamp(stored)), "{} for {}", text, timestamp(stored));
        }

        #[test]
        fn converted_serial_dates_are_no_change(stored in any_moment(), milliseconds in -1_i64..=1) {
            let Some(exact) = serial_from_timestamp(timestamp(stored)) else { return Ok(()) };
            let seven_decimals: f64 = format!("{exact:.7}").parse().unwrap();
            let seven_decimals_cut = (exact * 1e7).floor() / 1e7;
            let fifteen_digits: f64 = format!("{exact:.14e}").parse().unwrap();
            let cut = stored.div_euclid(SECOND) * SECOND;
            let shown_seconds = [cut, (stored + SECOND / 2).div_euclid(SECOND) * SECOND];
            let near = stored + milliseconds * MILLISECOND;
            let hundredth = stored.div_euclid(HUNDREDTH) * HUNDREDTH;
            let moments = [shown_seconds[0], shown_seconds[1], near, hundredth];
            let converted = moments.map(|moment| nearest_serial(timestamp(moment)));
            let of_ods = converted[3].and_then(|serial| format!("{serial:.14e}").parse().ok()).unwrap_or(exact);
            let serials = [exact, seven_decimals, seven_decimals_cut, fifteen_digits, of_ods].into_iter();
            for serial in serials.chain(converted.into_iter().flatten()) {
                prop_assert!(cell(&Cell::Date(serial)).shows(timestamp(stored)), "{} for {}", serial, timestamp(stored));
            }
        }

        #[test]
        fn changed_serial_dates_are_a_change(stored in any_moment(), seconds in -5_i64..=5) {
            let changed = stored.div_euclid(SECOND) * SECOND + seconds * SECOND;
            let Some(serial) = serial_from_timestamp(timestamp(changed)) else { return Ok(()) };
            let is_change = (changed - stored).abs() >= SECOND;
            prop_assert!(!is_change || !cell(&Cell::Date(serial)).shows(timestamp(stored)), "{}", timestamp(stored));
        }
    }
}
