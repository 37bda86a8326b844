//! TestShop, the server behind an online shop. The map of the house, in reading order; a room (a module) knows those above it.
//!
//! | room | what it is for |
//! |---|---|
//! | [`error`] | every outcome that a client can tell apart, with its status and words |
//! | [`timestamps`] | moments as text |
//! | [`http`] | HTTP/1.1 on hyper: accept loop, guards, dispatch; has never heard of a shop |
//! | [`db`] | PostgreSQL: address, pool, replica, statements, migrations, roles; has never heard of HTTP |
//! | [`cache`] | freshness (version reads), layers, one flight per version; an outage is a miss |
//! | [`auth`] | passwords, tokens, revocations, callers, throttles, refusals, turns |
//! | [`config`] | every setting, all faults reported at once |
//! | [`app`] | the state that handlers share: one plain struct, passed by reference |
//! | [`named`] | names that products refer to |
//! | [`users`] | accounts |
//! | [`products`] | the list, one product, writes, export and import, demo data |
//! | [`categories`], [`tags`] | the two kinds of such names |
//! | [`ops`] | health, metrics, logs, checks |
//! | [`docs`] | `/`, `/docs` and `openapi.json` |
//! | [`routes`] | the table: method, path, who may call, handler |
//! | [`server`] | a running server |

pub(crate) mod accounts;
pub(crate) mod app;
pub mod auth;
pub mod cache;
pub mod cli;
pub mod config;
pub mod db;
mod digest;
pub mod docs;
pub(crate) mod error;
pub(crate) mod http;
pub(crate) mod limits;
pub(crate) mod ops;
pub mod products;
pub(crate) mod redis;
pub mod routes;
pub mod server;
mod sync;
pub(crate) mod taxonomy;
pub(crate) mod timestamps;
mod validation;
pub mod versions;
