//! TestShop, the server behind an online shop. The map of the house, in reading order:
//!
//! | room | what it is for |
//! |---|---|
//! | [`error`] | every outcome that a client can tell apart, with its status and words |
//! | [`http`] | HTTP/1.1 on hyper: accept loop, guards, dispatch; has never heard of a shop |
//! | [`db`] | PostgreSQL: pool, statements, failures; has never heard of HTTP |

pub mod db;
pub mod error;
pub mod http;
