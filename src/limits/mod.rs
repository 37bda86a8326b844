//! Limits that protect the server from its clients.

mod client;
mod fair_semaphore;
mod import_pool;
pub(crate) mod rate_limit;
mod response_budget;
mod tarpit;

pub use self::{
    client::Client,
    fair_semaphore::{FairSemaphore, Permit},
    import_pool::{IMPORT_POOL_BYTES, ImportPool},
};
pub(crate) use self::{
    fair_semaphore::{PERMIT_TIMEOUT, ShareDivisors},
    rate_limit::RateLimiter,
    response_budget::ResponseBudget,
    tarpit::Tarpit,
};
