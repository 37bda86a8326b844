//! Validation of the fields of a request body, with the rules and messages of Django REST framework. All validation
//! errors are returned together, keyed by field.

mod decimal;

use serde_json::{Map, Value};

use self::decimal::NOT_A_NUMBER;
pub(crate) use self::decimal::{DecimalRule, check_decimal};
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
