//! The headers `Link` (RFC 8288) and `X-Total-Count` of a page. Link targets are paths, so they are valid behind a
//! proxy.

use hyper::header::HeaderValue;
use tokio_postgres::Row;

use super::{
    query::{ListQuery, Paging},
    sql::cursor_at,
};
use crate::cache::{Headers, PageHeaders};

const PATH: &str = "/api/products/";

/// Returns the headers of a page with these rows. `has_more`: further rows follow in the direction in which the page
/// was read. `total`: the number of rows on all pages, of numbered pages only.
pub(crate) fn pagination_headers(query: &ListQuery, rows: &[Row], has_more: bool, total: Option<i64>) -> Headers {
    let mut links: Vec<String> = Vec::new();
    let mut push_link = |relation: &str, paging_params: &[(&str, &str)]| {
        links.push(format!("<{PATH}?{}>; rel=\"{relation}\"", query.key_with(paging_params)));
    };
    match &query.paging {
        Paging::Unpaged => {}
        Paging::Keyset { size, cursor } => {
            let size = size.to_string();
            let backwards = cursor.as_ref().is_some_and(|cursor| cursor.backwards);
            // the product that the cursor identifies lies on the side that the client came from
            let (has_prev, has_next) = if backwards { (has_more, true) } else { (cursor.is_some(), has_more) };
            let next = rows.last().filter(|_| has_next).map(|row| ("next", row, false));
            let prev = rows.first().filter(|_| has_prev).map(|row| ("prev", row, true));
            for (relation, row, backwards) in next.into_iter().chain(prev) {
                let cursor = cursor_at(row, query.ordering, backwards).encode(&query.filter, query.ordering);
                push_link(relation, &[("page_size", &size), ("cursor", &cursor)]);
            }
        }
        Paging::Numbered { page, size } => {
            let last = (total.unwrap_or(0) - 1).max(0) / size + 1;
            let size = size.to_string();
            let mut push_page =
                |relation: &str, page: i64| push_link(relation, &[("page_size", &size), ("page", &page.to_string())]);
            push_page("first", 1);
            if *page > 1 {
                push_page("prev", page - 1);
            }
            if *page < last {
                push_page("next", page + 1);
            }
            push_page("last", last);
        }
    }
    let link = HeaderValue::from_str(&links.join(", ")).ok().filter(|_| !links.is_empty());
    PageHeaders { link, total_count: total.and_then(|total| u64::try_from(total).ok()) }.into()
}
