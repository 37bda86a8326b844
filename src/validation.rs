//! Validation of the fields of a request body, with the rules and messages of Django REST framework. All validation
//! errors are returned together, keyed by field.

use serde_json::{Map, Value};

use crate::error::{FieldErrors, Result};

/// The fields of a request body, and the validation errors found so far.
#[derive(Debug)]
pub(crate) struct Fields {
    values: Map<String, Value>,
    errors: FieldErrors,
    /// Whether an absent required field is an error; `false` for PATCH.
    required: bool,
}

/// The rule for a string field. Lengths are in characters.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StringRule {
    pub(crate) min_length: usize,
    pub(crate) max_length: usize,
    pub(crate) allow_blank: bool,
    /// Whether leading and trailing whitespace is removed.
    pub(crate) trim: bool,
}

/// Returns the rule for a trimmed string of 1 to `max_length` characters.
pub(crate) const fn text(max_length: usize) -> StringRule {
    StringRule { min_length: 0, max_length, allow_blank: false, trim: true }
}

/// The rule for a non-negative decimal.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DecimalRule {
    pub(crate) max_digits: i64,
    /// Limit of the digits after the decimal point.
    pub(crate) max_places: i64,
}

const REQUIRED: &str = "This field is required.";
const NULL: &str = "This field may not be null.";
/// Limit of the items of a list field.
pub(crate) const MAX_ITEMS: usize = 100;

impl Fields {
    /// For POST and PUT: absent required fields are errors.
    pub(crate) fn new(values: Map<String, Value>) -> Self {
        Self { values, errors: FieldErrors::default(), required: true }
    }

    /// For PATCH: absent fields are not errors.
    pub(crate) fn partial(values: Map<String, Value>) -> Self {
        Self { required: false, ..Self::new(values) }
    }

    /// Whether the body contains this field and it has not been read yet.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    pub(crate) fn add_error(&mut self, name: &str, message: impl Into<String>) {
        self.errors.add(name, message);
    }

    pub(crate) fn has_error(&self, name: &str) -> bool {
        self.errors.has(name)
    }

    pub(crate) fn into_errors(self) -> FieldErrors {
        self.errors
    }

    /// Returns the validation errors, if there are any.
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

    /// Reads a required string.
    pub(crate) fn text(&mut self, name: &str, rule: StringRule) -> Option<String> {
        let value = self.take(name, true)?;
        self.checked_text(name, &value, rule)
    }

    /// Reads an optional string.
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

    /// Reads an optional list of strings. Errors of items are keyed by the index of the item.
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
                Err(messages) => messages.into_iter().for_each(|message| self.errors.add_item(name, index, message)),
            }
        }
        (texts.len() == items.len()).then_some(texts)
    }

    /// Reads a required decimal, sent as a number or a string, and returns it in plain decimal notation with every
    /// digit.
    pub(crate) fn decimal(&mut self, name: &str, rule: DecimalRule) -> Option<String> {
        let checked = match self.take(name, true)? {
            // trailing zeros of a JSON number are not significant
            Value::Number(number) => check_decimal(&number.to_string(), true, rule),
            Value::String(text) => check_decimal(text.trim(), false, rule),
            _ => Err(NOT_A_NUMBER.to_owned()),
        };
        checked.map_err(|message| self.errors.add(name, message)).ok()
    }

    /// Reads an optional id of another row, sent as a number or a string.
    pub(crate) fn optional_id(&mut self, name: &str) -> Option<i64> {
        let value = self.take(name, false)?;
        if value == "" {
            // in a form, an empty field stands for null
            self.errors.add(name, NULL);
            return None;
        }
        let digits = match &value {
            Value::Number(number) => number.to_string(),
            Value::String(text) => text.trim().to_owned(),
            _ => String::new(),
        };
        let parsed = digits.parse().map_err(|_| {
            if is_integer(&digits) {
                format!("Invalid pk \"{digits}\" - object does not exist.")
            } else {
                format!("Incorrect type. Expected pk value, received {}.", type_name(&value))
            }
        });
        parsed.map_err(|message| self.errors.add(name, message)).ok()
    }
}

fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Returns the name of the Python type that corresponds to a JSON value.
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
    if text.is_empty() && !rule.allow_blank {
        return Err(vec!["This field may not be blank.".to_owned()]);
    }
    let mut messages = Vec::new();
    let length = text.chars().count();
    if text.contains('\0') {
        messages.push("Null characters are not allowed.".to_owned());
    }
    if length > rule.max_length {
        messages.push(format!("Ensure this field has no more than {} characters.", rule.max_length));
    }
    if length < rule.min_length {
        messages.push(format!("Ensure this field has at least {} characters.", rule.min_length));
    }
    if messages.is_empty() { Ok(text) } else { Err(messages) }
}

const NOT_A_NUMBER: &str = "A valid number is required.";
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

/// Returns the whole number that a text stands for, such as `12`, `12.0` or `1.2E+1`. The value never passes through a
/// binary float.
pub(crate) fn whole_number(text: &str) -> Option<i64> {
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    let mut decimal = Decimal::parse(text).filter(|_| text.len() <= MAX_NUMBER_LENGTH)?;
    decimal.normalize();
    // more digits than an i64 has
    if decimal.places > 0 || decimal.places < -19 {
        return None;
    }
    format!("{}{}", if decimal.is_negative { "-" } else { "" }, decimal.to_plain_text()).parse().ok()
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

    #[test]
    fn whole_numbers_may_have_zero_decimals_or_an_exponent() {
        for (text, number) in [
            ("7", 7),
            ("7.0", 7),
            ("7.", 7),
            ("1E+00", 1),
            ("1.20e2", 120),
            ("-3.00", -3),
            ("120E-1", 12),
            ("0.000", 0),
            ("0e30", 0),
            ("9007199254740993.0", 9_007_199_254_740_993),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808.0", i64::MIN),
        ] {
            assert_eq!(whole_number(text), Some(number), "{text}");
        }
        for text in ["", "1.5", "1e-1", "9223372036854775808", "1e19", "1e99999999999", "NaN", "inf", "1,0", "0x1"] {
            assert_eq!(whole_number(text), None, "{text}");
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
