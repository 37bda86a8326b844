//! Authentication: password hashing, access tokens and the caller types of the route table.

mod authenticate;
pub mod password_hashing;
mod stored_password;
mod tokens;

pub(crate) use self::{
    authenticate::{Anonymous, Authenticator, Principal, Staff, User, UserAllowStale},
    password_hashing::PasswordHasherPool,
    tokens::Tokens,
};
