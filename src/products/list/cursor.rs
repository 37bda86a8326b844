//! Cursors of keyset paging: a page begins after, or ends before, the product that its cursor identifies.
//!
//! A cursor is valid only for the filter and the ordering that it was encoded for. It is neither secret nor a
//! credential. Its checksum detects damage, not forgery; `decode` therefore checks that the value fits its column.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jiff::Timestamp;

use super::filter::{Column, Filter, Ordering, scope_key};
use crate::{digest::sha256, products::product::PRICE_RULE, timestamps, validation::check_decimal};

/// A position in an ordered list, beside one product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// Whether the page ends before the product instead of beginning after it.
    pub(crate) backwards: bool,
    /// The product's id.
    pub(crate) id: i64,
    /// The product's value in the column that the list is ordered by.
    pub(crate) value: Value,
}

/// A product's value in the column that a list is ordered by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// Ordered by id, so [`Cursor::id`] is the value.
    Id,
    Name(String),
    /// A decimal as text.
    Price(String),
    CreatedAt(Timestamp),
}

const CHECKSUM_BYTES: usize = 8;
const MAX_ENCODED_BYTES: usize = 1024;

impl Cursor {
    /// Encodes the cursor as unpadded URL-safe base64.
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

    /// Decodes a cursor that was encoded for the same filter and ordering. Returns `None` for any other text, and for a
    /// value that the column cannot hold.
    pub(crate) fn decode(text: &str, filter: &Filter, ordering: Ordering) -> Option<Self> {
        if text.len() > MAX_ENCODED_BYTES {
            return None;
        }
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        let (bytes, expected) = bytes.split_last_chunk::<CHECKSUM_BYTES>()?;
        if checksum(bytes, &scope_key(filter, ordering)) != *expected {
            return None;
        }
        let (backwards, rest) = bytes.split_first()?;
        let (id, value) = rest.split_first_chunk::<8>()?;
        let text = || String::from_utf8(value.to_vec()).ok();
        let value = match ordering.column {
            Column::Id => Value::Id,
            Column::Name => Value::Name(text().filter(|name| !name.contains('\0'))?),
            Column::Price => Value::Price(check_decimal(&text()?, false, PRICE_RULE).ok()?),
            Column::CreatedAt => {
                let micros = i64::from_be_bytes(value.try_into().ok()?);
                Value::CreatedAt(timestamps::check_range(Timestamp::from_microsecond(micros).ok()?)?)
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

    fn ordered_by(column: Column, descending: bool) -> Ordering {
        Ordering { column, descending }
    }

    #[test]
    fn cursor_is_valid_only_for_its_own_list() {
        let all = Filter::default();
        for (ordering, value) in [
            (ordered_by(Column::Id, false), Value::Id),
            (ordered_by(Column::Name, true), Value::Name("Żółw".into())),
            (ordered_by(Column::Price, false), Value::Price("0.10".into())),
            (ordered_by(Column::CreatedAt, false), Value::CreatedAt(Timestamp::from_microsecond(-1).unwrap())),
        ] {
            let cursor = Cursor { backwards: true, id: i64::MAX, value };
            let text = cursor.encode(&all, ordering);
            assert_eq!(Cursor::decode(&text, &all, ordering), Some(cursor));
            let reversed = ordered_by(ordering.column, !ordering.descending);
            let filtered = Filter { terms: vec!["x".into()], ..Filter::default() };
            let other_lists = (Cursor::decode(&text, &all, reversed), Cursor::decode(&text, &filtered, ordering));
            assert_eq!(other_lists, (None, None));
            for length in 0..text.len() {
                assert_eq!(Cursor::decode(&text[..length], &all, ordering), None, "{length}");
                let mut damaged = text.clone();
                let replacement = if text.as_bytes()[length] == b'A' { "B" } else { "A" };
                damaged.replace_range(length..=length, replacement);
                assert_eq!(Cursor::decode(&damaged, &all, ordering), None, "{damaged}");
            }
        }
    }

    #[test]
    fn cursor_with_value_out_of_column_range_is_invalid() {
        let timestamp = |year: i64| Timestamp::from_second(year * 31_556_952 - 62_167_219_200).unwrap();
        for (column, value) in [
            (Column::Name, Value::Name("a\0b".into())),
            (Column::Price, Value::Price("much".into())),
            (Column::Price, Value::Price("1e300".into())),
            (Column::CreatedAt, Value::CreatedAt(timestamp(-5000))),
        ] {
            let (all, ordering) = (Filter::default(), ordered_by(column, false));
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
