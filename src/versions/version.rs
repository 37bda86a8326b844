//! Versions of the catalogue and of the accounts.

use uuid::Uuid;

/// A state of the catalogue, or of the accounts. The token makes it unrepeatable when numbers are dealt a second time
/// after a fail-over or a restored backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version {
    /// Grows with each write.
    pub number: i64,
    /// Drawn anew with each write.
    pub token: Uuid,
}

/// The versions of both subjects, read together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Versions {
    /// Of products, categories, tags and their links.
    pub(crate) catalogue: Version,
    /// Of accounts and revoked tokens.
    pub(crate) accounts: Version,
}

/// What is known about the present state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VersionRead {
    /// The database said so after the request had arrived.
    Current(Versions),
    /// The database cannot be reached; it said so a moment ago.
    Unverified(Versions),
}

impl VersionRead {
    /// The versions, verified or not.
    pub(crate) fn versions(&self) -> &Versions {
        match self {
            Self::Current(versions) | Self::Unverified(versions) => versions,
        }
    }
}
