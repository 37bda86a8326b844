//! Accounts: register, login, sessions that are renewed and ended, passwords, me; and what an operator does about them.

pub mod admin;
mod input;
mod login;
mod me;
mod password;
mod register;
mod session;

pub use login::login;
pub use me::me;
pub use password::password;
pub use register::register;
pub use session::{logout, logout_all, refresh};
