//! Limits that protect the server from its clients.

mod fair_semaphore;
pub(crate) mod rate_limit;
mod response_budget;
mod tarpit;

pub(crate) use self::{
    fair_semaphore::{FairSemaphore, PERMIT_TIMEOUT, Permit},
    rate_limit::RateLimiter,
    response_budget::ResponseBudget,
    tarpit::Tarpit,
};
