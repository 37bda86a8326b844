//! Integration tests: the server over HTTP, on a real PostgreSQL and a real Redis.

mod harness;

mod accounts;
mod architecture;
mod browser;
mod bulk_accounts;
mod catalogue;
mod changes;
mod commands;
mod deploy;
mod docs;
mod export;
mod freshness;
mod http;
mod idempotency;
mod import;
mod lease_model;
mod list;
mod locales;
mod migrations;
mod model;
mod outages;
mod previous_release;
mod refresh_grace;
mod replica;
mod restore;
mod roles;
mod routes;
mod sentinel;
mod sessions;
mod shutdown;
mod statements;
mod stress;
mod tls;
mod tokens;
mod version_log;
