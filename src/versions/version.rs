//! Versions of the catalogue and of the accounts.

use uuid::Uuid;

/// A state of the catalogue or of the accounts.
///
/// A failover or a restored backup may repeat numbers; the random token keeps every version unique.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version {
    /// Increases with each write.
    pub number: i64,
    /// Random, new with each write.
    pub token: Uuid,
}

/// The versions of both subjects, from one read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Versions {
    /// The version of products, categories, tags and their links.
    pub(crate) catalogue: Version,
    /// The version of accounts and revoked tokens.
    pub(crate) accounts: Version,
}

/// The result of a version read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VersionRead {
    /// The database returned the versions after the request had arrived.
    Verified(Versions),
    /// The database is unreachable; it returned the versions a short time ago.
    Stale(Versions),
}

impl VersionRead {
    /// Returns the versions, verified or stale.
    pub(crate) fn versions(&self) -> &Versions {
        match self {
            Self::Verified(versions) | Self::Stale(versions) => versions,
        }
    }
}
