//! A product and its JSON representation.

use bytes::BufMut;
use hyper::header::HeaderValue;
use jiff::Timestamp;
use tokio_postgres::Row;

use super::fields::{Field, Fields};
use crate::{
    http::{
        Representation,
        etag::{content_id, etag},
    },
    timestamps::iso8601,
    validation::DecimalRule,
};

/// The range of a price: `numeric(12, 2)`.
pub(crate) const PRICE_RULE: DecimalRule = DecimalRule { max_digits: 12, max_places: 2 };

/// A product with the names of its category and tags, borrowed from its row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Product<'a> {
    pub id: i64,
    pub name: &'a str,
    /// May be empty.
    pub description: &'a str,
    pub category_name: &'a str,
    /// A decimal with two places, as PostgreSQL formats it.
    pub price: &'a str,
    pub created_at: Timestamp,
    /// Names, in byte order.
    pub tags: Vec<&'a str>,
}

impl<'a> Product<'a> {
    /// Reads the columns id, name, description, category_name, price, created_at and tags, of which the first has the
    /// index `first` in the row. Columns are read by index, because a list reads them for each of its rows.
    pub(crate) fn from_columns(row: &'a Row, first: usize) -> Self {
        let mut tags: Vec<&str> = row.get::<_, Option<_>>(first + 6).unwrap_or_default();
        tags.sort_unstable();
        Self {
            id: row.get(first),
            name: row.get(first + 1),
            description: row.get(first + 2),
            category_name: row.get(first + 3),
            price: row.get(first + 4),
            created_at: row.get(first + 5),
            tags,
        }
    }

    /// Appends compact JSON with all fields. The order of its keys is part of the API.
    pub(crate) fn write_json(&self, json: &mut Vec<u8>) {
        json.put_slice(b"{\"id\":");
        json.put_slice(itoa::Buffer::new().format(self.id).as_bytes());
        json.put_slice(b",\"name\":");
        write_string(self.name, json);
        json.put_slice(b",\"description\":");
        write_string(self.description, json);
        json.put_slice(b",\"category_name\":");
        write_string(self.category_name, json);
        // a JSON number with the stored digits, never converted to a binary float
        json.put_slice(b",\"price\":");
        json.put_slice(self.price.as_bytes());
        json.put_slice(b",\"created_at\":\"");
        json.put_slice(iso8601(self.created_at).as_bytes());
        json.put_slice(b"\",\"tags\":");
        self.write_tags(json);
        json.put_u8(b'}');
    }

    /// Appends compact JSON with these fields, in the same order. With all fields it writes the same bytes as
    /// [`write_json`](Self::write_json), which is faster.
    pub(crate) fn write_json_fields(&self, fields: Fields, json: &mut Vec<u8>) {
        let mut separator = b'{';
        for field in fields.iter() {
            json.put_u8(separator);
            separator = b',';
            json.put_u8(b'"');
            json.put_slice(field.name().as_bytes());
            json.put_slice(b"\":");
            match field {
                Field::Id => json.put_slice(itoa::Buffer::new().format(self.id).as_bytes()),
                Field::Name => write_string(self.name, json),
                Field::Description => write_string(self.description, json),
                Field::CategoryName => write_string(self.category_name, json),
                Field::Price => json.put_slice(self.price.as_bytes()),
                Field::CreatedAt => write_string(&iso8601(self.created_at), json),
                Field::Tags => self.write_tags(json),
            }
        }
        json.put_u8(b'}');
    }

    fn write_tags(&self, json: &mut Vec<u8>) {
        json.put_u8(b'[');
        for (index, tag) in self.tags.iter().enumerate() {
            if index > 0 {
                json.put_u8(b',');
            }
            write_string(tag, json);
        }
        json.put_u8(b']');
    }

    pub(crate) fn to_json(&self) -> Vec<u8> {
        let mut json = Vec::with_capacity(256 + self.description.len());
        self.write_json(&mut json);
        json
    }
}

/// Returns the entity tag of a product's JSON.
pub(crate) fn etag_of(json: &[u8]) -> HeaderValue {
    etag(&content_id(json), Representation::Identity)
}

fn write_string(text: &str, json: &mut Vec<u8>) {
    if let Err(error) = serde_json::to_writer(json, text) {
        unreachable!("writing a string to memory failed: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::etag::FORMAT_VERSION;

    #[test]
    fn json_is_compact_ordered_and_not_html_escaped() {
        let product = Product {
            id: 1,
            name: "<b>\"Żółw\"</b>\n",
            description: "",
            category_name: "Sport & Spiel",
            price: "0.10",
            created_at: Timestamp::from_microsecond(1_691_496_000_000_000).unwrap(),
            tags: vec!["a", "b"],
        };
        let json = concat!(
            r#"{"id":1,"name":"<b>\"Żółw\"</b>\n","description":"","category_name":"Sport & Spiel","price":0.10,"#,
            r#""created_at":"2023-08-08T12:00:00Z","tags":["a","b"]}"#
        );
        assert_eq!(String::from_utf8(product.to_json()).unwrap(), json);
        let with_fields = |fields: Fields| {
            let mut json = Vec::new();
            product.write_json_fields(fields, &mut json);
            String::from_utf8(json).unwrap()
        };
        assert_eq!(with_fields(Fields::ALL), json);
        let some = [Field::Price, Field::Name, Field::CreatedAt].into_iter().collect();
        let json = r#"{"name":"<b>\"Żółw\"</b>\n","price":0.10,"created_at":"2023-08-08T12:00:00Z"}"#;
        assert_eq!(with_fields(some), json);
        assert_eq!(FORMAT_VERSION, 1, "another JSON than the one above needs another format version");
    }
}
