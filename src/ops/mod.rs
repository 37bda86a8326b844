//! What operators see: health, metrics, logs, and the checks of the command line.

pub(crate) mod check;
pub(crate) mod health;
pub(crate) mod logs;
pub(crate) mod metrics;
