//! The client of a request, as limits count it: by its account and by its network.

use std::net::IpAddr;

use crate::network::ClientNetwork;

/// A user at a network. Registration is open, so one person can have many accounts: each limit has a share per user and
/// a share per network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Client {
    pub(crate) user: i64,
    /// `None` for a request whose client address is not known. No share per network applies to it.
    pub(crate) network: Option<ClientNetwork>,
}

impl Client {
    /// Returns the client that `user` is at `address`.
    pub fn new(user: i64, address: Option<IpAddr>) -> Self {
        Self { user, network: address.map(ClientNetwork::from) }
    }
}
