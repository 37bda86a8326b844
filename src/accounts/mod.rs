//! Accounts: registration, login, sessions, password change and profile; and account management from the command line.

pub(crate) mod admin;
mod input;
mod login;
mod me;
mod password;
mod register;
mod session;

pub(crate) use login::login;
pub(crate) use me::me;
pub(crate) use password::change_password;
pub(crate) use register::register;
pub(crate) use session::{logout, logout_all, refresh};
