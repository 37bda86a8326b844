//! What operators see: health, metrics, logs, and the checks of the command line.

pub mod check;
pub mod health;
pub mod logs;
pub mod metrics;
