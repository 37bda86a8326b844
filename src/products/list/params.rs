//! Reads the parameters of a query, each by its kind, and gathers all that is wrong with them.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::filter::{ORDERINGS, Ordering};
use crate::{error::FieldErrors, http::Request, products::product::PRICE, timestamps, validation::check_decimal};

/// Every parameter of the list, in the order in which the normalised query has them.
const PARAMETERS: [&str; 11] = [
    "category",
    "tag",
    "price_min",
    "price_max",
    "created_after",
    "created_before",
    "search",
    "ordering",
    "page_size",
    "page",
    "cursor",
];
/// What is said of a parameter that stands twice.
pub(crate) const ONCE: &str = "This parameter may be given once only.";
const MAX_NAME: usize = 100;
/// Letters of a day, like 2023-08-08.
const DAY: usize = 10;
const MAX_WORDS: usize = 10;
/// A longer name is no slip of the finger.
const MAX_SLIP: usize = 32;
/// So many names that nobody knows are told.
const MAX_UNKNOWN: usize = 10;
const MAX_SEARCH: usize = 200;

/// Takes parameters out of a query by name; what nobody takes is unknown.
pub(crate) struct ParamParser {
    pairs: Vec<(String, String)>,
    pub(crate) errors: FieldErrors,
}

impl ParamParser {
    pub(crate) fn new(request: &Request, more: &[&str]) -> Self {
        let mut reader = Self { pairs: Vec::new(), errors: FieldErrors::default() };
        let mut unknowns = 0;
        for (name, value) in request.query() {
            if more.contains(&&*name) {
                continue;
            }
            if PARAMETERS.contains(&&*name) {
                if value.contains('\0') {
                    reader.fault(&name, "Null characters are not allowed.");
                }
                reader.pairs.push((name.into_owned(), value.into_owned()));
            } else if unknowns < MAX_UNKNOWN && !reader.errors.has(&name) {
                unknowns += 1;
                let words = unknown(&name, PARAMETERS.iter().chain(more).copied());
                reader.fault(&name, words);
            }
        }
        reader
    }

    pub(crate) fn fault(&mut self, name: &str, words: impl Into<String>) {
        self.errors.add(name, words);
    }

    fn all(&self, name: &str) -> Vec<String> {
        let values = self.pairs.iter().filter(|(given, _)| given == name);
        values.map(|(_, value)| value.trim().to_owned()).collect()
    }

    /// A parameter that may stand once; an empty one counts as absent, as in forms.
    pub(crate) fn single(&mut self, name: &str) -> Option<String> {
        let mut values = self.all(name);
        if values.len() > 1 {
            self.fault(name, ONCE);
        }
        values.pop().filter(|value| !value.is_empty())
    }

    pub(crate) fn names(&mut self, name: &str, most: usize) -> Vec<String> {
        let names: BTreeSet<String> = self.all(name).into_iter().filter(|value| !value.is_empty()).collect();
        if names.len() > most {
            self.fault(name, format!("Ensure this field has no more than {most} elements."));
        }
        if names.iter().any(|value| value.chars().count() > MAX_NAME) {
            self.fault(name, format!("Ensure this field has no more than {MAX_NAME} characters."));
        }
        names.into_iter().collect()
    }

    pub(crate) fn price(&mut self, name: &str) -> Option<String> {
        match check_decimal(&self.single(name)?, true, PRICE) {
            Ok(price) => {
                let (whole, places) = price.split_once('.').unwrap_or((&price, ""));
                Some(format!("{whole}.{places:0<2}"))
            }
            Err(words) => {
                self.fault(name, words);
                None
            }
        }
    }

    /// A moment, or a day: from its first moment on, or `through` its last.
    pub(crate) fn time(&mut self, name: &str, through: bool) -> Option<Timestamp> {
        // a "+" that was not escaped has become a space
        let text = self.single(name)?;
        let escaped = match text.rsplit_once(' ') {
            Some((before, offset)) if before.contains(['T', 't', ' ']) => format!("{before}+{offset}"),
            _ => text.clone(),
        };
        let time = timestamps::parse(&escaped);
        let is_day = text.len() == DAY;
        let time = if through && is_day { time.and_then(timestamps::end_of_day) } else { time };
        if time.is_none() {
            self.fault(name, timestamps::WRONG_FORMAT);
        }
        time
    }

    pub(crate) fn words(&mut self, name: &str) -> Vec<String> {
        let Some(text) = self.single(name) else { return Vec::new() };
        if text.chars().count() > MAX_SEARCH {
            self.fault(name, format!("Ensure this field has no more than {MAX_SEARCH} characters."));
            return Vec::new();
        }
        let words: BTreeSet<String> = text.split_whitespace().map(str::to_ascii_lowercase).collect();
        if words.len() > MAX_WORDS {
            self.fault(name, format!("Ensure this field has no more than {MAX_WORDS} words."));
        }
        words.into_iter().collect()
    }

    pub(crate) fn ordering(&mut self, name: &str) -> Ordering {
        let Some(text) = self.single(name) else { return Ordering::default() };
        let (column, descending) = text.strip_prefix('-').map_or((text.as_str(), false), |column| (column, true));
        let Some((_, column)) = ORDERINGS.iter().find(|(name, _)| *name == column) else {
            self.fault(name, format!("\"{text}\" is not a valid choice."));
            return Ordering::default();
        };
        Ordering { column: *column, descending }
    }

    /// From 1 to `most`.
    pub(crate) fn integer(&mut self, name: &str, most: i64) -> Option<i64> {
        let text = self.single(name)?;
        let digits = text.strip_prefix('-').unwrap_or(&text);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            self.fault(name, "A valid integer is required.");
            return None;
        }
        // one that is too long is larger than any
        let number = text.parse().unwrap_or(if text.starts_with('-') { i64::MIN } else { i64::MAX });
        if number < 1 {
            self.fault(name, "Ensure this value is greater than or equal to 1.");
        } else if number > most {
            self.fault(name, format!("Ensure this value is less than or equal to {most}."));
        }
        Some(number)
    }
}

/// What is said of a parameter that nobody knows: with the nearest that somebody does.
pub(crate) fn unknown<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    // nothing that long is a slip of the finger, and comparing takes time by its length
    let known = known.filter(|_| name.len() <= MAX_SLIP);
    let near = known.map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate)).min();
    match near {
        Some((distance, candidate)) if distance * 3 <= candidate.len().max(name.len()) => {
            format!("Unknown parameter. Did you mean \"{candidate}\"?")
        }
        _ => "Unknown parameter.".to_owned(),
    }
}
