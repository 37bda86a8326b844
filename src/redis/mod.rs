//! The Redis client: connection state, timeouts, Sentinel.

mod client;
mod url;

pub(crate) use self::{
    client::{CONNECT_TIMEOUT, RedisClient, SENTINELS_TIMEOUT},
    url::RedisSettings,
};
