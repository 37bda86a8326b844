//! Which products a request asks for: its query, checked and normalised. Two queries that ask for the same are one text.

use std::collections::BTreeSet;

use jiff::{Timestamp, civil::Date, tz::TimeZone};

use super::cursor::Cursor;
use crate::{
    error::{Error, FieldErrors, Result},
    http::{
        Request,
        fields::{Decimal, check_decimal},
    },
    timestamps::iso8601,
};

/// What a request asks for.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Which products.
    pub filter: Filter,
    /// In which order.
    pub ordering: Ordering,
    /// Which part of them.
    pub paging: Paging,
}

/// Conditions that all hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// In any of these categories, by name; empty: in whatever category.
    pub categories: Vec<String>,
    /// With all of these tags, by name.
    pub tags: Vec<String>,
    /// At least so dear; a decimal with two places.
    pub price_min: Option<String>,
    /// At most so dear; a decimal with two places.
    pub price_max: Option<String>,
    /// Not older.
    pub created_after: Option<Timestamp>,
    /// Not younger.
    pub created_before: Option<Timestamp>,
    /// Each occurs in name or description, without regard to case.
    pub words: Vec<String>,
}

/// A column and a direction; ties go by id, always upwards.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ordering {
    /// What is compared first.
    pub column: Column,
    /// The largest first.
    pub descending: bool,
}

/// What products can be ordered by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Column {
    /// The id.
    #[default]
    Id,
    /// The name, by its bytes.
    Name,
    /// The price.
    Price,
    /// The time of creation.
    CreatedAt,
}

/// Which part of the products in their order.
#[derive(Debug, Clone, Default)]
pub enum Paging {
    /// All.
    #[default]
    Whole,
    /// So many from a place on.
    Keyset {
        /// Products on the page.
        size: i64,
        /// The place; without it, the beginning.
        cursor: Option<Cursor>,
    },
    /// The page of a number.
    Numbered {
        /// From 1.
        page: i64,
        /// Products on the page.
        size: i64,
    },
}

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
const ORDERINGS: [(&str, Column); 4] =
    [("id", Column::Id), ("name", Column::Name), ("price", Column::Price), ("created_at", Column::CreatedAt)];
const PRICE: Decimal = Decimal { digits: 12, places: 2 };
const DEFAULT_SIZE: i64 = 100;
const MAX_SIZE: i64 = 1000;
const MAX_NAME: usize = 100;
const MAX_CATEGORIES: usize = 20;
/// Each is a join.
const MAX_TAGS: usize = 10;
const MAX_WORDS: usize = 10;
const MAX_SEARCH: usize = 200;

impl Selection {
    /// Reads the query of a request; `more` are parameters that are not ours. All faults at once.
    pub fn of(request: &Request, more: &[&str]) -> Result<Self> {
        if !request.has_query() {
            return Ok(Self::default());
        }
        let mut reader = Reader::new(request, more);
        let filter = Filter {
            categories: reader.names("category", MAX_CATEGORIES),
            tags: reader.names("tag", MAX_TAGS),
            price_min: reader.price("price_min"),
            price_max: reader.price("price_max"),
            created_after: reader.time("created_after"),
            created_before: reader.time("created_before"),
            words: reader.words("search"),
        };
        let ordering = reader.ordering("ordering");
        let size = reader.integer("page_size", MAX_SIZE);
        let page = reader.integer("page", i64::MAX);
        let cursor = reader.single("cursor");
        if page.is_some() && cursor.is_some() {
            reader.fault("cursor", "May not be combined with \"page\".");
        }
        reader.errors.into_result()?;
        let mut selection = Self { filter, ordering, paging: Paging::Whole };
        selection.paging = match (page, cursor, size) {
            (Some(page), _, size) => Paging::Numbered { page, size: size.unwrap_or(DEFAULT_SIZE) },
            (None, Some(text), size) => {
                let cursor = Cursor::decode(&text, &selection).ok_or(Error::InvalidCursor)?;
                Paging::Keyset { size: size.unwrap_or(DEFAULT_SIZE), cursor: Some(cursor) }
            }
            (None, None, Some(size)) => Paging::Keyset { size, cursor: None },
            (None, None, None) => Paging::Whole,
        };
        Ok(selection)
    }

    /// Whether it is the whole list, by id: what the list is without parameters.
    pub fn is_everything(&self) -> bool {
        matches!(self.paging, Paging::Whole) && self.filter == Filter::default() && self.ordering == Ordering::default()
    }

    /// The normalised query without the part about pages.
    pub fn without_paging(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(self.filter.key());
        if self.ordering != Ordering::default() {
            query.append_pair("ordering", &self.ordering.name());
        }
        query.finish()
    }

    /// The normalised query: what the cache knows this selection by.
    pub fn key(&self) -> String {
        let key = self.without_paging();
        match &self.paging {
            Paging::Whole => key,
            Paging::Keyset { size, cursor: None } => self.link(&[("page_size", &size.to_string())]),
            Paging::Keyset { size, cursor: Some(cursor) } => {
                self.link(&[("page_size", &size.to_string()), ("cursor", &cursor.encode(self))])
            }
            Paging::Numbered { page, size } => {
                self.link(&[("page_size", &size.to_string()), ("page", &page.to_string())])
            }
        }
    }

    /// The normalised query with other parameters about pages.
    pub fn link(&self, paging: &[(&str, &str)]) -> String {
        let mut query = form_urlencoded::Serializer::new(self.without_paging());
        query.extend_pairs(paging);
        query.finish()
    }
}

impl Filter {
    /// The normalised query of the filter alone.
    pub fn key(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(self.categories.iter().map(|name| ("category", name)));
        query.extend_pairs(self.tags.iter().map(|name| ("tag", name)));
        query.extend_pairs(self.price_min.iter().map(|price| ("price_min", price)));
        query.extend_pairs(self.price_max.iter().map(|price| ("price_max", price)));
        query.extend_pairs(self.created_after.iter().map(|time| ("created_after", iso8601(*time))));
        query.extend_pairs(self.created_before.iter().map(|time| ("created_before", iso8601(*time))));
        if !self.words.is_empty() {
            query.append_pair("search", &self.words.join(" "));
        }
        query.finish()
    }
}

impl Ordering {
    /// As it stands in a query.
    pub fn name(self) -> String {
        let name = ORDERINGS.iter().find(|(_, column)| *column == self.column).map_or("id", |(name, _)| name);
        if self.descending { format!("-{name}") } else { name.to_owned() }
    }
}

/// Takes parameters out of a query by name; what nobody takes is unknown.
struct Reader {
    pairs: Vec<(String, String)>,
    errors: FieldErrors,
}

impl Reader {
    fn new(request: &Request, more: &[&str]) -> Self {
        let mut reader = Self { pairs: Vec::new(), errors: FieldErrors::default() };
        for (name, value) in request.query() {
            if more.contains(&&*name) {
                continue;
            }
            if PARAMETERS.contains(&&*name) {
                if value.contains('\0') {
                    reader.fault(&name, "Null characters are not allowed.");
                }
                reader.pairs.push((name.into_owned(), value.into_owned()));
            } else if !reader.errors.has(&name) {
                let words = unknown(&name, PARAMETERS.iter().chain(more).copied());
                reader.fault(&name, words);
            }
        }
        reader
    }

    fn fault(&mut self, name: &str, words: impl Into<String>) {
        self.errors.add(name, words);
    }

    fn all(&self, name: &str) -> Vec<String> {
        let values = self.pairs.iter().filter(|(given, _)| given == name);
        values.map(|(_, value)| value.trim().to_owned()).collect()
    }

    /// A parameter that may stand once; an empty one counts as absent, as in forms.
    fn single(&mut self, name: &str) -> Option<String> {
        let mut values = self.all(name);
        if values.len() > 1 {
            self.fault(name, "This parameter may be given once only.");
        }
        values.pop().filter(|value| !value.is_empty())
    }

    fn names(&mut self, name: &str, most: usize) -> Vec<String> {
        let names: BTreeSet<String> = self.all(name).into_iter().filter(|value| !value.is_empty()).collect();
        if names.len() > most {
            self.fault(name, format!("Ensure this field has no more than {most} elements."));
        }
        if names.iter().any(|value| value.chars().count() > MAX_NAME) {
            self.fault(name, format!("Ensure this field has no more than {MAX_NAME} characters."));
        }
        names.into_iter().collect()
    }

    fn price(&mut self, name: &str) -> Option<String> {
        match check_decimal(&self.single(name)?, true, PRICE) {
            Ok(price) => {
                let (whole, places) = price.split_once('.').unwrap_or((&price, ""));
                Some(format!("{whole}.{places:0<2}"))
            }
            Err(faults) => {
                faults.into_iter().for_each(|words| self.fault(name, words));
                None
            }
        }
    }

    fn time(&mut self, name: &str) -> Option<Timestamp> {
        // a "+" that was not escaped has become a space
        let text = self.single(name)?;
        let escaped = match text.rsplit_once(' ') {
            Some((before, offset)) if before.contains(['T', 't', ' ']) => format!("{before}+{offset}"),
            _ => text.clone(),
        };
        let time = escaped.parse::<Timestamp>().ok().or_else(|| {
            let midnight = text.parse::<Date>().ok().filter(|_| text.len() == 10)?.to_zoned(TimeZone::UTC).ok()?;
            Some(midnight.timestamp())
        });
        // PostgreSQL counts microseconds
        let time = time.and_then(|time| Timestamp::from_microsecond(time.as_microsecond()).ok());
        let first: Option<Timestamp> = "0001-01-01T00:00:00Z".parse().ok();
        if time.is_none() || time < first {
            self.fault(name, "Datetime has wrong format. Use ISO 8601, like 2023-08-08T12:00:00Z.");
            return None;
        }
        time
    }

    fn words(&mut self, name: &str) -> Vec<String> {
        let Some(text) = self.single(name) else { return Vec::new() };
        if text.chars().count() > MAX_SEARCH {
            self.fault(name, format!("Ensure this field has no more than {MAX_SEARCH} characters."));
            return Vec::new();
        }
        let words: BTreeSet<String> = text.split_whitespace().map(str::to_lowercase).collect();
        if words.len() > MAX_WORDS {
            self.fault(name, format!("Ensure this field has no more than {MAX_WORDS} words."));
        }
        words.into_iter().collect()
    }

    fn ordering(&mut self, name: &str) -> Ordering {
        let Some(text) = self.single(name) else { return Ordering::default() };
        let (column, descending) = text.strip_prefix('-').map_or((text.as_str(), false), |column| (column, true));
        let Some((_, column)) = ORDERINGS.iter().find(|(name, _)| *name == column) else {
            self.fault(name, format!("\"{text}\" is not a valid choice."));
            return Ordering::default();
        };
        Ordering { column: *column, descending }
    }

    /// From 1 to `most`.
    fn integer(&mut self, name: &str, most: i64) -> Option<i64> {
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
fn unknown<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let near = known.map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate)).min();
    match near {
        Some((distance, candidate)) if distance * 3 <= candidate.len().max(name.len()) => {
            format!("Unknown parameter. Did you mean \"{candidate}\"?")
        }
        _ => "Unknown parameter.".to_owned(),
    }
}
