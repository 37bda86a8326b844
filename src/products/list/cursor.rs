//! Where a page of keyset paging begins: after, or before, a product, by what the list is ordered by.
//!
//! A cursor belongs to one filter and one ordering; with another one it is no cursor. It is no secret and no permission:
//! the sum in it tells damage, not forgery, and so each value is held to what its column may hold.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jiff::Timestamp;

use super::filter::{Column, Filter, Ordering, scope_key};
use crate::{digest::sha256, products::product::PRICE, timestamps, validation::check_decimal};

/// A place between two products.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// Whether the page ends there instead of beginning there.
    pub(crate) backwards: bool,
    /// The product beside the place.
    pub(crate) id: i64,
    /// What that product is ordered by.
    pub(crate) value: Value,
}

/// What a product is ordered by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// The id alone.
    Id,
    /// A name.
    Name(String),
    /// A decimal.
    Price(String),
    /// A moment.
    CreatedAt(Timestamp),
}

const CHECKSUM_BYTES: usize = 8;
const MAX_TEXT: usize = 1024;

impl Cursor {
    /// In letters that need no escaping.
    pub(crate) fn encode(&self, filter: &Filter, ordering: Ordering) -> String {
        let mut bytes = vec![u8::from(self.backwards)];
        bytes.extend_from_slice(&self.id.to_be_bytes());
        match &self.value {
            Value::Id => {}
            Value::Name(text) | Value::Price(text) => bytes.extend_from_slice(text.as_bytes()),
            Value::CreatedAt(time) => bytes.extend_from_slice(&time.as_microsecond().to_be_bytes()),
        }
        bytes.extend_from_slice(&checksum(&bytes, &scope_key(filter, ordering)));
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    /// What was encoded for the same filter and ordering, or could have been; nothing else.
    pub(crate) fn decode(text: &str, filter: &Filter, ordering: Ordering) -> Option<Self> {
        if text.len() > MAX_TEXT {
            return None;
        }
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        let (bytes, given) = bytes.split_last_chunk::<CHECKSUM_BYTES>()?;
        if checksum(bytes, &scope_key(filter, ordering)) != *given {
            return None;
        }
        let (backwards, rest) = bytes.split_first()?;
        let (id, value) = rest.split_first_chunk::<8>()?;
        let text = || String::from_utf8(value.to_vec()).ok();
        let value = match ordering.column {
            Column::Id => Value::Id,
            Column::Name => Value::Name(text().filter(|name| !name.contains('\0'))?),
            Column::Price => Value::Price(check_decimal(&text()?, false, PRICE).ok()?),
            Column::CreatedAt => {
                let micros = i64::from_be_bytes(value.try_into().ok()?);
                Value::CreatedAt(timestamps::stored(Timestamp::from_microsecond(micros).ok()?)?)
            }
        };
        Some(Self { backwards: *backwards == 1, id: i64::from_be_bytes(*id), value })
    }
}

fn checksum(bytes: &[u8], scope: &str) -> [u8; CHECKSUM_BYTES] {
    let mut checksum = [0; CHECKSUM_BYTES];
    checksum.copy_from_slice(&sha256(&[scope.as_bytes(), b"\n", bytes])[..CHECKSUM_BYTES]);
    checksum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(column: Column, descending: bool) -> Ordering {
        Ordering { column, descending }
    }

    #[test]
    fn cursor_is_valid_only_for_its_own_list() {
        let all = Filter::default();
        for (ordering, value) in [
            (by(Column::Id, false), Value::Id),
            (by(Column::Name, true), Value::Name("Żółw".into())),
            (by(Column::Price, false), Value::Price("0.10".into())),
            (by(Column::CreatedAt, false), Value::CreatedAt(Timestamp::from_microsecond(-1).unwrap())),
        ] {
            let cursor = Cursor { backwards: true, id: i64::MAX, value };
            let text = cursor.encode(&all, ordering);
            assert_eq!(Cursor::decode(&text, &all, ordering), Some(cursor));
            let reversed = by(ordering.column, !ordering.descending);
            let filtered = Filter { words: vec!["x".into()], ..Filter::default() };
            let other_lists = (Cursor::decode(&text, &all, reversed), Cursor::decode(&text, &filtered, ordering));
            assert_eq!(other_lists, (None, None));
            for length in 0..text.len() {
                assert_eq!(Cursor::decode(&text[..length], &all, ordering), None, "{length}");
                let mut damaged = text.clone();
                let letter = if text.as_bytes()[length] == b'A' { "B" } else { "A" };
                damaged.replace_range(length..=length, letter);
                assert_eq!(Cursor::decode(&damaged, &all, ordering), None, "{damaged}");
            }
        }
    }

    #[test]
    fn cursor_with_a_value_outside_its_column_is_invalid() {
        let moment = |year: i64| Timestamp::from_second(year * 31_556_952 - 62_167_219_200).unwrap();
        for (column, value) in [
            (Column::Name, Value::Name("a\0b".into())),
            (Column::Price, Value::Price("much".into())),
            (Column::Price, Value::Price("1e300".into())),
            (Column::CreatedAt, Value::CreatedAt(moment(-5000))),
        ] {
            let (all, ordering) = (Filter::default(), by(column, false));
            let forged = Cursor { backwards: false, id: 1, value }.encode(&all, ordering);
            assert_eq!(Cursor::decode(&forged, &all, ordering), None, "{forged}");
        }
    }

    proptest::proptest! {
        #[test]
        fn decoding_never_panics(text in ".{0,80}") {
            let _ = Cursor::decode(&text, &Filter::default(), Ordering::default());
        }
    }
}
