//! TestShop, the REST API server of an online shop.
//!
//! The modules from the lowest layer to the highest. A module imports only modules of lower layers; a test enforces
//! this.
//!
//! | module | what it contains |
//! |---|---|
//! | [`digest`], [`mac`], [`network`], [`random`], [`sync`], [`timestamps`] | SHA-256 and hex text, MACs with derived keys, client networks, random numbers, locks, date-time formats |
//! | [`error`] | every error that a client can see, with its status and message |
//! | [`validation`] | rules for the fields of a request body |
//! | [`http`] | HTTP/1.1 on hyper: accept loop, connection limits, dispatch, requests, responses. No domain terms |
//! | [`db`] | PostgreSQL: connection info, pool, statements, transactions, migrations, roles. No HTTP terms |
//! | [`redis`] | the Redis client: connection state, timeouts, Sentinel |
//! | [`versions`] | batched version reads and the revocation feed, which keep reads fresh |
//! | [`cache`] | cached responses: memory, Redis, single-flight, export files |
//! | [`limits`] | fair semaphores, rate limits, the tarpit, the response budget |
//! | [`auth`] | password hashing, tokens, authentication (the caller types) |
//! | [`config`] | every setting; all errors in settings are reported together |
//! | [`app`] | the state that handlers share |
//! | [`lists`] | lists that are cached, or streamed from a snapshot |
//! | [`accounts`] | register, login, sessions, profile |
//! | [`products`] | the list, one product, writes, export, import, demo data |
//! | [`taxonomy`] | categories and tags |
//! | [`ops`] | health, metrics, logs, checks |
//! | [`docs`] | `/`, `/docs` and `openapi.json` |
//! | [`admin_page`] | the files of `/admin/` |
//! | [`routes`] | the route table |
//! | [`server`] | a running server |
//! | [`cli`] | the subcommands |

pub(crate) mod accounts;
pub(crate) mod admin_page;
pub(crate) mod app;
pub mod auth;
pub mod cache;
pub mod cli;
pub mod config;
pub mod db;
mod digest;
pub mod docs;
pub(crate) mod error;
pub mod http;
pub mod limits;
pub(crate) mod lists;
mod mac;
mod network;
pub(crate) mod ops;
pub mod products;
mod random;
pub(crate) mod redis;
pub mod routes;
pub mod server;
mod sync;
pub(crate) mod taxonomy;
pub(crate) mod timestamps;
mod validation;
pub mod versions;
