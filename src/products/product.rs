//! One product as clients see it.

use bytes::BufMut;
use hyper::header::HeaderValue;
use jiff::Timestamp;
use tokio_postgres::Row;

use crate::{
    http::{
        Representation,
        etag::{content_id, etag},
    },
    timestamps::iso8601,
    validation::DecimalRule,
};

/// What a price may be: `numeric(12, 2)`.
pub(crate) const PRICE: DecimalRule = DecimalRule { digits: 12, places: 2 };

/// One product with the names of its category and tags, borrowed from its row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Product<'a> {
    /// The id.
    pub id: i64,
    /// The name.
    pub name: &'a str,
    /// The description, which may be empty.
    pub description: &'a str,
    /// The name of its category.
    pub category_name: &'a str,
    /// The price as the database writes it: with two decimals.
    pub price: &'a str,
    /// When it was created.
    pub created_at: Timestamp,
    /// The names of its tags, sorted by their bytes.
    pub tags: Vec<&'a str>,
}

impl<'a> Product<'a> {
    /// From the columns id, name, description, category_name, price, created_at, tags, of which the first is the
    /// `first` of the row.
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

    /// Compact JSON, its keys in the order that clients know.
    pub(crate) fn write_json(&self, json: &mut Vec<u8>) {
        json.put_slice(b"{\"id\":");
        json.put_slice(itoa::Buffer::new().format(self.id).as_bytes());
        json.put_slice(b",\"name\":");
        write_string(self.name, json);
        json.put_slice(b",\"description\":");
        write_string(self.description, json);
        json.put_slice(b",\"category_name\":");
        write_string(self.category_name, json);
        // a JSON number, digit for digit as it is stored
        json.put_slice(b",\"price\":");
        json.put_slice(self.price.as_bytes());
        json.put_slice(b",\"created_at\":\"");
        json.put_slice(iso8601(self.created_at).as_bytes());
        json.put_slice(b"\",\"tags\":[");
        for (place, tag) in self.tags.iter().enumerate() {
            if place > 0 {
                json.put_u8(b',');
            }
            write_string(tag, json);
        }
        json.put_slice(b"]}");
    }

    /// The JSON in a buffer of its own.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        let mut json = Vec::with_capacity(256 + self.description.len());
        self.write_json(&mut json);
        json
    }
}

/// The entity tag of a product's JSON.
pub(crate) fn etag_of(json: &[u8]) -> HeaderValue {
    etag(&content_id(json), Representation::Identity)
}

fn write_string(text: &str, json: &mut Vec<u8>) {
    if let Err(error) = serde_json::to_writer(json, text) {
        unreachable!("a text could not be written to memory: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_compact_in_order_and_not_escaped_for_html() {
        let product = Product {
            id: 1,
            name: "<b>\"Żółw\"</b>\n",
            description: "",
            category_name: "Sport & Spiel",
            price: "0.10",
            created_at: Timestamp::from_microsecond(1_691_496_000_000_000).unwrap(),
            tags: vec!["a", "b"],
        };
        assert_eq!(
            String::from_utf8(product.to_json()).unwrap(),
            r#"{"id":1,"name":"<b>\"Żółw\"</b>\n","description":"","category_name":"Sport & Spiel","price":0.10,"created_at":"2023-08-08T12:00:00Z","tags":["a","b"]}"#
        );
    }
}
