//! Where a page of keyset paging begins: after, or before, a product, by what the list is ordered by.
//!
//! A cursor belongs to one filter and one ordering; with another one it is no cursor. It is no secret and no permission:
//! the sum in it tells damage, not forgery, and so each value is held to what its column may hold.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jiff::Timestamp;
use ring::digest;

use super::{
    product::PRICE,
    selection::{Column, Selection},
};
use crate::{http::fields::check_decimal, timestamps};

/// A place between two products.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// Whether the page ends there instead of beginning there.
    pub backwards: bool,
    /// The product beside the place.
    pub id: i64,
    /// What that product is ordered by.
    pub value: Value,
}

/// What a product is ordered by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// The id alone.
    Id,
    /// A name.
    Name(String),
    /// A decimal.
    Price(String),
    /// A moment.
    CreatedAt(Timestamp),
}

const SUM_BYTES: usize = 8;
const MAX_TEXT: usize = 1024;

impl Cursor {
    /// In letters that need no escaping.
    pub fn encode(&self, selection: &Selection) -> String {
        let mut bytes = vec![u8::from(self.backwards)];
        bytes.extend_from_slice(&self.id.to_be_bytes());
        match &self.value {
            Value::Id => {}
            Value::Name(text) | Value::Price(text) => bytes.extend_from_slice(text.as_bytes()),
            Value::CreatedAt(time) => bytes.extend_from_slice(&time.as_microsecond().to_be_bytes()),
        }
        let sum = sum(&bytes, selection);
        bytes.extend_from_slice(&sum);
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    /// What was encoded for the same filter and ordering, or could have been; nothing else.
    pub fn decode(text: &str, selection: &Selection) -> Option<Self> {
        if text.len() > MAX_TEXT {
            return None;
        }
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        let (bytes, given) = bytes.split_last_chunk::<SUM_BYTES>()?;
        if sum(bytes, selection) != *given {
            return None;
        }
        let (backwards, rest) = bytes.split_first()?;
        let (id, value) = rest.split_first_chunk::<8>()?;
        let text = || String::from_utf8(value.to_vec()).ok();
        let value = match selection.ordering.column {
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

fn sum(bytes: &[u8], selection: &Selection) -> [u8; SUM_BYTES] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(selection.without_paging().as_bytes());
    context.update(b"\n");
    context.update(selection.ordering.name().as_bytes());
    context.update(b"\n");
    context.update(bytes);
    let mut sum = [0; SUM_BYTES];
    sum.copy_from_slice(&context.finish().as_ref()[..SUM_BYTES]);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::products::selection::Ordering;

    #[test]
    fn a_cursor_is_read_back_whole_for_its_own_list_only() {
        let by = |column, descending| Selection { ordering: Ordering { column, descending }, ..Selection::default() };
        for (selection, value) in [
            (by(Column::Id, false), Value::Id),
            (by(Column::Name, true), Value::Name("Żółw".into())),
            (by(Column::Price, false), Value::Price("0.10".into())),
            (by(Column::CreatedAt, false), Value::CreatedAt(Timestamp::from_microsecond(-1).unwrap())),
        ] {
            let cursor = Cursor { backwards: true, id: i64::MAX, value };
            let text = cursor.encode(&selection);
            assert_eq!(Cursor::decode(&text, &selection), Some(cursor));
            let mut reversed = selection.clone();
            reversed.ordering.descending = !selection.ordering.descending;
            let mut filtered = selection.clone();
            filtered.filter.words = vec!["x".into()];
            assert_eq!((Cursor::decode(&text, &reversed), Cursor::decode(&text, &filtered)), (None, None));
            for length in 0..text.len() {
                assert_eq!(Cursor::decode(&text[..length], &selection), None, "{length}");
                let mut damaged = text.clone();
                let letter = if text.as_bytes()[length] == b'A' { "B" } else { "A" };
                damaged.replace_range(length..=length, letter);
                assert_eq!(Cursor::decode(&damaged, &selection), None, "{damaged}");
            }
        }
    }

    #[test]
    fn what_no_column_holds_is_no_cursor() {
        let moment = |year: i64| Timestamp::from_second(year * 31_556_952 - 62_167_219_200).unwrap();
        for (column, value) in [
            (Column::Name, Value::Name("a\0b".into())),
            (Column::Price, Value::Price("much".into())),
            (Column::Price, Value::Price("1e300".into())),
            (Column::CreatedAt, Value::CreatedAt(moment(-5000))),
        ] {
            let selection = Selection { ordering: Ordering { column, descending: false }, ..Selection::default() };
            let forged = Cursor { backwards: false, id: 1, value }.encode(&selection);
            assert_eq!(Cursor::decode(&forged, &selection), None, "{forged}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in ".{0,80}") {
            let _ = Cursor::decode(&text, &Selection::default());
        }
    }
}
