//! Who is calling: passwords, tokens, revocations, the kinds of callers, throttles, refusals, turns.

pub mod callers;
pub mod passwords;
pub mod refusals;
pub mod revocations;
pub mod throttle;
pub mod tokens;
pub mod turns;

pub use callers::{Anyone, Caller, Gate, Reader, Staff, User};
pub use passwords::Passwords;
pub use refusals::Refusals;
pub use revocations::Revocations;
pub use throttle::Throttle;
pub use tokens::Tokens;
pub use turns::{Turn, Turns};
