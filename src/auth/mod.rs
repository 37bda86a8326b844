//! Authentication: password hashing, access tokens and the caller types of the route table.

mod authenticate;
pub mod password_hashing;
mod tokens;

pub(crate) use self::{
    authenticate::{Anonymous, Authenticator, Principal, Staff, User, UserAllowStale},
    password_hashing::PasswordHasherPool,
    tokens::Tokens,
};
