//! Accounts: registration, login and what ends an account's access, rate limits.

mod login;
mod rate_limits;
mod registration;
