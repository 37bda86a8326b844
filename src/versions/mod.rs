//! What makes reads fresh: batched version reads, and the revocation feed that they deliver.

mod reader;
mod revocations;
mod version;

pub use self::version::Version;
pub(crate) use self::{
    reader::VersionReader,
    revocations::{AccountStatus, Revocations},
    version::VersionRead,
};
