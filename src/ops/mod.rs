//! Operations: health, metrics, logs, and `testshop check`.

pub(crate) mod check;
pub(crate) mod health;
pub(crate) mod logs;
pub(crate) mod metrics;
