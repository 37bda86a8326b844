//! The fields of a request body, checked the way Django REST framework checks them and in its words: all faults
//! of all fields at once.

use serde_json::{Map, Value};

use crate::error::{FieldErrors, Result};

/// Fields that are being read; faults gather until [`Fields::finish`].
#[derive(Debug)]
pub(crate) struct Fields {
    values: Map<String, Value>,
    errors: FieldErrors,
    /// With `false` (PATCH) an absent field is no fault.
    required: bool,
}

/// What a text field may hold. Lengths are in characters.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StringRule {
    /// At least so many characters.
    pub(crate) min: usize,
    /// At most so many characters.
    pub(crate) max: usize,
    /// Whether it may be empty.
    pub(crate) blank: bool,
    /// Whether spaces around it are taken off.
    pub(crate) trim: bool,
}

/// A text of at most `max` characters, trimmed, not blank.
pub(crate) const fn text(max: usize) -> StringRule {
    StringRule { min: 0, max, blank: false, trim: true }
}

/// A non-negative decimal with at most `digits` digits, `places` of them after the point.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DecimalRule {
    /// Digits in total.
    pub(crate) digits: i64,
    /// Digits after the point.
    pub(crate) places: i64,
}

const REQUIRED: &str = "This field is required.";
const NULL: &str = "This field may not be null.";
/// The most items that a list in a body may have.
pub(crate) const MAX_ITEMS: usize = 100;

impl Fields {
    /// All fields that are asked for must be there.
    pub(crate) fn new(values: Map<String, Value>) -> Self {
        Self { values, errors: FieldErrors::default(), required: true }
    }

    /// Fields that are absent stay as they are.
    pub(crate) fn partial(values: Map<String, Value>) -> Self {
        Self { required: false, ..Self::new(values) }
    }

    /// Whether the body names this field.
    pub(crate) fn names(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// One more fault.
    pub(crate) fn fault(&mut self, name: &str, message: impl Into<String>) {
        self.errors.add(name, message);
    }

    /// Whether a field has a fault already.
    pub(crate) fn has_fault(&self, name: &str) -> bool {
        self.errors.has(name)
    }

    /// All the faults, if there are any.
    pub(crate) fn faults(self) -> FieldErrors {
        self.errors
    }

    /// Everything in order, or all the faults.
    pub(crate) fn finish(self) -> Result<()> {
        self.errors.into_result()
    }

    fn take(&mut self, name: &str, required: bool) -> Option<Value> {
        match self.values.remove(name) {
            None => {
                if required && self.required {
                    self.errors.add(name, REQUIRED);
                }
                None
            }
            Some(Value::Null) => {
                self.errors.add(name, NULL);
                None
            }
            Some(value) => Some(value),
        }
    }

    /// A text that must be there.
    pub(crate) fn text(&mut self, name: &str, rule: StringRule) -> Option<String> {
        let value = self.take(name, true)?;
        self.checked_text(name, &value, rule)
    }

    /// A text that may be absent.
    pub(crate) fn optional_text(&mut self, name: &str, rule: StringRule) -> Option<String> {
        let value = self.take(name, false)?;
        self.checked_text(name, &value, rule)
    }

    fn checked_text(&mut self, name: &str, value: &Value, rule: StringRule) -> Option<String> {
        match check_text(value, rule) {
            Ok(text) => Some(text),
            Err(messages) => {
                messages.into_iter().for_each(|message| self.errors.add(name, message));
                None
            }
        }
    }

    /// A list of texts that may be absent; faults are told by the item's index.
    pub(crate) fn optional_texts(&mut self, name: &str, rule: StringRule) -> Option<Vec<String>> {
        let value = self.take(name, false)?;
        let Value::Array(items) = value else {
            self.errors.add(name, format!("Expected a list of items but got type \"{}\".", type_name(&value)));
            return None;
        };
        if items.len() > MAX_ITEMS {
            self.errors.add(name, format!("Ensure this field has no more than {MAX_ITEMS} elements."));
            return None;
        }
        let mut texts = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            match if item.is_null() { Err(vec![NULL.to_owned()]) } else { check_text(item, rule) } {
                Ok(text) => texts.push(text),
                Err(messages) => messages.into_iter().for_each(|words| self.errors.add_item(name, index, words)),
            }
        }
        (texts.len() == items.len()).then_some(texts)
    }

    /// A number, as a JSON number or as text, that must be there. Gives its plain decimal text, digit for digit.
    pub(crate) fn decimal(&mut self, name: &str, rule: DecimalRule) -> Option<String> {
        let checked = match self.take(name, true)? {
            // a JSON number carries no trailing zeros that mean anything
            Value::Number(number) => check_decimal(&number.to_string(), true, rule),
            Value::String(text) => check_decimal(text.trim(), false, rule),
            _ => Err(NOT_A_NUMBER.to_owned()),
        };
        checked.map_err(|message| self.errors.add(name, message)).ok()
    }

    /// The id of another row that may be absent; a number or its digits.
    pub(crate) fn optional_id(&mut self, name: &str) -> Option<i64> {
        let value = self.take(name, false)?;
        if value == "" {
            // to a form, an empty field is none
            self.errors.add(name, NULL);
            return None;
        }
        let digits = match &value {
            Value::Number(number) => number.to_string(),
            Value::String(text) => text.trim().to_owned(),
            other => {
                let words = format!("Incorrect type. Expected pk value, received {}.", type_name(other));
                self.errors.add(name, words);
                return None;
            }
        };
        match digits.parse() {
            Ok(id) => Some(id),
            Err(_) if is_integer(&digits) => {
                self.errors.add(name, format!("Invalid pk \"{digits}\" - object does not exist."));
                None
            }
            Err(_) => {
                let words = format!("Incorrect type. Expected pk value, received {}.", type_name(&value));
                self.errors.add(name, words);
                None
            }
        }
    }
}

fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// The name that a Python client knows a JSON type by.
pub(crate) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "NoneType",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_i64() || number.is_u64() || is_integer(&number.to_string()) => "int",
        Value::Number(_) => "float",
        Value::String(_) => "str",
        Value::Array(_) => "list",
        Value::Object(_) => "dict",
    }
}

fn check_text(value: &Value, rule: StringRule) -> Result<String, Vec<String>> {
    let text = match value {
        Value::String(text) if rule.trim => text.trim().to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return Err(vec!["Not a valid string.".to_owned()]),
    };
    if text.is_empty() && !rule.blank {
        return Err(vec!["This field may not be blank.".to_owned()]);
    }
    let mut faults = Vec::new();
    let length = text.chars().count();
    if text.contains('\0') {
        faults.push("Null characters are not allowed.".to_owned());
    }
    if length > rule.max {
        faults.push(format!("Ensure this field has no more than {} characters.", rule.max));
    }
    if length < rule.min {
        faults.push(format!("Ensure this field has at least {} characters.", rule.min));
    }
    if faults.is_empty() { Ok(text) } else { Err(faults) }
}

const NOT_A_NUMBER: &str = "A valid number is required.";
/// Digits of a number as it is sent; a longer one is refused before it is looked at.
const MAX_NUMBER_LENGTH: usize = 1000;

/// Reads `[-+]digits[.digits][e[-+]digits]` without ever making a binary float of it.
pub(crate) fn check_decimal(
    text: &str,
    trailing_zeros_mean_nothing: bool,
    rule: DecimalRule,
) -> Result<String, String> {
    if text.len() > MAX_NUMBER_LENGTH {
        return Err("String value too large.".to_owned());
    }
    let (negative, unsigned) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let exponent_digits = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
    if whole.len() + fraction.len() == 0
        || !all_digits(whole)
        || !all_digits(fraction)
        || exponent_digits.is_empty()
        || !all_digits(exponent_digits)
    {
        return Err(NOT_A_NUMBER.to_owned());
    }
    // beyond this the verdict is the same, and the arithmetic below cannot overflow
    let exponent: i64 = exponent.parse().unwrap_or(if exponent.starts_with('-') { -100_000 } else { 100_000 });
    let exponent = exponent.clamp(-100_000, 100_000);

    // value = digits * 10^-places
    let mut digits = format!("{whole}{fraction}").trim_start_matches('0').to_owned();
    let mut places = i64::try_from(fraction.len()).unwrap_or(i64::MAX) - exponent;
    while trailing_zeros_mean_nothing && places > 0 && digits.ends_with('0') {
        digits.pop();
        places -= 1;
    }
    let is_zero = digits.is_empty();
    if is_zero && trailing_zeros_mean_nothing {
        places = 0;
    }
    // zero has a digit too
    let length = i64::try_from(digits.len().max(1)).unwrap_or(i64::MAX);
    let total = if places < 0 { length - places } else { length.max(places) };
    let DecimalRule { digits: max_digits, places: max_places } = rule;
    if total > max_digits {
        return Err(format!("Ensure that there are no more than {max_digits} digits in total."));
    }
    if places > max_places {
        return Err(format!("Ensure that there are no more than {max_places} decimal places."));
    }
    let before = max_digits - max_places;
    if total - places.max(0) > before {
        return Err(format!("Ensure that there are no more than {before} digits before the decimal point."));
    }
    if negative && !is_zero {
        return Err("Ensure this value is greater than or equal to 0.".to_owned());
    }
    // from here on the number is small
    let zeros = usize::try_from(-places.min(0)).unwrap_or(0);
    let places = usize::try_from(places.max(0)).unwrap_or(0);
    let digits = if is_zero { String::new() } else { digits + &"0".repeat(zeros) };
    let padded = format!("{digits:0>width$}", width = places + 1);
    let (whole, fraction) = padded.split_at(padded.len() - places);
    Ok(if fraction.is_empty() { whole.to_owned() } else { format!("{whole}.{fraction}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRICE: DecimalRule = DecimalRule { digits: 12, places: 2 };

    #[test]
    fn decimals_keep_every_digit() {
        for (sent, kept) in [
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
            assert_eq!(check_decimal(sent, false, PRICE).as_deref(), Ok(kept), "{sent}");
        }
        assert_eq!(check_decimal("1.5000", true, PRICE).as_deref(), Ok("1.5"));
        assert_eq!(check_decimal("0.000", true, PRICE).as_deref(), Ok("0"));
    }

    #[test]
    fn a_decimal_over_a_bound_is_told_which() {
        let digits = "Ensure that there are no more than 12 digits in total.";
        let places = "Ensure that there are no more than 2 decimal places.";
        let before = "Ensure that there are no more than 10 digits before the decimal point.";
        let negative = "Ensure this value is greater than or equal to 0.";
        for (sent, fault) in [
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
            assert_eq!(check_decimal(sent, false, PRICE), Err(fault.to_owned()), "{sent}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_decimal_reader_panic(text in ".{0,40}") {
            let _ = check_decimal(&text, false, PRICE);
        }

        #[test]
        fn every_price_survives(cents in 0_u64..1_000_000_000_000) {
            let price = format!("{}.{:02}", cents / 100, cents % 100);
            proptest::prop_assert_eq!(check_decimal(&price, false, PRICE), Ok(price));
        }

        /// `sign value e exponent` against arithmetic with whole numbers: `digits * 10^-places`.
        #[test]
        fn a_price_is_taken_as_what_it_is_worth_or_not_at_all(
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
            // more places than two are refused even where they are zeros, as Python's Decimal counts them; zero has one digit
            let fits = cents.is_some_and(|cents| cents < 10_i128.pow(12))
                && !(negative && mantissa > 0)
                && !(mantissa == 0 && places < -9);
            let taken = check_decimal(&sent, false, PRICE);
            proptest::prop_assert_eq!(taken.is_ok(), fits, "{}: {:?}", &sent, &taken);
            if let Ok(text) = taken {
                let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
                let kept: i128 = format!("{whole}{fraction:0<2}").parse().unwrap();
                proptest::prop_assert_eq!(Some(kept), cents, "{} became {}", sent, text);
            }
        }
    }
}
