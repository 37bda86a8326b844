//! Accounts: register, login, logout, me; and what an operator does about them.

pub mod admin;
mod input;
mod login;
mod logout;
mod me;
mod register;

pub use login::login;
pub use logout::logout;
pub use me::me;
pub use register::register;
