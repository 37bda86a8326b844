//! What makes reads fresh: batched version reads, leases on them, and the revocation feed that they deliver; names of
//! versions for clients.

mod batch;
mod connection;
mod lease;
mod reader;
mod revocations;
mod sync_token;
mod tickets;
mod traffic;
mod version;
mod watch;

pub use self::version::Version;
pub(crate) use self::{
    reader::VersionReader,
    revocations::{AccountStatus, Revocations},
    sync_token::{PageEnd, SyncToken, X_SYNC_TOKEN},
    version::{VersionRead, Versions},
    watch::VersionWatch,
};
