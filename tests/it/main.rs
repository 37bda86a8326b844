//! The shop, tested from outside: over HTTP, on a real PostgreSQL and a real Redis.

mod harness;

mod accounts;
mod catalogue;
mod commands;
mod export;
mod freshness;
mod house;
mod http;
mod outages;
mod replica;
mod routes;
mod statements;
mod tls;
mod tokens;
