//! What a page says of the others: `Link` (RFC 8288) and `X-Total-Count`. Links are paths: they hold behind any proxy.

use hyper::header::{self, HeaderName, HeaderValue};
use tokio_postgres::Row;

use super::{
    query::{ListQuery, Paging},
    sql::cursor_at,
};
use crate::cache::Headers;

const PATH: &str = "/api/products/";
const TOTAL: HeaderName = HeaderName::from_static("x-total-count");

/// The headers of a page with these rows. `more`: there are further ones in the direction in which it was read; `total`:
/// how many there are on all numbered pages together.
pub(crate) fn links(selection: &ListQuery, rows: &[Row], more: bool, total: Option<i64>) -> Headers {
    let mut links: Vec<String> = Vec::new();
    let mut link = |relation: &str, paging: &[(&str, &str)]| {
        links.push(format!("<{PATH}?{}>; rel=\"{relation}\"", selection.link(paging)));
    };
    match &selection.paging {
        Paging::Whole => {}
        Paging::Keyset { size, cursor } => {
            let size = size.to_string();
            let backwards = cursor.as_ref().is_some_and(|cursor| cursor.backwards);
            // from where one came, there is something: the product beside the cursor
            let (before, after) = if backwards { (more, true) } else { (cursor.is_some(), more) };
            let ends = [("next", rows.last(), after, false), ("prev", rows.first(), before, true)];
            for (relation, row, _, backwards) in ends.into_iter().filter(|(_, _, there, _)| *there) {
                if let Some(row) = row {
                    let cursor =
                        cursor_at(row, selection.ordering, backwards).encode(&selection.filter, selection.ordering);
                    link(relation, &[("page_size", &size), ("cursor", &cursor)]);
                }
            }
        }
        Paging::Numbered { page, size } => {
            let last = (total.unwrap_or(0) - 1).max(0) / size + 1;
            let size = size.to_string();
            let mut to =
                |relation: &str, page: i64| link(relation, &[("page_size", &size), ("page", &page.to_string())]);
            to("first", 1);
            if *page > 1 {
                to("prev", page - 1);
            }
            if *page < last {
                to("next", page + 1);
            }
            to("last", last);
        }
    }
    let link = HeaderValue::from_str(&links.join(", ")).ok().filter(|_| !links.is_empty());
    let link = link.map(|value| (header::LINK, value));
    link.into_iter().chain(total.map(|total| (TOTAL, HeaderValue::from(total)))).collect()
}
