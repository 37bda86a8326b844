//! Decimals in texts: validated and normalized digit by digit, never as a binary float.

/// The rule for a non-negative decimal.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DecimalRule {
    pub(crate) max_digits: i64,
    /// Limit of the digits after the decimal point.
    pub(crate) max_places: i64,
}

pub(super) const NOT_A_NUMBER: &str = "A valid number is required.";
/// Limit of the length of a number as sent (DRF's limit). Longer ones are rejected before they are parsed.
const MAX_NUMBER_LENGTH: usize = 1000;

/// Checks `[-+]digits[.digits][e[-+]digits]` against a rule, and returns it in plain decimal notation. The value never
/// passes through a binary float. With `normalize_trailing_zeros`, trailing zeros after the decimal point are dropped
/// first.
pub(crate) fn check_decimal(text: &str, normalize_trailing_zeros: bool, rule: DecimalRule) -> Result<String, String> {
    if text.len() > MAX_NUMBER_LENGTH {
        return Err("String value too large.".to_owned());
    }
    let mut decimal = Decimal::parse(text).ok_or(NOT_A_NUMBER)?;
    if normalize_trailing_zeros {
        decimal.normalize();
    }
    decimal.check(rule)?;
    Ok(decimal.to_plain_text())
}

/// A decimal: `digits * 10^-places`.
struct Decimal {
    is_negative: bool,
    /// Without leading zeros; empty for zero.
    digits: String,
    places: i64,
}

impl Decimal {
    fn parse(text: &str) -> Option<Self> {
        let (is_negative, unsigned) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
        let (integer, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        let is_valid =
            integer.len() + fraction.len() > 0 && all_digits(integer) && all_digits(fraction) && is_exponent(exponent);
        if !is_valid {
            return None;
        }
        // a larger exponent has the same result, and the clamp rules out overflow
        let exponent: i64 = exponent.parse().unwrap_or(if exponent.starts_with('-') { i64::MIN } else { i64::MAX });
        let exponent = exponent.clamp(-100_000, 100_000);
        Some(Self {
            is_negative,
            digits: format!("{integer}{fraction}").trim_start_matches('0').to_owned(),
            places: i64::try_from(fraction.len()).unwrap_or(i64::MAX) - exponent,
        })
    }

    fn is_zero(&self) -> bool {
        self.digits.is_empty()
    }

    /// Drops trailing zeros after the decimal point.
    fn normalize(&mut self) {
        while self.places > 0 && self.digits.ends_with('0') {
            self.digits.pop();
            self.places -= 1;
        }
        if self.is_zero() {
            self.places = 0;
        }
    }

    fn check(&self, rule: DecimalRule) -> Result<(), String> {
        let DecimalRule { max_digits, max_places } = rule;
        // zero has one digit
        let length = i64::try_from(self.digits.len().max(1)).unwrap_or(i64::MAX);
        let total = if self.places < 0 { length - self.places } else { length.max(self.places) };
        let max_before = max_digits - max_places;
        if total > max_digits {
            Err(format!("Ensure that there are no more than {max_digits} digits in total."))
        } else if self.places > max_places {
            Err(format!("Ensure that there are no more than {max_places} decimal places."))
        } else if total - self.places.max(0) > max_before {
            Err(format!("Ensure that there are no more than {max_before} digits before the decimal point."))
        } else if self.is_negative && !self.is_zero() {
            Err("Ensure this value is greater than or equal to 0.".to_owned())
        } else {
            Ok(())
        }
    }

    /// Returns the value without sign and exponent. The number of places must be small: [`Decimal::check`] ensures it.
    fn to_plain_text(&self) -> String {
        let zeros = usize::try_from(-self.places).unwrap_or(0);
        let places = usize::try_from(self.places).unwrap_or(0);
        let digits = if self.is_zero() { String::new() } else { format!("{}{}", self.digits, "0".repeat(zeros)) };
        let padded = format!("{digits:0>width$}", width = places + 1);
        let (integer, fraction) = padded.split_at(padded.len() - places);
        if fraction.is_empty() { integer.to_owned() } else { format!("{integer}.{fraction}") }
    }
}

fn is_exponent(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRICE: DecimalRule = DecimalRule { max_digits: 12, max_places: 2 };

    #[test]
    fn valid_decimals_keep_every_digit() {
        for (sent, expected) in [
            ("0", "0"),
            ("0.10", "0.10"),
            ("19.99", "19.99"),
            ("+1.5", "1.5"),
            (".5", "0.5"),
            ("5.", "5"),
            ("-0.00", "0.00"),
            ("007", "7"),
            ("1e3", "1000"),
            ("1.5E+2", "150"),
            ("120e-1", "12.0"),
            ("9999999999.99", "9999999999.99"),
            ("0e9", "0"),
        ] {
            assert_eq!(check_decimal(sent, false, PRICE).as_deref(), Ok(expected), "{sent}");
        }
        assert_eq!(check_decimal("1.5000", true, PRICE).as_deref(), Ok("1.5"));
        assert_eq!(check_decimal("0.000", true, PRICE).as_deref(), Ok("0"));
    }

    #[test]
    fn decimal_error_names_the_exceeded_limit() {
        let digits = "Ensure that there are no more than 12 digits in total.";
        let places = "Ensure that there are no more than 2 decimal places.";
        let before = "Ensure that there are no more than 10 digits before the decimal point.";
        let negative = "Ensure this value is greater than or equal to 0.";
        for (sent, message) in [
            ("1.999", places),
            ("1e-3", places),
            ("0.000", places),
            ("99999999999.99", digits),
            ("1e12", digits),
            ("0e13", digits),
            ("0e10", before),
            ("0.0000000000000", digits),
            ("1e999999999999999999999", digits),
            ("99999999999", before),
            ("-0.01", negative),
            ("-0.001", places),
            ("", NOT_A_NUMBER),
            ("NaN", NOT_A_NUMBER),
            ("Infinity", NOT_A_NUMBER),
            ("1,5", NOT_A_NUMBER),
            ("1e", NOT_A_NUMBER),
            (".", NOT_A_NUMBER),
            ("0x10", NOT_A_NUMBER),
            ("١", NOT_A_NUMBER),
        ] {
            assert_eq!(check_decimal(sent, false, PRICE), Err(message.to_owned()), "{sent}");
        }
    }

    proptest::proptest! {
        #[test]
        fn check_decimal_never_panics(text in ".{0,40}") {
            let _ = check_decimal(&text, false, PRICE);
        }

        #[test]
        fn valid_price_is_unchanged(cents in 0_u64..1_000_000_000_000) {
            let price = format!("{}.{:02}", cents / 100, cents % 100);
            proptest::prop_assert_eq!(check_decimal(&price, false, PRICE), Ok(price));
        }

        /// Compares `[sign]value[e exponent]` with integer arithmetic: `mantissa * 10^-places`.
        #[test]
        fn accepted_price_keeps_its_value(
            negative: bool,
            zeros in 0_usize..3,
            mantissa in proptest::prop_oneof![0_i128..100, 0_i128..10_i128.pow(15)],
            point in 0_u8..6,
            exponent in proptest::option::of(-6_i64..14),
        ) {
            let width = usize::from(point) + 1;
            let padded = format!("{}{mantissa:0>width$}", "0".repeat(zeros));
            let (whole, fraction) = padded.split_at(padded.len() - usize::from(point));
            let dot = if point > 0 { "." } else { "" };
            let power = exponent.map_or_else(String::new, |exponent| format!("e{exponent}"));
            let sent = format!("{}{whole}{dot}{fraction}{power}", if negative { "-" } else { "" });

            let places = i64::from(point) - exponent.unwrap_or(0);
            let cents = match u32::try_from(2 - places) {
                Ok(power) => Some(mantissa * 10_i128.pow(power)),
                Err(_) => None,
            };
            // more than two places are rejected even if they are zeros, because Python's Decimal counts them; zero has
            // one digit
            let fits = cents.is_some_and(|cents| cents < 10_i128.pow(12))
                && !(negative && mantissa > 0)
                && !(mantissa == 0 && places < -9);
            let checked = check_decimal(&sent, false, PRICE);
            proptest::prop_assert_eq!(checked.is_ok(), fits, "{}: {:?}", &sent, &checked);
            if let Ok(text) = checked {
                let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
                let actual: i128 = format!("{whole}{fraction:0<2}").parse().unwrap();
                proptest::prop_assert_eq!(Some(actual), cents, "{} became {}", sent, text);
            }
        }
    }
}
