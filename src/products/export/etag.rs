//! Entity tags of exports.
//!
//! A tag consists of a digest of the rows that the file shows and of the request that selects them: the tag changes only
//! when the bytes of the file do, and the import can check it without knowing more.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::{TryStreamExt, pin_mut};
use hyper::header::HeaderValue;
use tokio_postgres::Client;

use super::request::ExportRequest;
use crate::{
    db::{DbError, TxError, statements::PRODUCTS_LIST},
    digest::{Sha256, hex, sha256},
    http::etag::{ContentId, content_id_of},
    products::{fields::Fields, list::list_request::ListRequest, product::Product},
    versions::Version,
};

/// The digits of a digest.
const DIGITS: usize = 2 * size_of::<ContentId>();
/// The limit of a request in a tag, so that a response with the tag suits every proxy. Of a longer one the tag has a
/// digest, which the import cannot check.
const MAX_REQUEST_BYTES: usize = 512;

/// A digest of the rows of an export, in their order.
pub(crate) struct RowsDigest {
    digest: Sha256,
    fields: Fields,
    json: Vec<u8>,
}

impl RowsDigest {
    pub(crate) fn new(fields: Fields) -> Self {
        let mut digest = Sha256::default();
        // another version of the program may write other bytes
        digest.update(env!("CARGO_PKG_VERSION").as_bytes());
        Self { digest, fields, json: Vec::new() }
    }

    pub(crate) fn update(&mut self, product: &Product<'_>) {
        self.json.clear();
        product.write_json_fields(self.fields, &mut self.json);
        self.digest.update(&self.json);
    }

    pub(crate) fn finish(self) -> ContentId {
        content_id_of(&self.digest.finish())
    }
}

/// Returns the strong entity tag of the export of these rows; `request` is its [text](ExportRequest::text).
pub(crate) fn export_etag(rows: &ContentId, request: &str) -> HeaderValue {
    let rows = hex(rows);
    let tag = if request.len() <= MAX_REQUEST_BYTES {
        format!("\"{rows}.{}\"", URL_SAFE_NO_PAD.encode(request))
    } else {
        format!("\"{rows}-{}\"", hex(&sha256(&[request.as_bytes()])))
    };
    HeaderValue::from_str(&tag).unwrap_or_else(|error| unreachable!("digits and letters fit a header: {error}"))
}

/// Returns the digits of the rows and the request of a tag that contains it.
fn parse(etag: &str) -> Option<(&str, ExportRequest)> {
    let (rows, request) = etag.strip_prefix('"')?.strip_suffix('"')?.split_at_checked(DIGITS)?;
    let request = request.strip_prefix('.').filter(|request| request.len() <= MAX_REQUEST_BYTES.div_ceil(3) * 4)?;
    let request = String::from_utf8(URL_SAFE_NO_PAD.decode(request).ok()?).ok()?;
    Some((rows, ExportRequest::parse(form_urlencoded::parse(request.as_bytes())).ok()?))
}

/// Returns whether `etag` is that of an export which shows the present rows, in the open transaction. `version` is the
/// version of the catalogue that it shows.
pub(crate) async fn is_current_etag(client: &Client, etag: &str, version: Version) -> Result<bool, TxError> {
    let Some((shown, ExportRequest { query, layout })) = parse(etag) else { return Ok(false) };
    let request = ListRequest { query: query.into(), ..ListRequest::default() };
    let rows = match request.send(client, version).await {
        // a page beyond the last one
        Err(TxError::App(_)) => return Ok(false),
        rows => rows?,
    };
    let mut digest = RowsDigest::new(layout.fields);
    pin_mut!(rows);
    while let Some(row) = rows.try_next().await.map_err(|error| DbError::statement(&PRODUCTS_LIST, error))? {
        digest.update(&Product::from_columns(&row, 0));
    }
    Ok(hex(&digest.finish()) == shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etag_names_the_rows_and_the_request() {
        let rows = [7; 16];
        let tag = |request: &str| export_etag(&rows, request).to_str().unwrap().to_owned();
        let etag = tag("search=a%40b&format=csv");
        let (digits, request) = parse(&etag).unwrap();
        assert_eq!((digits, request.text().as_str()), (&*"07".repeat(16), "search=a%40b&format=csv"));
        assert_ne!(etag, export_etag(&[8; 16], "search=a%40b&format=csv"));
        let long = format!("search={}", "a".repeat(MAX_REQUEST_BYTES));
        assert!(tag(&long).len() < 120 && tag(&long) != tag(&long.replace('a', "b")));
        let wrong = [
            format!("W/{etag}"),
            etag.replace('.', "-"),
            etag.replace('.', ".*"),
            etag[1..].to_owned(),
            tag("format=pdf"),
            tag("unknown=1"),
            tag(&long),
        ];
        for wrong in wrong {
            assert!(parse(&wrong).is_none(), "{wrong}");
        }
    }
}
