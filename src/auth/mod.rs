//! Authentication: password hashing, access tokens and the caller types of the route table.

mod authenticate;
pub mod password_hashing;
mod revocation_hints;
mod stored_password;
mod tokens;

pub(crate) use self::{
    authenticate::{Anonymous, Authenticator, Principal, Staff, User, UserAllowStale},
    password_hashing::PasswordHasherPool,
    revocation_hints::RevocationHints,
    tokens::Tokens,
};
