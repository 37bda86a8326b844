//! Parses the query parameters of a list request and collects their validation errors.

use std::{borrow::Cow, collections::BTreeSet};

use jiff::Timestamp;

use super::filter::{ORDERING_COLUMNS, Ordering};
use crate::{
    error::FieldErrors,
    products::{
        fields::{Field, Fields},
        product::PRICE_RULE,
    },
    timestamps,
    validation::check_decimal,
};

/// The parameters of the list, in the order of the normalised query.
const PARAM_NAMES: [&str; 13] = [
    "id",
    "category",
    "tag",
    "price_min",
    "price_max",
    "created_after",
    "created_before",
    "search",
    "ordering",
    "fields",
    "page_size",
    "page",
    "cursor",
];
/// The error message for a parameter that may be given once only and is repeated.
pub(crate) const DUPLICATE_PARAM: &str = "This parameter may be given once only.";
const MAX_NAME_CHARS: usize = 100;
const MAX_SEARCH_TERMS: usize = 10;
const MAX_SEARCH_CHARS: usize = 200;
/// A longer name is unlikely to be a typing error, and the cost of a comparison grows with the length.
const MAX_SUGGESTION_INPUT: usize = 32;
/// Number of unknown parameters, and of unknown fields, that are reported.
const MAX_REPORTED_UNKNOWN: usize = 10;

/// Parses query parameters by name and collects their errors.
pub(crate) struct ParamParser {
    pairs: Vec<(String, String)>,
    pub(crate) errors: FieldErrors,
}

impl ParamParser {
    /// Collects the parameters of the list and `other_params`. Any other parameter is an error.
    pub(crate) fn new<'a>(params: impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)>, other_params: &[&str]) -> Self {
        Self::of_names(params, &[&PARAM_NAMES, other_params].concat())
    }

    /// Collects the parameters with these names. Any other parameter is an error.
    pub(crate) fn of_names<'a>(params: impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)>, names: &[&str]) -> Self {
        let mut parser = Self { pairs: Vec::new(), errors: FieldErrors::default() };
        let mut reported = 0;
        for (name, value) in params {
            if names.contains(&&*name) {
                if value.contains('\0') {
                    parser.add_error(&name, "Null characters are not allowed.");
                }
                parser.pairs.push((name.into_owned(), value.into_owned()));
            } else if reported < MAX_REPORTED_UNKNOWN && !parser.errors.has(&name) {
                reported += 1;
                let message = unknown_param_message(&name, names.iter().copied());
                parser.add_error(&name, message);
            }
        }
        parser
    }

    pub(crate) fn add_error(&mut self, name: &str, message: impl Into<String>) {
        self.errors.add(name, message);
    }

    fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(param, _)| param == name).map(|(_, value)| value.as_str())
    }

    /// Returns the value of a parameter that may be given once only. An empty value counts as absent, as in forms.
    pub(crate) fn single(&mut self, name: &str) -> Option<String> {
        let mut values: Vec<&str> = self.values(name).map(str::trim).collect();
        let is_duplicate = values.len() > 1;
        let value = values.pop().filter(|value| !value.is_empty()).map(str::to_owned);
        if is_duplicate {
            self.add_error(name, DUPLICATE_PARAM);
        }
        value
    }

    /// Returns the distinct values of a repeatable parameter, sorted. It may be given `max` times. The values keep
    /// surrounding spaces, which a name that another program stored may have.
    pub(crate) fn names(&mut self, name: &str, max: usize) -> Vec<String> {
        let names: Vec<&str> = self.values(name).filter(|value| !value.trim().is_empty()).collect();
        let count = names.len();
        let names: BTreeSet<String> = names.into_iter().map(str::to_owned).collect();
        if count > max {
            self.add_error(name, format!("Ensure this field has no more than {max} elements."));
        }
        if names.iter().any(|value| value.trim().chars().count() > MAX_NAME_CHARS) {
            self.add_error(name, format!("Ensure this field has no more than {MAX_NAME_CHARS} characters."));
        }
        names.into_iter().collect()
    }

    /// Returns the distinct integers of a repeatable parameter, sorted. It may be given `max` times. Empty values count as
    /// absent.
    pub(crate) fn ids(&mut self, name: &str, max: usize) -> Vec<i64> {
        let values = self.values(name).map(str::trim).filter(|value| !value.is_empty());
        match values.map(|value| check_integer(value, i64::MIN, i64::MAX)).collect::<Result<Vec<i64>, _>>() {
            Ok(ids) if ids.len() > max => {
                self.add_error(name, format!("Ensure this field has no more than {max} elements."));
                Vec::new()
            }
            Ok(ids) => BTreeSet::from_iter(ids).into_iter().collect(),
            Err(message) => {
                self.add_error(name, message);
                Vec::new()
            }
        }
    }

    /// Returns a price with two decimal places.
    pub(crate) fn price(&mut self, name: &str) -> Option<String> {
        match check_decimal(&self.single(name)?, true, PRICE_RULE) {
            Ok(price) => {
                let (integer, fraction) = price.split_once('.').unwrap_or((&price, ""));
                Some(format!("{integer}.{fraction:0<2}"))
            }
            Err(message) => {
                self.add_error(name, message);
                None
            }
        }
    }

    /// Returns a timestamp. A date without a time means the start of that day, or its end if `end_of_day` is set.
    pub(crate) fn timestamp(&mut self, name: &str, end_of_day: bool) -> Option<Timestamp> {
        let text = self.single(name)?;
        // an unescaped "+" of the offset was decoded as a space
        let with_plus = match text.rsplit_once(' ') {
            Some((before, offset)) if before.contains(['T', 't', ' ']) => format!("{before}+{offset}"),
            _ => text.clone(),
        };
        let time = timestamps::parse_bound(&with_plus, end_of_day);
        if time.is_none() {
            self.add_error(name, timestamps::WRONG_FORMAT);
        }
        time
    }

    /// Returns the distinct terms of a search, in ASCII lower case, sorted.
    pub(crate) fn search_terms(&mut self, name: &str) -> Vec<String> {
        let Some(text) = self.single(name) else { return Vec::new() };
        if text.chars().count() > MAX_SEARCH_CHARS {
            self.add_error(name, format!("Ensure this field has no more than {MAX_SEARCH_CHARS} characters."));
            return Vec::new();
        }
        let terms: BTreeSet<String> = text.split_whitespace().map(str::to_ascii_lowercase).collect();
        if terms.len() > MAX_SEARCH_TERMS {
            self.add_error(name, format!("Ensure this field has no more than {MAX_SEARCH_TERMS} words."));
        }
        terms.into_iter().collect()
    }

    pub(crate) fn ordering(&mut self, name: &str) -> Ordering {
        let Some(text) = self.single(name) else { return Ordering::default() };
        let (column, descending) = text.strip_prefix('-').map_or((text.as_str(), false), |column| (column, true));
        let Some((_, column)) = ORDERING_COLUMNS.iter().find(|(name, _)| *name == column) else {
            self.add_error(name, format!("\"{text}\" is not a valid choice."));
            return Ordering::default();
        };
        Ordering { column: *column, descending }
    }

    /// Returns the fields that a list of names selects.
    pub(crate) fn fields(&mut self, name: &str) -> Fields {
        let Some(text) = self.single(name) else { return Fields::ALL };
        let (mut fields, mut unknown) = (Vec::new(), Vec::new());
        for field in text.split(',').map(str::trim) {
            match Field::from_name(field) {
                Some(field) => fields.push(field),
                None if unknown.len() < MAX_REPORTED_UNKNOWN && !unknown.contains(&field) => unknown.push(field),
                None => {}
            }
        }
        for field in unknown {
            let message = format!("\"{field}\" is not a valid choice.");
            self.add_error(name, with_suggestion(message, field, Field::ALL.into_iter().map(Field::name)));
        }
        fields.into_iter().collect()
    }

    /// Returns an integer from 1 to `max`.
    pub(crate) fn integer(&mut self, name: &str, max: i64) -> Option<i64> {
        let text = self.single(name)?;
        check_integer(&text, 1, max).map_err(|message| self.add_error(name, message)).ok()
    }

    pub(crate) fn boolean(&mut self, name: &str) -> Option<bool> {
        let value = parse_boolean(&self.single(name)?);
        value.map_err(|message| self.add_error(name, message)).ok()
    }
}

/// Parses a boolean. The error is the validation message.
pub(crate) fn parse_boolean(text: &str) -> Result<bool, &'static str> {
    match text {
        "true" | "True" | "1" => Ok(true),
        "false" | "False" | "0" => Ok(false),
        _ => Err("Must be a valid boolean."),
    }
}

/// Parses an integer from `min` to `max`. The error is the validation message.
fn check_integer(text: &str, min: i64, max: i64) -> Result<i64, String> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("A valid integer is required.".to_owned());
    }
    // digits only, so a parse error is an overflow
    let number = text.parse::<i64>().ok();
    if number.map_or(text.starts_with('-'), |number| number < min) {
        return Err(format!("Ensure this value is greater than or equal to {min}."));
    }
    number.filter(|number| *number <= max).ok_or_else(|| format!("Ensure this value is less than or equal to {max}."))
}

/// Returns the error message for an unknown parameter, with the most similar of the `known` names if one is close.
pub(crate) fn unknown_param_message<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    with_suggestion("Unknown parameter.".to_owned(), name, known)
}

/// Appends the most similar of the `known` names to the message, if one is close to `name`.
fn with_suggestion<'a>(message: String, name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let candidates = known.filter(|_| name.len() <= MAX_SUGGESTION_INPUT);
    let nearest = candidates.map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate)).min();
    match nearest {
        Some((distance, candidate)) if distance * 3 <= candidate.len().max(name.len()) => {
            format!("{message} Did you mean \"{candidate}\"?")
        }
        _ => message,
    }
}
