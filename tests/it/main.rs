//! The shop, tested from outside: over HTTP, on a real PostgreSQL and a real Redis.

mod harness;

mod accounts;
mod browser;
mod catalogue;
mod commands;
mod deploy;
mod docs;
mod export;
mod freshness;
mod hard;
mod house;
mod http;
mod idempotency;
mod import;
mod list;
mod migrations;
mod model;
mod outages;
mod replica;
mod roles;
mod routes;
mod sentinel;
mod sessions;
mod statements;
mod stops;
mod tls;
mod tokens;
mod versions;
