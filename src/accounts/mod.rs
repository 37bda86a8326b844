//! Accounts: register, login, sessions that are renewed and ended, passwords, me; and what an operator does about them.

pub(crate) mod admin;
mod input;
mod login;
mod me;
mod password;
mod register;
mod session;

pub(crate) use login::login;
pub(crate) use me::me;
pub(crate) use password::password;
pub(crate) use register::register;
pub(crate) use session::{logout, logout_all, refresh};
