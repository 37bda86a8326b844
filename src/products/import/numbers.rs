//! Numbers in texts, as spreadsheet programs write them.

/// The validation error of a price such as `1,299`.
pub(crate) const AMBIGUOUS: &str =
    "The comma can be read as a decimal point or as a thousands separator. Write the price with a decimal point.";

/// Returns the whole number of a text such as `7`, `7.0` or `7.00E+00`.
///
/// An exponent is accepted only if the text spells all digits: `1.2E+01` is 12, but `1E+03` may be 1234, rounded by the
/// format of its cell. `1.000` is not accepted, because it may be 1000 with a separator of thousands.
pub(crate) fn whole_number(text: &str) -> Option<i64> {
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (digits, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent = exponent.parse::<usize>().ok()?;
    let (whole, zeros) = fraction.split_at_checked(exponent)?;
    let is_whole = zeros.bytes().all(|byte| byte == b'0') && whole.bytes().all(|byte| byte.is_ascii_digit());
    let has_digits = digits.trim_start_matches(['+', '-']).bytes().any(|byte| byte.is_ascii_digit());
    let is_ambiguous = exponent == 0 && zeros.len() == 3;
    if is_whole && has_digits && !is_ambiguous { format!("{digits}{whole}").parse().ok() } else { None }
}

/// The validation error of a price such as `1.2E+02`.
pub(crate) const ROUNDED: &str =
    "The number is rounded to the digits that its cell shows. Write the price with all digits.";

/// Returns a price with a decimal point in place of its decimal comma, and without thousands separators. Returns `None`
/// for a text that stays as it is, and the validation error of a price that can be read in two ways.
///
/// `has_decimal_comma` is whether a comma may be a decimal point at all: it is not in a file that has commas between its
/// cells.
pub(crate) fn normalize_price(text: &str, has_decimal_comma: bool) -> Result<Option<String>, &'static str> {
    let trimmed = text.trim();
    if is_rounded(trimmed) {
        return Err(ROUNDED);
    }
    if !text.contains(|character: char| character == ',' || character.is_whitespace()) {
        return Ok(None);
    }
    let unsigned = trimmed.strip_prefix(['+', '-']).unwrap_or(trimmed);
    if is_grouped(unsigned, |separator| separator == ',', false) {
        return Err(AMBIGUOUS);
    }
    if !has_decimal_comma {
        return Ok(None);
    }
    let is_space = |separator: char| separator.is_whitespace();
    let (whole, fraction) = match unsigned.rsplit_once([',', '.']) {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (unsigned, None),
    };
    let decimal_point = unsigned.as_bytes().get(whole.len());
    let is_thousands = |separator: char| match decimal_point {
        Some(b',') => separator == '.' || is_space(separator),
        Some(_) => separator == ',' || is_space(separator),
        None => is_space(separator),
    };
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !(is_digits(whole) || is_grouped(whole, is_thousands, true)) || !fraction.is_none_or(is_digits) {
        return Ok(None);
    }
    let sign = if trimmed.starts_with('-') { "-" } else { "" };
    let digits: String = whole.chars().filter(char::is_ascii_digit).collect();
    Ok(Some(fraction.map_or_else(|| format!("{sign}{digits}"), |fraction| format!("{sign}{digits}.{fraction}"))))
}

/// Returns whether a text is a number whose exponent stands for digits that are not spelled: `1.2E+02` may be 123.45,
/// rounded by the format of its cell.
fn is_rounded(text: &str) -> bool {
    let Some((mantissa, exponent)) = text.split_once(['e', 'E']) else { return false };
    let decimals = mantissa.split_once(['.', ',']).map_or(0, |(_, decimals)| decimals.len());
    let is_number = mantissa.parse::<f64>().is_ok_and(|number| number != 0.0);
    is_number && exponent.parse::<usize>().is_ok_and(|exponent| exponent > decimals)
}

/// Returns whether a text is a number in groups of three digits with one and the same separator, such as `1 299`. With
/// `may_repeat` there may be more than one separator.
fn is_grouped(text: &str, is_separator: impl Fn(char) -> bool, may_repeat: bool) -> bool {
    let Some(separator) = text.chars().find(|character| !character.is_ascii_digit()) else { return false };
    let mut groups = text.split(separator);
    let first = groups.next().unwrap_or_default();
    let is_first = (1..=3).contains(&first.len());
    let (mut count, mut are_groups) = (0, true);
    for group in groups {
        count += 1;
        are_groups &= group.len() == 3 && group.bytes().all(|byte| byte.is_ascii_digit());
    }
    is_separator(separator) && is_first && are_groups && (count == 1 || may_repeat)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_read_without_loss() {
        for (text, number) in [
            ("7", 7),
            ("-7", -7),
            ("1.0", 1),
            ("10.", 10),
            ("1.00E+00", 1),
            ("1.2e1", 12),
            ("-1.50E+01", -15),
            ("9223372036854775807.0000", i64::MAX),
        ] {
            assert_eq!(whole_number(text), Some(number), "{text}");
        }
        assert_eq!(whole_number("1E+00"), Some(1));
        for text in [
            "", ".", ".0", "1.5", "1.000", "-12.000", "1E+03", "1.2E+02", "1.0E-1", "1.0.0", "x", "1.0x", "1.1E",
            "1,0", "+", "0x1.0",
        ] {
            assert_eq!(whole_number(text), None, "{text}");
        }
    }

    #[test]
    fn prices_with_decimal_comma_are_normalized() {
        for (text, price) in [
            ("1299,90", "1299.90"),
            ("1 299,90", "1299.90"),
            ("1\u{a0}299,90", "1299.90"),
            ("12\u{202f}345\u{202f}678,9", "12345678.9"),
            ("1.299,90", "1299.90"),
            ("1,299.90", "1299.90"),
            ("-0,5", "-0.5"),
            ("1 299", "1299"),
            (" 7", "7"),
        ] {
            assert_eq!(normalize_price(text, true), Ok(Some(price.to_owned())), "{text}");
        }
        for text in ["1,299", "-12,000", "0,500"] {
            assert_eq!(normalize_price(text, true), Err(AMBIGUOUS), "{text}");
            assert_eq!(normalize_price(text, false), Err(AMBIGUOUS), "{text}");
        }
        for text in [
            "",
            "7",
            "1299.90",
            "x",
            "1,2,3",
            "1 29,90",
            "1 299 90",
            "12 34",
            "1,299,90",
            ",5",
            "5,",
            "1299,90 €",
            "1299,000,000",
        ] {
            assert_eq!(normalize_price(text, true), Ok(None), "{text}");
        }
        assert_eq!(normalize_price("1299,90", false), Ok(None));
        for text in ["1.2E+02", "1e3", "-12.34e5", " 1E1 "] {
            assert_eq!(normalize_price(text, false), Err(ROUNDED), "{text}");
        }
        for text in ["1.2E+01", "1.25e2", "0E+05", "1E-2", "1E+00", "E5", "1Ex"] {
            assert_eq!(normalize_price(text, false), Ok(None), "{text}");
        }
    }
}
