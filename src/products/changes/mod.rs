//! The change feed: what turns the state of the catalogue that a client has into the present one.
//!
//! A client loads the whole list once, whose response names its state with a sync token. It then asks for the changes
//! since, page by page (`handler`), may wait for the next ones (`wait`), or receives them as they are committed (`events`).
//!
//! # Pages
//!
//! The log of changes says which products each version changed. A page covers a *range* of versions (since, until] and
//! some of the ids that the range changed, in their order: those after the last id of the page before. `until` is the
//! version that the snapshot of the first page shows. A page contains the products as its own snapshot shows them, which
//! may be later than `until`; an id that the snapshot does not have is deleted. The token of a page names the range and
//! the last id, that of the last page `until`. `more` is set until a page is the last one of its range and `until` is the
//! version of its snapshot.
//!
//! # Why a client that follows the feed has exactly the list
//!
//! Let a client have the state of version s, and let it follow the pages until one without `more`, whose token names
//! version t. Let w be the last version in (s, t] that changed what the list shows of product p. The ranges that the
//! client follows join to (s, t], so one of them, (a, b], contains w. Its pages partition all ids, so one of them covers
//! the id of p. Its snapshot shows a version v with b <= v, because a snapshot is opened after the version of its token
//! was committed, and v <= t, because each snapshot of the client is opened after the one before, and t is the version
//! of the last one. So w <= v <= t, and the snapshot shows p as t does.
//!
//! The page contains p: either version w logged the id of p; then the log of the range has it. Or w renamed the category
//! or a tag of p. Nothing has changed p since, so p still has that category or tag in the snapshot of the page, in which
//! they are looked up. A product that lost it after w was logged itself, and w is not its last change.
//!
//! The client applies the pages in their order. Pages after this one that contain p show it as of a later snapshot, with
//! the same outcome. Pages before it do not matter. So the client has p as t shows it, or has deleted it. If no version in
//! (s, t] changed p, every page that contains p shows it as s does.
//!
//! The log does not know a range when one of its versions has been pruned or belongs to another history, or when a
//! transaction changed too much to log ids. The client then loads the list again.

mod events;
mod handler;
mod listener;
mod page;
mod params;
mod wait;

pub(crate) use events::events;
pub(crate) use handler::changes;
pub(crate) use params::MAX_WAIT;
